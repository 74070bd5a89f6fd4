// The reference: @trpc/server of the version asked for, with the procedures of oplata.rpc.conformance.
// node control.mjs <version> <port>: /trpc without transformer, /superjson with it, over HTTP and WebSocket.
import http from 'node:http';
import { setTimeout as sleep } from 'node:timers/promises';
import superjson from 'superjson';
import { WebSocketServer } from 'ws';
import { packageOf } from './packages.mjs';

const [version, port] = [process.argv[2], Number(process.argv[3])];
const isOld = version.startsWith('10.');
const server = packageOf(version, '@trpc/server');
const { createHTTPHandler } = packageOf(version, '@trpc/server/adapters/standalone');
const { applyWSSHandler } = packageOf(version, '@trpc/server/adapters/ws');
const { TRPCError, initTRPC, tracked } = server;

const sockets = new Set();

const dropped = (ctx) => (ctx.response ? ctx.response.socket.destroy() : ctx.socket.terminate());
const asIs = (value) => value;

function routerWith(transformer) {
  const t = initTRPC.context().create(transformer ? { transformer } : {});
  const p = t.procedure;
  const members = {
    hello: p.query(() => 'world'),
    nil: p.query(() => null),
    undef: p.query(() => undefined),
    post: t.router({ byId: p.input(asIs).query(({ input }) => ({ id: input })) }),
    slow: p.query(async () => (await sleep(120), 'slow')),
    fail: p.query(() => { throw new TRPCError({ code: 'UNAUTHORIZED', message: 'nope' }); }),
    date: p.query(() => ({ at: new Date(0) })),
    dayAfter: p.input(asIs).query(({ input }) => new Date(+new Date(input.day) + 86400000)),
    add: p.input(asIs).mutation(({ input }) => input.a + input.b),
    noin: p.input(asIs).mutation(({ input }) => ({ isUndef: input === undefined })),
  };
  if (isOld) {
    const { observable } = packageOf(version, '@trpc/server/observable');
    members.forever = p.subscription(() => observable((emit) => {
      let n = 0;
      const timer = setInterval(() => emit.next(n++), 10);
      return () => clearInterval(timer);
    }));
    members.subErr = p.subscription(() => observable((emit) => {
      emit.next(1);
      emit.error(new TRPCError({ code: 'BAD_REQUEST', message: 'subfail' }));
    }));
    return t.router(members);
  }
  const withId = (input) => input ?? {};
  return t.router({
    ...members,
    count: p.input(asIs).query(async function* ({ input }) {
      for (let n = 0; n < input.to; n++) yield n;
      if (input.fails) throw new TRPCError({ code: 'CONFLICT', message: 'x' });
    }),
    form: p.input(asIs).mutation(async ({ input }) => {
      const read = async (value) => (typeof value === 'string' ? value : value.text());
      return Object.fromEntries(await Promise.all([...input].map(async ([k, v]) => [k, await read(v)])));
    }),
    octets: p.input(asIs).mutation(async ({ input }) => {
      let n = 0;
      for await (const chunk of input) n += chunk.length;
      return n;
    }),
    sub: p.input(withId).subscription(async function* ({ input, ctx }) {
      for (let n = input.lastEventId === undefined ? 0 : Number(input.lastEventId) + 1; n < 4; n++) {
        yield tracked(String(n), { i: n });
        await sleep(10);
        if (input.lastEventId === undefined && n === 1) { dropped(ctx); await sleep(1000); }
      }
    }),
    ticks: p.input(withId).subscription(async function* ({ input }) {
      for (let n = input.lastEventId === undefined ? 0 : Number(input.lastEventId) + 1; n < 20; n++) {
        yield tracked(String(n), n);
        await sleep(20);
      }
    }),
    deferred: p.query(() => ({ now: 1, later: sleep(20).then(() => 'later') })),
    subErr: p.subscription(async function* () {
      yield 1;
      throw new TRPCError({ code: 'BAD_REQUEST', message: 'subfail' });
    }),
    forever: p.subscription(async function* ({ signal }) {
      for (let n = 0; !signal?.aborted; n++) { yield n; await sleep(10); }
    }),
  });
}

const routers = { '/trpc': routerWith(), '/superjson': routerWith(superjson) };
const createContext = ({ req, res }) => ({ response: res?.setHeader ? res : undefined, socket: res?.setHeader ? undefined : res });
const handlers = Object.fromEntries(Object.entries(routers).map(([prefix, router]) => [
  prefix, createHTTPHandler({ router, createContext }),
]));

const listener = http.createServer((request, response) => {
  const prefix = Object.keys(handlers).find((each) => request.url.startsWith(each + '/'));
  if (!prefix) { response.writeHead(404).end(); return; }
  request.url = request.url.slice(prefix.length);
  handlers[prefix](request, response);
});
for (const [prefix, router] of Object.entries(routers)) {
  const wss = new WebSocketServer({ noServer: true });
  applyWSSHandler({ wss, router, createContext });
  sockets.add([prefix, wss]);
}
listener.on('upgrade', (request, socket, head) => {
  for (const [prefix, wss] of sockets) {
    if (request.url.split('?')[0] === prefix) wss.handleUpgrade(request, socket, head, (ws) => wss.emit('connection', ws, request));
  }
});
listener.listen(port, '127.0.0.1', () => console.log('ready'));
for (const name of ['SIGTERM', 'SIGINT']) process.on(name, () => process.exit(0));
