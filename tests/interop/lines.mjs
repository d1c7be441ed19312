// Lines of JSON on standard input and output: how the tests speak with their Node peers.
//
//     {"call": 1, "op": "add", "args": {…}}  ─►  {"call": 1, "result": …} or {"call": 1, "error": "…"}
//     {"event": "ran", …}                         what it says on its own
import readline from 'node:readline';

export const say = (message) => process.stdout.write(`${JSON.stringify(message)}\n`);

// Do what is asked, until the input ends: it does when the test ends, however that may be.
export function serve(operations) {
  readline.createInterface({ input: process.stdin }).on('line', async (line) => {
    const { call, op, args } = JSON.parse(line);
    try {
      say({ call, result: (await operations[op](args)) ?? null });
    } catch (error) {
      say({ call, error: String(error?.message ?? error) });
    }
  }).on('close', () => process.exit(0));
  say({ event: 'ready' });
}
