// The real BullMQ, one step at a time: each operation is told the time, does one thing, and answers what came of it.
//
//     {"id": 1, "op": "claim", "now": 1700000000000, "queue": "q", …}  ─►  {"id": 1, "result": {"value": …} or {"error": -3}}
//
// Nothing runs on its own: workers don't run (their jobs are claimed and ended one by one, by the manual API), and clock and chance
// are injected. An error is told by BullMQ's code, or by its text where it has none.
import { say, serve } from './lines.mjs';

const { connection, prefix, library } = JSON.parse(process.env.PEER);
const { FlowProducer, Job, Queue, QueueEventsProducer, UnrecoverableError, Worker } = await import(library);
const HOUR = 3_600_000;

const RealDate = Date;
let now; // not set until the first operation
globalThis.Date = class extends RealDate {
  constructor(...given) {
    super(...(given.length === 0 && now !== undefined ? [now] : given));
  }

  static now() {
    return now ?? RealDate.now();
  }
};
Math.random = () => 0.5;

// The workers that there are; the other side has the same ones.
const WORKERS = {
  plain: {},
  named: { name: 'w1' },
  limited: { limiter: { max: 2, duration: 2 * HOUR } },
  metered: { metrics: { maxDataPoints: 3 } },
  tidy: { removeOnComplete: { count: 2 }, removeOnFail: { age: 3600, limit: 1 } },
};

const flows = new FlowProducer({ connection, prefix });
const queues = new Map();
const producers = new Map();
const workers = new Map();
const held = new Map(); // jobs that were claimed and have not ended, by the name that the test gives to this hold

// `under`: the prefix, where it isn't our own.
function queueOf(name, under = prefix) {
  const key = `${under} ${name}`;
  if (!queues.has(key)) queues.set(key, new Queue(name, { connection, prefix: under, skipMetasUpdate: true }));
  return queues.get(key);
}

function eventsOf(name) {
  if (!producers.has(name)) producers.set(name, new QueueEventsProducer(name, { connection, prefix }));
  return producers.get(name);
}

function workerOf(queue, kind) {
  const key = `${queue} ${kind}`;
  if (!workers.has(key)) {
    const worker = new Worker(queue, null, {
      connection, prefix, autorun: false, lockDuration: HOUR, stalledInterval: HOUR, skipLockRenewal: true, ...WORKERS[kind],
    });
    worker.on('error', (error) => say({ event: 'error', error: error.message }));
    workers.set(key, worker);
  }
  return workers.get(key);
}

async function jobOf({ queue, job }) {
  const found = await queueOf(queue).getJob(job);
  if (!found) throw Object.assign(new Error('no such job'), { code: -1 });
  return found;
}

const withParent = (opts, parent) => (parent ? { ...opts, parent: { id: parent.id, queue: `${prefix}:${parent.queue}` } } : opts);

const flowOf = ({ queue, children, ...node }) => ({ ...node, queueName: queue, children: children?.map(flowOf) });

const treeOf = ({ job, children = [] }) => [job.id, children.map(treeOf).sort()];

function claimed(job, hold) {
  if (!job) return null;
  held.set(hold, job);
  return {
    id: job.id, name: job.name, data: job.data, delay: job.delay, priority: job.priority, made: job.attemptsMade,
    started: job.attemptsStarted, stalled: job.stalledCounter, progress: job.progress, deferred: job.deferredFailure ?? null,
    stacks: job.stacktrace.length,
  };
}

async function claim({ queue, worker, token, hold }) {
  const there = workerOf(queue, worker);
  there.limitUntil = 0; // it would not even ask while it remembers a limit
  return claimed(await there.getNextJob(token, { block: false }), hold);
}

