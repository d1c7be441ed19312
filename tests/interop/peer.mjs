// The real BullMQ as a peer of the tests: does what it is told by lines of JSON on its input, and answers on its output.
//
//     {"id": 1, "op": "add", "queue": "q", "name": "n", "data": {…}, "opts": {…}}  ─►  {"id": 1, "result": …} or {"id": 1, "error": "…"}
//     workers and followers also write {"event": "completed", …} on their own
import readline from 'node:readline';
import { FlowProducer, Queue, QueueEvents, Worker } from 'bullmq';

const { connection, prefix } = JSON.parse(process.env.PEER);
const queues = new Map();
const workers = new Map();
const followers = new Map();
const flows = new FlowProducer({ connection, prefix });

const say = (message) => process.stdout.write(`${JSON.stringify(message)}\n`);

function queueOf(name) {
  if (!queues.has(name)) queues.set(name, new Queue(name, { connection, prefix }));
  return queues.get(name);
}

function eventsOf(name) {
  if (!followers.has(name)) followers.set(name, new QueueEvents(name, { connection, prefix }));
  return followers.get(name);
}

// What a job's data asks of whoever runs it.
async function handle(job) {
  if (job.data.progress !== undefined) await job.updateProgress(job.data.progress);
  if (job.data.log !== undefined) await job.log(job.data.log);
  if (job.data.fail && job.attemptsMade < job.data.fail) throw new Error(`asked to fail: ${job.attemptsMade + 1}`);
  if (job.data.hang) await new Promise((resolve) => setTimeout(resolve, job.data.hang));
  if (job.data.sum) return Object.values(await job.getChildrenValues()).reduce((total, value) => total + value, 0);
  return job.data.returns ?? { by: 'node', attempts: job.attemptsMade };
}

const shown = (job) =>
  job && {
    id: job.id, name: job.name, data: job.data, opts: job.opts, progress: job.progress, returnvalue: job.returnvalue,
    failedReason: job.failedReason, stacktrace: job.stacktrace, attemptsMade: job.attemptsMade, priority: job.priority, delay: job.delay,
    processedBy: job.processedBy, finishedOn: job.finishedOn, timestamp: job.timestamp,
  };

const operations = {
  add: async ({ queue, name, data, opts }) => shown(await queueOf(queue).add(name, data, opts)),
  addBulk: async ({ queue, jobs }) => (await queueOf(queue).addBulk(jobs)).map((job) => job.id),
  addFlow: async ({ flow }) => (await flows.add(flow)).job.id,
  getFlow: async ({ queue, id }) => {
    const tree = (node) => ({ name: node.job.name, children: (node.children ?? []).map(tree) });
    return tree(await flows.getFlow({ queueName: queue, id, prefix }));
  },
  upsertScheduler: async ({ queue, scheduler, repeat, template }) =>
    shown(await queueOf(queue).upsertJobScheduler(scheduler, repeat, template)),
  schedulers: async ({ queue }) => queueOf(queue).getJobSchedulers(),
  removeScheduler: async ({ queue, scheduler }) => queueOf(queue).removeJobScheduler(scheduler),
  get: async ({ queue, id }) => shown(await queueOf(queue).getJob(id)),
  state: async ({ queue, id }) => (await queueOf(queue).getJob(id))?.getState(),
  logs: async ({ queue, id }) => queueOf(queue).getJobLogs(id),
  counts: async ({ queue }) => queueOf(queue).getJobCounts(),
  workers: async ({ queue }) => (await queueOf(queue).getWorkers()).map((worker) => worker.rawname),
  metrics: async ({ queue, state }) => queueOf(queue).getMetrics(state),
  retry: async ({ queue, id, state }) => (await queueOf(queue).getJob(id)).retry(state),
  promote: async ({ queue, id }) => (await queueOf(queue).getJob(id)).promote(),
  remove: async ({ queue, id }) => queueOf(queue).remove(id),
  pause: async ({ queue }) => queueOf(queue).pause(),
  resume: async ({ queue }) => queueOf(queue).resume(),
  isPaused: async ({ queue }) => queueOf(queue).isPaused(),
  setGlobalConcurrency: async ({ queue, concurrency }) => queueOf(queue).setGlobalConcurrency(concurrency),
  waitUntilFinished: async ({ queue, id, ttl }) => {
    const events = eventsOf(queue);
    await events.waitUntilReady();
    return (await queueOf(queue).getJob(id)).waitUntilFinished(events, ttl);
  },
  follow: async ({ queue }) => {
    const events = eventsOf(queue);
    for (const name of ['completed', 'failed', 'progress', 'delayed', 'removed', 'drained', 'stalled']) {
      events.on(name, (fields, streamId) => say({ event: name, queue, fields, streamId }));
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
};

readline.createInterface({ input: process.stdin }).on('line', async (line) => {
  const { id, op, ...args } = JSON.parse(line);
  try {
    say({ id, result: (await operations[op](args)) ?? null });
  } catch (error) {
    say({ id, error: String(error?.message ?? error) });
  }
}).on('close', () => process.exit(0));
say({ event: 'ready' });
