// A shop's own tRPC server at /api/trpc, which notes each call in a file before it answers.
// node shop.mjs <version> <port> <file> <authorization>
import { appendFileSync } from 'node:fs';
import { packageOf } from './packages.mjs';

const [version, port, file, authorization] = process.argv.slice(2);
const { TRPCError, initTRPC } = packageOf(version, '@trpc/server');
const { createHTTPServer } = packageOf(version, '@trpc/server/adapters/standalone');

const t = initTRPC.context().create();
const input = (value) => {
  if (typeof value?.orderId !== 'string' || typeof value.status !== 'string') throw new Error('an order and a status');
  return value;
};
const router = t.router({
  orders: t.router({
    updateStatus: t.procedure.input(input).mutation(({ ctx, input }) => {
      if (ctx.authorization !== authorization) throw new TRPCError({ code: 'UNAUTHORIZED' });
      if (input.status === 'refused') throw new TRPCError({ code: 'BAD_REQUEST', message: 'no such status' });
      appendFileSync(file, `${JSON.stringify(input)}\n`);
      return { ok: true };
    }),
  }),
});
createHTTPServer({
  router,
  basePath: '/api/trpc/',
  createContext: ({ req }) => ({ authorization: req.headers.authorization }),
}).listen(Number(port), '127.0.0.1');
