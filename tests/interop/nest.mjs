// A NestJS application on @nestjs/bullmq, as a NestJS team would write it, told by lines of JSON (`lines.mjs`) what to do.
// Decorators are applied by hand, since Node runs no TypeScript.
import 'reflect-metadata';
import { Injectable, Module } from '@nestjs/common';
import { NestFactory } from '@nestjs/core';
import {
  BullModule, InjectFlowProducer, InjectQueue, OnQueueEvent, OnWorkerEvent, Processor, QueueEventsHost, QueueEventsListener, WorkerHost,
} from '@nestjs/bullmq';
import { say, serve } from './lines.mjs';

const { connection, prefix } = JSON.parse(process.env.PEER);

// @decorator class …
const decorated = (target, ...decorators) => decorators.reduceRight((made, decorate) => decorate(made) ?? made, target);
// @decorator method() …
const onMethod = (target, name, decorate) =>
  decorate(target.prototype, name, Object.getOwnPropertyDescriptor(target.prototype, name));
// constructor(@decorator …)
const onParameter = (target, index, decorate) => decorate(target, undefined, index);

class EmailProcessor extends WorkerHost {
  async process(job) {
    switch (job.name) {
      case 'welcome-email':
        await job.updateProgress(50);
        await job.log(`to ${job.data.to}`);
        if (job.attemptsMade < (job.data.failures ?? 0)) throw new Error(`mailbox ${job.data.to} is full`);
        return { sentTo: job.data.to, by: 'nest' };
      case 'digest':
        return { parts: Object.values(await job.getChildrenValues()).map((part) => part.sentTo).sort(), by: 'nest' };
      default:
        throw new Error(`no case for ${job.name}`);
    }
  }

  onFailed(job, error) {
    say({ event: 'attempt failed', id: job.id, attemptsMade: job.attemptsMade, error: error.message });
  }
}
onMethod(EmailProcessor, 'onFailed', OnWorkerEvent('failed'));
decorated(EmailProcessor, Processor('emails', { concurrency: 3 }));

class EmailEvents extends QueueEventsHost {
  onCompleted({ jobId, returnvalue }) {
    say({ event: 'completed', id: jobId, returnvalue });
  }

  onFailed({ jobId, failedReason }) {
    say({ event: 'failed', id: jobId, failedReason });
  }

  onProgress({ jobId, data }) {
    say({ event: 'progress', id: jobId, data });
  }
}
onMethod(EmailEvents, 'onCompleted', OnQueueEvent('completed'));
onMethod(EmailEvents, 'onFailed', OnQueueEvent('failed'));
onMethod(EmailEvents, 'onProgress', OnQueueEvent('progress'));
decorated(EmailEvents, QueueEventsListener('emails', { lastEventId: '0-0' }));

class EmailService {
  constructor(emails, flows) {
    this.emails = emails;
    this.flows = flows;
  }

  welcome(to, opts, failures) {
    return this.emails.add('welcome-email', { to, failures }, opts);
  }

  // A digest on one queue, made of mails on another.
  digest(queueName, partsQueueName, addressees) {
    const children = addressees.map((to) => ({ name: 'welcome-email', queueName: partsQueueName, data: { to } }));
    return this.flows.add({ name: 'digest', queueName, data: {}, children });
  }
}
onParameter(EmailService, 0, InjectQueue('emails'));
onParameter(EmailService, 1, InjectFlowProducer('flows'));
decorated(EmailService, Injectable());

function applicationModule(processes) {
  class AppModule {}
  return decorated(AppModule, Module({
    imports: [
      BullModule.forRoot({ connection, prefix, defaultJobOptions: { attempts: 3, backoff: { type: 'fixed', delay: 10 } } }),
      BullModule.registerQueue({ name: 'emails' }),
      BullModule.registerFlowProducer({ name: 'flows' }),
    ],
    providers: [EmailService, EmailEvents, ...(processes ? [EmailProcessor] : [])],
  }));
}

let application;
const service = () => application.get(EmailService);

serve({
  start: async ({ processes }) => {
    application = await NestFactory.createApplicationContext(applicationModule(processes), { logger: ['error', 'warn'] });
  },
  welcome: async ({ to, opts, failures }) => (await service().welcome(to, opts, failures)).id,
  digest: async ({ queue, parts, addressees }) => (await service().digest(queue, parts, addressees)).job.id,
  stop: async () => application.close(),
});
