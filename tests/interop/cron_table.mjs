import { CronExpressionParser } from 'cron-parser';
// Prints what npm's cron-parser makes of many expressions, in many zones, around changes of the clock: `node cron_table.mjs`.
// tests/data/cron_parser.json holds a part of it, to which tests/unit/test_cron.py holds toril.queues.cron.
const cases = [];
function add(expr, tz, from, n=4){ const out=[]; try { const it = CronExpressionParser.parse(expr,{currentDate:new Date(from), tz}); for(let i=0;i<n;i++) out.push(it.next().getTime()); } catch(e) { out.push(String(e.message)); } cases.push([expr,tz,Date.parse(from),out]); }
const exprs=['* * * * *','*/5 * * * *','0 * * * *','30 2 * * *','0 0 * * *','15,45 1-3 * * *','0 3 * * 1-5','0 0 1 * *','0 0 31 * *','0 12 29 2 *','0 0 * * 0','0 0 * * 7','0 0 L * *','0 0 * * 5L','0 0 * * 1#2','0 0 13 * 5','0 0 */2 * 1','0 0 1-15/7 * MON','0 0 * JAN,JUL *','*/7 * * * *','10/20 * * * *','0 */2 * * *','30 */3 * * *','*/15 * * * * *','5 4 3 * * *','0 30 2 * * *','59 59 23 31 12 *','@yearly','@annually','@monthly','@weekly','@daily','@hourly','@minutely','@secondly','@weekdays','@weekends','0 0 ? * 1-5','0 9-17/2 * * 1,3,5','0 0 15 */3 *','0 0 1 1 0','0 0 28-31 * *','* 2 * * *','*/20 2,3 * * *'];
const zones=['UTC','Europe/Berlin','America/New_York','Asia/Kolkata','Australia/Sydney','America/St_Johns'];
const starts=['2024-02-27T22:13:07.123Z','2025-03-08T20:00:00Z','2025-03-29T20:00:00Z','2025-10-25T20:00:00Z','2025-11-01T20:30:00Z','2025-04-05T10:00:00Z','2025-10-04T10:00:00Z','2025-12-31T22:59:59.999Z'];
for (const e of exprs) for (const z of zones) for (const s of starts) add(e,z,s,4);
console.log(JSON.stringify({parser:'cron-parser 5.10.3',cases}));
