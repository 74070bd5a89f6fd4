// node check.mjs '{"version": "11.0", "targets": [{"name": "ours", "url": "http://127.0.0.1:1", "without": []}], "only": []}'
// Runs every check of that client version against every target, side by side, and prints one JSON line for each.
import assert from 'node:assert/strict';
import { EventSource } from 'eventsource';
import superjson from 'superjson';
import { WebSocket } from 'ws';
import { packageOf } from './packages.mjs';

// Node 20 has neither; clients of 11.0 look for both among the globals.
Object.assign(globalThis, { EventSource, WebSocket });
const order = JSON.parse(process.argv[2]);
const isOld = order.version.startsWith('10.');
const trpc = packageOf(order.version, '@trpc/client');
const PATIENCE_MS = 8000;

const LINKS = {
  http: (options) => [trpc.httpLink(options)],
  batch: (options) => [trpc.httpBatchLink(options)],
  'batch-stream': (options) => [(trpc.httpBatchStreamLink ?? trpc.unstable_httpBatchStreamLink)(options)],
  subscription: (options) => [trpc.httpSubscriptionLink({ ...options, EventSource })],
  ws: (options, closers) => {
    const client = trpc.createWSClient({ url: options.url.replace('http', 'ws'), retryDelayMs: () => 20 });
    closers.push(() => client.close());
    return [trpc.wsLink({ client, transformer: options.transformer })];
  },
};

async function fails(promise, code, status, message) {
  const error = await promise.then(() => assert.fail('it was answered'), (caught) => caught);
  assert.ok(error instanceof trpc.TRPCClientError, String(error));
  if (message) assert.equal(error.message, message);
  assert.deepEqual([error.data?.code, error.data?.httpStatus], [code, status], error.message);
  return error;
}

// Collects a subscription's values until it ends by itself, or until the number of values that is wanted.
function collect(client, path, input, wanted = Infinity) {
  return new Promise((resolve, reject) => {
    const values = [];
    const subscription = client.subscription(path, input, {
      onData(value) {
        values.push(value);
        if (values.length === wanted) { subscription.unsubscribe(); resolve(values); }
      },
      onError: (error) => reject(Object.assign(error, { values })),
      onComplete: () => resolve(values),
    });
  });
}

const CALLS = {
  hello: async (c) => assert.equal(await c.query('hello'), 'world'),
  nil: async (c) => assert.equal(await c.query('nil'), null),
  undefined: async (c) => assert.equal(await c.query('undef'), undefined),
  nested: async (c) => assert.deepEqual(await c.query('post.byId', 'é,&?'), { id: 'é,&?' }),
  slow: async (c) => assert.equal(await c.query('slow'), 'slow'),
  error: async (c) => {
    const error = await fails(c.query('fail'), 'UNAUTHORIZED', 401, 'nope');
    assert.deepEqual([error.shape.code, error.data.path], [-32001, 'fail']);
  },
  unknown: async (c) => { await fails(c.query('not.there'), 'NOT_FOUND', 404); },
  mutation: async (c) => assert.equal(await c.mutation('add', { a: 1, b: 2 }), 3),
  'mutation without input': async (c) => assert.deepEqual(await c.mutation('noin'), { isUndef: true }),
};
const TYPED = {
  date: async (c) => assert.deepEqual(await c.query('date'), { at: new Date(0) }),
  'date as input': async (c) => assert.deepEqual(await c.query('dayAfter', { day: new Date(0) }), new Date(86400000)),
};
const PLAIN = {
  date: async (c) => assert.equal(+new Date((await c.query('date')).at), 0),
};
const BATCHES = {
  mixed: async (c) => {
    const [hello, nil, error] = await Promise.all([c.query('hello'), c.query('nil'), c.query('fail').catch((e) => e)]);
    assert.deepEqual([hello, nil, error.data.code], ['world', null, 'UNAUTHORIZED']);
  },
  'mixed mutations': async (c) => {
    const sums = await Promise.all([c.mutation('add', { a: 1, b: 2 }), c.mutation('add', { a: 3, b: 4 })]);
    assert.deepEqual(sums, [3, 7]);
  },
  'refused whole': async (c) => {
    const both = await Promise.allSettled([c.query('hello'), c.query('denied')]);
    for (const { status, reason } of both) {
      assert.deepEqual([status, reason?.message], ['rejected', 'Batching is not enabled on the server']);
    }
  },
};
const STREAMS = {
  'order of completion': async (c) => {
    const ended = [];
    await Promise.all(['slow', 'hello'].map((path) => c.query(path).then(() => ended.push(path))));
    assert.deepEqual(ended, ['hello', 'slow']);
  },
};
const ITERABLES = {
  iterable: async (c) => {
    const values = [];
    for await (const value of await c.query('count', { to: 3 })) values.push(value);
    assert.deepEqual(values, [0, 1, 2]);
  },
  'iterable that fails': async (c) => {
    const read = async () => { for await (const _ of await c.query('count', { to: 1, fails: true })); };
    await fails(read(), 'CONFLICT', 409, 'x');
  },
};
const BODIES = {
  form: async (c) => {
    const form = new FormData();
    form.append('a', 'b');
    form.append('f', new File(['abc'], 'n.txt'));
    assert.deepEqual(await c.mutation('form', form), { a: 'b', f: 'abc' });
  },
  octets: async (c) => assert.equal(await c.mutation('octets', new Uint8Array(10)), 10),
};
const ENDLESS = {
  stop: async (c) => assert.deepEqual(await collect(c, 'forever', undefined, 3), [0, 1, 2]),
  'failing subscription': async (c) => {
    const error = await fails(collect(c, 'subErr'), 'BAD_REQUEST', 400, 'subfail');
    assert.deepEqual(error.values, [1]);
  },
};
const RESUMING = {
  resume: async (c) => {
    const events = await collect(c, 'sub');
    assert.deepEqual(events, ['0', '1', '2', '3'].map((id) => ({ id, data: { i: Number(id) } })));
  },
};

