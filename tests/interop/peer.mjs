// The real BullMQ as a peer of the tests: does what it is told by lines of JSON (`lines.mjs`).
// Its workers say {"event": "ran", …} after each job, and those who follow a queue say each of its events.
import { Redis } from 'ioredis';
import { say, serve } from './lines.mjs';

const { connection, prefix, library } = JSON.parse(process.env.PEER);
const { FlowProducer, Queue, QueueEvents, QueueEventsProducer, UnrecoverableError, WaitingChildrenError, Worker } = await import(library);

const EVENTS = [
  'active', 'added', 'cleaned', 'completed', 'debounced', 'deduplicated', 'delayed', 'drained', 'duplicated', 'failed', 'paused', 'progress',
  'removed', 'resumed', 'retries-exhausted', 'stalled', 'waiting', 'waiting-children',
];
const queues = new Map();
const workers = new Map();
const followers = new Map();
const connections = new Map();
const flows = new FlowProducer({ connection, prefix });

// Each is made once.
function kept(map, name, make) {
  if (!map.has(name)) map.set(name, make());
  return map.get(name);
}
const queueOf = (name) => kept(queues, name, () => new Queue(name, { connection, prefix }));
// From the oldest event on: where "from now on" begins would depend on how soon the first read reaches the server.
const eventsOf = (name) => kept(followers, name, () => new QueueEvents(name, { connection, prefix, lastEventId: '0-0' }));
const jobOf = async (queue, id) => {
  const job = await queueOf(queue).getJob(id);
  if (!job) throw new Error(`no job ${id}`);
  return job;
};
const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

// What a job's data asks of whoever runs it; `handle` in `handling.py` does the same.
async function handle(job, token) {
  const started = Date.now();
  const { progress, log, fail, giveUp, sleepFor, spawn, sum, returns } = job.data;
  if (spawn) {
    await queueOf(spawn).add('child', { returns: 7 }, { parent: { id: job.id, queue: job.queueQualifiedName } });
    await job.updateData({ sum });
    if (await job.moveToWaitingChildren(token)) throw new WaitingChildrenError();
  }
  if (progress !== undefined) await job.updateProgress(progress);
  if (log !== undefined) await job.log(log);
  if (giveUp) throw new UnrecoverableError('gives up');
  if (fail && job.attemptsMade < fail) throw new Error(`asked to fail: ${job.attemptsMade + 1}`);
  if (sleepFor) await sleep(sleepFor);
  if (sum) return Object.values(await job.getChildrenValues()).reduce((total, value) => total + value, 0);
  return returns ?? { by: 'node', attempts: job.attemptsMade, started, ended: Date.now() };
}

const shown = (job) =>
  job && {
    id: job.id, name: job.name, data: job.data, opts: job.opts, progress: job.progress, returnvalue: job.returnvalue,
    failedReason: job.failedReason, stacktrace: job.stacktrace, attemptsMade: job.attemptsMade, priority: job.priority, delay: job.delay,
    processedBy: job.processedBy, processedOn: job.processedOn, finishedOn: job.finishedOn, timestamp: job.timestamp,
    stalledCounter: job.stalledCounter, parentKey: job.parentKey, deduplicationId: job.deduplicationId,
  };

