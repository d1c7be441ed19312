// bull-board over some queues: {"op": "serve", "args": {"queues": ["q", …]}} is answered with its address.
import { createBullBoard } from '@bull-board/api';
import { BullMQAdapter } from '@bull-board/api/bullMQAdapter';
import { ExpressAdapter } from '@bull-board/express';
import { Queue } from 'bullmq';
import express from 'express';
import { serve } from './lines.mjs';

const { connection, prefix } = JSON.parse(process.env.PEER);

serve({
  serve: ({ queues }) => {
    const serverAdapter = new ExpressAdapter();
    createBullBoard({
      queues: queues.map((name) => new BullMQAdapter(new Queue(name, { connection, prefix }))),
      serverAdapter,
    });
    const app = express().use('/', serverAdapter.getRouter());
    return new Promise((resolve, reject) => {
      const server = app.listen(0, '127.0.0.1', (error) => {
        if (error) reject(error);
        else resolve(`http://127.0.0.1:${server.address().port}`);
      });
    });
  },
});