function checksOf(link, typed) {
  const dates = typed ? TYPED : PLAIN;
  switch (link) {
    case 'http': return { ...CALLS, ...dates, ...(isOld || typed ? {} : BODIES) };
    case 'batch': return { ...CALLS, ...dates, ...BATCHES };
    case 'batch-stream': return { ...CALLS, ...dates, ...BATCHES, ...STREAMS, ...(isOld ? {} : ITERABLES) };
    case 'subscription': return { ...ENDLESS, ...RESUMING };
    case 'ws': return { ...CALLS, ...dates, ...STREAMS, ...ENDLESS, ...(isOld ? {} : RESUMING) };
  }
}

async function run(target, link, transformer, name, check) {
  const typed = transformer === 'superjson';
  const closers = [];
  const options = { url: target.url + (typed ? '/superjson' : '/trpc') };
  if (typed && !isOld) options.transformer = superjson;
  let failure = null;
  let timer;
  try {
    const links = LINKS[link](options, closers);
    const client = isOld
      ? trpc.createTRPCUntypedClient?.({ links, transformer: typed ? superjson : undefined })
      : trpc.createTRPCUntypedClient({ links });
    const tooLate = new Promise((_, reject) => {
      timer = setTimeout(() => reject(new Error(`no outcome after ${PATIENCE_MS} ms`)), target.patience_ms ?? PATIENCE_MS);
    });
    await Promise.race([check(client), tooLate]);
  } catch (error) {
    failure = String(error?.message ?? error).split('\n').slice(0, 12).join(' ').slice(0, 400);
  }
  clearTimeout(timer);
  for (const close of closers) try { close(); } catch { /* it may be closed already */ }
  console.log(JSON.stringify({ target: target.name, link, transformer, check: name, failure }));
}

process.on('uncaughtException', (error) => console.log(JSON.stringify({ uncaught: String(error?.stack ?? error) })));
process.on('unhandledRejection', (error) => console.log(JSON.stringify({ uncaught: String(error?.stack ?? error) })));

for (const target of order.targets) {
  const runs = [];
  for (const link of Object.keys(LINKS)) {
    if (isOld && link === 'subscription') continue;
    for (const transformer of ['none', 'superjson']) {
      for (const [name, check] of Object.entries(checksOf(link, transformer === 'superjson'))) {
        if (target.without?.includes(name)) continue;
        if (target.only && !target.only.includes(`${link}/${transformer}/${name}`)) continue;
        runs.push(() => run(target, link, transformer, name, check));
      }
    }
  }
  await Promise.all(runs.map((each) => each()));
}
process.exit(0);
