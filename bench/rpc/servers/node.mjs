// The real @trpc/server on its own adapter for Node, with zod for the input, as its documentation has it.
// node node.mjs <port> <lifetime in seconds>
import { initTRPC } from '@trpc/server';
import { createHTTPServer } from '@trpc/server/adapters/standalone';
import { z } from 'zod';

const [port, lifetimeS] = process.argv.slice(2).map(Number);
const t = initTRPC.create();

const router = t.router({
  orderById: t.procedure.input(z.object({ orderId: z.number().int() })).query(async ({ input }) => ({
    orderId: input.orderId,
    status: 'paid',
    amountKopecks: input.orderId * 100,
    items: [
      { name: 'margherita', quantity: 2 },
      { name: 'lemonade', quantity: 1 },
    ],
  })),
});

const server = createHTTPServer({ router, basePath: '/trpc/' });
server.listen(port, '127.0.0.1');
setTimeout(() => process.exit(3), lifetimeS * 1000).unref();