// How a claimed job ends; the next one, if `next` asks for it and the library gives one in the same step.
async function end({ hold, token, how, value, reason, ms }, next = false) {
  const job = held.get(hold);
  switch (how) {
    case 'complete': return job.moveToCompleted(value, token, next);
    case 'fail': return job.moveToFailed(new Error(reason), token, next);
    case 'give up': return job.moveToFailed(new UnrecoverableError(reason), token, next);
    case 'put off': return job.moveToDelayed(now + ms, token);
    case 'put back': return job.moveToWait(token);
    case 'rate limit':
      await queueOf(job.queueName).rateLimit(ms);
      return job.moveToWait(token);
    case 'wait for children': return { waits: await job.moveToWaitingChildren(token) };
    default: throw new Error(`no such ending: ${how}`);
  }
}

const PAGED = ['waiting', 'prioritized', 'delayed', 'completed'];

const codeOf = (error) => error.code ?? error.message;

const operations = {
  reset: () => held.clear(),
  drop: ({ hold }) => { held.delete(hold); },

  add: async ({ queue, name, data, opts, parent, prefix: under }) =>
    (await queueOf(queue, under).add(name, data, withParent(opts, parent))).id,
  add_many: async ({ queue, jobs }) => (await queueOf(queue).addBulk(jobs)).map((job) => job.id),
  add_flow: async ({ flow }) => { await flows.add(flowOf(flow)); },

  claim,
  end: async (args) => {
    const told = await end(args);
    return args.how === 'wait for children' ? told : null;
  },
  // Several endings, then several claims; the last ending asks for the first of these, and the lock keeps its token then.
  turn: async ({ queue, worker, endings, claims }) => {
    const codes = [];
    const jobs = [];
    for (const [place, ending] of endings.entries()) {
      const next = claims.length > 0 && place === endings.length - 1;
      try {
        const told = await end(ending, next);
        codes.push(0);
        if (!next || !Array.isArray(told)) continue;
        const [data, id] = told;
        if (!data) return { codes, jobs };
        jobs.push(claimed(Job.fromJSON(workerOf(queue, worker), data, id), claims[0].hold));
      } catch (error) {
        codes.push(codeOf(error));
      }
    }
    for (const { hold, token } of claims.slice(jobs.length)) {
      const job = await claim({ queue, worker, token, hold });
      if (!job) break;
      jobs.push(job);
    }
    return { codes, jobs };
  },
  renew: async ({ hold, token }) => (await held.get(hold).extendLock(token, 2 * HOUR)) === 1,
  sweep: async ({ queue }) => { await workerOf(queue, 'plain').moveStalledJobsToWait(); },

  progress: async ({ value, ...args }) => (await jobOf(args)).updateProgress(value),
  update_data: async ({ data, ...args }) => (await jobOf(args)).updateData(data),
  log: async ({ row, ...args }) => (await jobOf(args)).log(row),
  promote: async (args) => (await jobOf(args)).promote(),
  change_delay: async ({ ms, ...args }) => (await jobOf(args)).changeDelay(ms),
  change_priority: async ({ priority, lifo, ...args }) => (await jobOf(args)).changePriority({ priority, lifo }),
  retry: async ({ state, reset, ...args }) =>
    (await jobOf(args)).retry(state, { resetAttemptsMade: reset, resetAttemptsStarted: reset }),
  remove: async ({ queue, job }) => (await queueOf(queue).remove(job)) === 1,
  drop_child_link: async (args) => (await jobOf(args)).removeChildDependency(),
  drop_own_deduplication: async (args) => (await jobOf(args)).removeDeduplicationKey(),
  remove_unprocessed: async (args) => { await (await jobOf(args)).removeUnprocessedChildren(); },
  clear_logs: async ({ keep, ...args }) => { await (await jobOf(args)).clearLogs(keep); },

  pause: async ({ queue, prefix: under }) => queueOf(queue, under).pause(),
  resume: async ({ queue }) => queueOf(queue).resume(),
  retry_jobs: async ({ queue, state, until }) => queueOf(queue).retryJobs({ state, timestamp: until ?? undefined }),
  promote_jobs: async ({ queue }) => queueOf(queue).promoteJobs(),
  drain: async ({ queue, delayed }) => queueOf(queue).drain(delayed),
  clean: async ({ queue, grace, limit, state }) => queueOf(queue).clean(grace, limit, state),
  remove_orphans: async ({ queue, linked, owners }) => {
    for (const job of linked) await (await jobOf({ queue, job })).removeChildDependency();
    for (const job of owners) await (await jobOf({ queue, job })).removeDeduplicationKey();
    return queueOf(queue).removeOrphanedJobs();
  },
  obliterate: async ({ queue, force }) => queueOf(queue).obliterate({ force }),
  drop_deduplication: async ({ queue, key }) => (await queueOf(queue).removeDeduplicationKey(key)) > 0,

  set_concurrency: async ({ queue, count }) => { await queueOf(queue).setGlobalConcurrency(count); },
  drop_concurrency: async ({ queue }) => { await queueOf(queue).removeGlobalConcurrency(); },
  set_rate: async ({ queue, max, ms }) => { await queueOf(queue).setGlobalRateLimit(max, ms); },
  drop_rate: async ({ queue }) => { await queueOf(queue).removeGlobalRateLimit(); },
  limit_rate: async ({ queue, ms }) => queueOf(queue).rateLimit(ms),
  drop_limit: async ({ queue }) => { await queueOf(queue).removeRateLimitKey(); },

  upsert_scheduler: async ({ queue, scheduler, repeat, template }) =>
    (await queueOf(queue).upsertJobScheduler(scheduler, repeat, template))?.id ?? null,
  remove_scheduler: async ({ queue, scheduler }) => queueOf(queue).removeJobScheduler(scheduler),

  look: async ({ queue, job: id, deduplications }) => {
    const job = await jobOf({ queue, job: id });
    const logs = await queueOf(queue).getJobLogs(id);
    return {
      data: job.data, progress: job.progress, result: job.returnvalue ?? null, reason: job.failedReason ?? null,
      made: job.attemptsMade, stacks: job.stacktrace.length, timestamp: job.timestamp, processed: job.processedOn ?? null,
      finished: job.finishedOn ?? null, by: job.processedBy ?? null, deduplication: job.deduplicationId ?? null,
      parent: job.parentKey ?? null, state: await job.getState(),
      logs: [logs.logs, logs.count], values: await job.getChildrenValues(), ignored: await job.getIgnoredChildrenFailures(),
      counts: await job.getDependenciesCount(), tree: treeOf(await flows.getFlow({ id, queueName: queue })),
      owners: await Promise.all(deduplications.map((key) => queueOf(queue).getDeduplicationJobId(key))),
    };
  },

  publish: async ({ queue, name, fields }) => { await eventsOf(queue).publishEvent({ eventName: name, ...fields }); },

  read: async ({ queue, jobs, priorities }) => {
    const source = queueOf(queue);
    const states = ['waiting', 'active', 'delayed', 'prioritized', 'waiting-children', 'completed', 'failed'];
    const lists = {};
    for (const state of states) lists[state] = (await source.getJobs([state], 0, -1, true)).map((job) => job.id);
    return {
      counts: await source.getJobCounts(...states),
      lists,
      pages: await Promise.all(
        [true, false].map(async (ascending) => (await source.getJobs(PAGED, 1, 2, ascending)).map((job) => job.id)),
      ),
      priorities: await source.getCountsPerPriority(priorities),
      paused: await source.isPaused(),
      states: await Promise.all(jobs.map((job) => source.getJobState(job))),
      schedulers: (await source.getJobSchedulers(0, -1, true)).map(({ key, next, iterationCount }) => [key, next, iterationCount]),
      metrics: (await source.getMetrics('completed')).meta.count,
    };
  },
};

const answering = (operation) => async ({ now: time, ...args }) => {
  now = time;
  try {
    return { value: (await operation(args)) ?? null };
  } catch (error) {
    return { error: codeOf(error) };
  }
};

serve(Object.fromEntries(Object.entries(operations).map(([name, operation]) => [name, answering(operation)])));
