// BullMQ on Node as a benchmark program: the operations of toril_program.py. The packages are those of tests/interop.
import { createRequire } from 'node:module';
import { performance } from 'node:perf_hooks';
import { readFileSync } from 'node:fs';
import { serve } from '../../interop/lines.mjs';

const require = createRequire(new URL('../../interop/package.json', import.meta.url));
const { FlowProducer, Queue, Worker } = require('bullmq');

const { host, port } = JSON.parse(process.env.PEER);
const connection = { host, port, maxRetriesPerRequest: null };
const text = 'some text';
const CHUNK = 20_000; // so many jobs are added by one call, at most
const queue = new Queue('bench', { connection });
const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
const monotonic = () => Number(process.hrtime.bigint()); // the same clock in all processes of the machine

// What the handlers saw; as `Seen` in lines.py.
class Seen {
  constructor(jobs, awaited) {
    this.counts = new Uint8Array(jobs);
    this.starts = [];
    this.delays = [];
    this.made = performance.now() / 1e3;
    this.left = awaited ?? jobs;
    this.ended = new Promise((resolve) => { this.done = resolve; });
  }

  begin(n) {
    if (!this.from) this.from = this.marks();
    this.counts[n] += 1;
  }

  end() {
    this.left -= 1;
    if (this.left === 0) {
      this.to = this.marks();
      this.done();
    }
  }

  note(at) {
    this.starts.push(Date.now() * 1e6);
    this.delays.push(monotonic() - at);
  }

  marks() {
    const { user, system } = process.cpuUsage();
    return [performance.now() / 1e3, (user + system) / 1e6];
  }

  figures() {
    return {
      seconds: this.to[0] - this.from[0],
      first_start_seconds: this.from[0] - this.made,
      cpu_seconds: this.to[1] - this.from[1],
      doubled: this.counts.filter((count) => count > 1).length,
      missing: this.counts.filter((count) => count === 0).length,
      starts: this.starts,
      delays: this.delays,
    };
  }
}

let seen;
let worker;

async function handle(job) {
  const { n, at } = job.data;
  if (job.name === 'timed') seen.note(at);
  seen.begin(n);
  if (job.name === 'sleep') await sleep(50);
  seen.end();
  return { n };
}

async function timed(act) {
  const started = performance.now();
  await act();
  return { seconds: (performance.now() - started) / 1e3 };
}

const numbers = (count) => Array.from({ length: count }, (_, n) => n);
const kinds = { waiting: () => ({}), prioritized: (n) => ({ priority: 1 + (n % 10) }), delayed: () => ({ delay: 86_400_000 }) };

const operations = {
  fill: ({ jobs, kind = 'waiting', name = 'no-op' }) =>
    timed(async () => {
      for (let first = 0; first < jobs; first += CHUNK) {
        const some = numbers(Math.min(CHUNK, jobs - first)).map((n) => first + n);
        await queue.addBulk(some.map((n) => ({ name, data: { n, text, at: 0 }, opts: kinds[kind](n) })));
      }
    }),

  add_one_by_one: ({ jobs }) =>
    timed(async () => {
      for (let n = 0; n < jobs; n += 1) await queue.add('no-op', { n, text, at: 0 });
    }),

  add_at_once: ({ jobs }) => timed(() => Promise.all(numbers(jobs).map((n) => queue.add('no-op', { n, text, at: 0 })))),

  listen: async ({ jobs, slots, awaited }) => {
    seen = new Seen(jobs, awaited);
    worker = new Worker('bench', handle, { connection, concurrency: slots });
    worker.on('error', (error) => console.error(error));
    await worker.waitUntilReady();
  },

  reached: async () => {
    await seen.ended;
    return seen.figures();
  },

  heard: async () => {
    await seen.ended;
    await worker.close();
    return seen.figures();
  },

  work: async (args) => {
    await operations.listen(args);
    return operations.heard();
  },

  results: () => queue.getCompletedCount(),

  tick: async ({ jobs, interval_ms: interval }) => {
    const begun = performance.now();
    for (let n = 0; n < jobs; n += 1) {
      await sleep(Math.max(begun + n * interval - performance.now(), 0));
      await queue.add('timed', { n, text, at: monotonic() });
    }
  },

  add_due: async ({ jobs, in_ms: delay }) => {
    const timestamp = Date.now();
    await queue.addBulk(numbers(jobs).map((n) => ({ name: 'timed', data: { n, text, at: 0 }, opts: { timestamp, delay } })));
    return timestamp + delay;
  },

  add_flow: async ({ children }) => {
    const flows = new FlowProducer({ connection });
    const below = numbers(children).map((n) => ({ name: 'no-op', queueName: 'bench', data: { n: n + 1, text, at: 0 } }));
    await flows.add({ name: 'parent', queueName: 'bench', data: { n: 0, text, at: 0 }, children: below });
    await flows.close();
  },

  memory: () => ({
    rss_bytes: process.memoryUsage.rss(),
    peak_bytes: Number(/VmHWM:\s+(\d+)/.exec(readFileSync('/proc/self/status', 'utf8'))[1]) * 1024,
  }),
};

process.on('SIGINT', () => {}); // Ctrl-C goes to all of a terminal: the benchmark ends us
await queue.waitUntilReady();
serve(operations);
