// BullMQ with bullmq-otel, whose spans stay in memory: does what it is told by lines of JSON (`lines.mjs`).
import { context, propagation, trace } from '@opentelemetry/api';
import { AsyncLocalStorageContextManager } from '@opentelemetry/context-async-hooks';
import { W3CTraceContextPropagator } from '@opentelemetry/core';
import { BasicTracerProvider, InMemorySpanExporter, SimpleSpanProcessor } from '@opentelemetry/sdk-trace-base';
import { Queue, Worker } from 'bullmq';
import { BullMQOtel } from 'bullmq-otel';
import { Redis } from 'ioredis';
import { say, serve } from './lines.mjs';

const { connection, prefix } = JSON.parse(process.env.PEER);
const exporter = new InMemorySpanExporter();
trace.setGlobalTracerProvider(new BasicTracerProvider({ spanProcessors: [new SimpleSpanProcessor(exporter)] }));
context.setGlobalContextManager(new AsyncLocalStorageContextManager().enable());
propagation.setGlobalPropagator(new W3CTraceContextPropagator());
const options = { connection: new Redis(connection), prefix, telemetry: new BullMQOtel('node-app') };
const tracer = trace.getTracer('node-app');

const add = (queue, name, data) => new Queue(queue, options).add(name, data);
// With `then`, the handler adds a job of that name to that queue.
async function handle(job) {
  if (job.data.then) await add(job.data.then, 'next', {});
}
const shown = (span) => ({
  name: span.name, kind: span.kind, trace: span.spanContext().traceId, id: span.spanContext().spanId,
  parent: span.parentSpanContext?.spanId ?? null, attributes: span.attributes, events: span.events.map((event) => event.name),
});

serve({
  // Add a job as the handler of a request would.
  request: ({ queue, name, data }) => tracer.startActiveSpan('request', async (span) => {
    const job = await add(queue, name, data);
    span.end();
    return job.id;
  }),
  // The same with a job scheduler.
  schedule: ({ queue, id, every, name }) => tracer.startActiveSpan('request', async (span) => {
    const job = await new Queue(queue, options).upsertJobScheduler(id, { every }, { name });
    span.end();
    return job.id;
  }),
  work: async ({ queue }) => {
    const worker = new Worker(queue, handle, options);
    worker.on('completed', (job) => say({ event: 'ran', id: job.id }));
    await worker.waitUntilReady();
  },
  spans: () => exporter.getFinishedSpans().map(shown),
});