const operations = {
  // jobs
  add: async ({ queue, name, data, opts }) => shown(await queueOf(queue).add(name, data, opts)),
  addBulk: async ({ queue, jobs }) => (await queueOf(queue).addBulk(jobs)).map((job) => job.id),
  get: async ({ queue, id }) => shown(await queueOf(queue).getJob(id)),
  state: async ({ queue, id }) => (await queueOf(queue).getJob(id))?.getState(),
  logs: async ({ queue, id }) => queueOf(queue).getJobLogs(id),
  retry: async ({ queue, id, state }) => (await jobOf(queue, id)).retry(state),
  promote: async ({ queue, id }) => (await jobOf(queue, id)).promote(),
  remove: async ({ queue, id }) => queueOf(queue).remove(id),
  waitUntilFinished: async ({ queue, id, ttl }) => {
    const events = eventsOf(queue);
    await events.waitUntilReady();
    return (await jobOf(queue, id)).waitUntilFinished(events, ttl);
  },

  // flows
  addFlow: async ({ flow }) => (await flows.add(flow)).job.id,
  getFlow: async ({ queue, id }) => {
    const tree = (node) => ({ name: node.job.name, children: (node.children ?? []).map(tree) });
    return tree(await flows.getFlow({ queueName: queue, id, prefix }));
  },
  children: async ({ queue, id }) => {
    const job = await jobOf(queue, id);
    return { values: await job.getChildrenValues(), ignored: await job.getIgnoredChildrenFailures() };
  },

  // queues
  counts: async ({ queue }) => queueOf(queue).getJobCounts(),
  workers: async ({ queue }) => (await queueOf(queue).getWorkers()).map((worker) => worker.rawname),
  metrics: async ({ queue, state }) => queueOf(queue).getMetrics(state),
  pause: async ({ queue }) => queueOf(queue).pause(),
  resume: async ({ queue }) => queueOf(queue).resume(),
  isPaused: async ({ queue }) => queueOf(queue).isPaused(),
  clean: async ({ queue, grace, limit, type }) => queueOf(queue).clean(grace, limit, type),
  setGlobalConcurrency: async ({ queue, concurrency }) => queueOf(queue).setGlobalConcurrency(concurrency),
  setGlobalRateLimit: async ({ queue, max, duration }) => queueOf(queue).setGlobalRateLimit(max, duration),
  upsertScheduler: async ({ queue, scheduler, repeat, template }) =>
    shown(await queueOf(queue).upsertJobScheduler(scheduler, repeat, template)),
  schedulers: async ({ queue }) => queueOf(queue).getJobSchedulers(),
  removeScheduler: async ({ queue, scheduler }) => queueOf(queue).removeJobScheduler(scheduler),
  // Any method of a queue or of a job, by its name.
  onQueue: async ({ queue, method, arguments: args }) => queueOf(queue)[method](...args),
  onJob: async ({ queue, id, method, arguments: args }) => (await jobOf(queue, id))[method](...args),
  // Any command, as somebody's own program sends it; {"base64": …} stands for bytes.
  raw: async ({ command }) => {
    const [name, ...rest] = command.map((part) => (part.base64 === undefined ? part : Buffer.from(part.base64, 'base64')));
    return kept(connections, 'raw', () => new Redis(connection)).call(name, ...rest);
  },

  // events and workers
  publish: async ({ queue, event }) => {
    const producer = new QueueEventsProducer(queue, { connection, prefix });
    await producer.publishEvent(event);
    await producer.close();
  },
  // Tells of one event of any name, from the beginning of the stream: until its first read has begun it would miss what is new.
  listen: async ({ queue, name }) => {
    const events = kept(followers, `${queue} from 0`, () => new QueueEvents(queue, { connection, prefix, lastEventId: '0' }));
    events.on(name, (fields) => say({ event: name, queue, fields }));
    await events.waitUntilReady();
  },
  follow: async ({ queue }) => {
    const events = eventsOf(queue);
    for (const name of EVENTS) {
      // `drained`, `paused` and `resumed` have no fields worth a name: then the stream's id may come first
      events.on(name, (fields, streamId) => {
        const hasFields = typeof fields === 'object';
        say({ event: name, queue, fields: hasFields ? fields : {}, streamId: hasFields ? streamId : fields });
      });
    }
    await events.waitUntilReady();
  },
  work: async ({ queue, options }) => {
    const worker = new Worker(queue, handle, { connection, prefix, ...options });
    worker.on('completed', (job) => say({ event: 'ran', queue, id: job.id }));
    worker.on('error', (error) => say({ event: 'error', queue, error: error.message }));
    workers.set(queue, worker);
    await worker.waitUntilReady();
  },
  stop: async ({ queue }) => {
    await workers.get(queue)?.close();
    workers.delete(queue);
  },
  // Takes a job as a worker that then forgets it, and whose lock lasts so long.
  claimAndForget: async ({ queue, lock }) => {
    const worker = new Worker(queue, null, { connection, prefix, lockDuration: lock });
    const job = await worker.getNextJob('forgetful');
    await worker.close();
    return job?.id;
  },
  // Never lets the process do anything again.
  hang: () => {
    say({ event: 'hangs' });
    setImmediate(() => { for (;;); });
  },
};

serve(operations);
