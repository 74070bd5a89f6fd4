import { createTRPCClient, createWSClient, httpBatchLink, httpBatchStreamLink, httpLink, splitLink, wsLink, TRPCClientError, httpSubscriptionLink } from '@trpc/client';
import type { inferRouterInputs, inferRouterOutputs } from '@trpc/server';
import type { AppRouter, Line, LineInput, Order, Status } from './app-router';

type Equal<A, B> = (<T>() => T extends A ? 1 : 2) extends <T>() => T extends B ? 1 : 2 ? true : false;
function same<_T extends true>() {}

const url = '';
const client = createTRPCClient<AppRouter>({
  links: [splitLink({
    condition: (op) => op.type === 'subscription',
    true: httpSubscriptionLink({ url /* TRANSFORMER */ }),
    false: splitLink({ condition: (op) => op.path === '', true: httpBatchStreamLink({ url /* TRANSFORMER */ }), false: httpBatchLink({ url /* TRANSFORMER */ }) }),
  })],
});
export const other = createTRPCClient<AppRouter>({ links: [httpLink({ url /* TRANSFORMER */ })] });
export const sockets = createTRPCClient<AppRouter>({ links: [wsLink({ client: createWSClient({ url }) /* TRANSFORMER */ })] });

export async function calls() {
  const hello = await client.hello.query();
  same<Equal<typeof hello, string>>();
  const order = await client.orders.byId.query(7);
  const known: Equal<typeof order, any> extends true ? never : 1 = 1;
  void known;
  const made: INSTANT | undefined = order?.madeAt;
  const status: Status | undefined = order?.status;
  const price: string | undefined = order?.lines[0]?.unitPrice;
  const note: string | null | undefined = order?.note;
  void [made, status, price, note];
  const page = await client.orders.search.query();
  const also = await client.orders.search.query({ wanted: { status: 'paid' }, page: 2 });
  same<Equal<typeof page, typeof also>>();
  const next: number | null = page.nextPage;
  void next;
  await client.orders.create.mutate({ lines: [{ itemName: 'tea', unitPrice: '1.50' }], paysWith: { kind: 'card', number: '4' } });
  const nothing = await client.nothing.mutate();
  nothing satisfies void;
  await client.form.mutate(new FormData());
  await client.octets.mutate(new Uint8Array(1));
  const [tree, depth] = await client.tree.query({ name: 'a', children: [{ name: 'b' }] });
  const child: string | undefined = tree.children[0]?.children[0]?.name;
  void [child, depth satisfies number];
  const config = await client.anything.query(undefined);
  const word: 'a' | 'b' | null | undefined = config.words['x']?.[0];
  void word;
  await client.anything.query({ whatever: 1 });
  // @ts-expect-error the id is a number
  await client.orders.byId.query('7');
  // @ts-expect-error the id is missing
  await client.orders.byId.query();
  // @ts-expect-error there is no such procedure
  await client.orders.nope.query();
  // @ts-expect-error a mutation is not a query
  await client.orders.create.query({ lines: [], paysWith: { kind: 'cash', notes: 1 } });
  // @ts-expect-error hello takes nothing
  await client.hello.query({ a: 1 });
  // @ts-expect-error that is no status
  await client.orders.search.query({ wanted: { status: 'lost' } });
  // @ts-expect-error a card has a number
  await client.orders.create.mutate({ lines: [], paysWith: { kind: 'card', notes: 1 } });
  // @ts-expect-error what is sent to us is not snake_case
  await client.orders.create.mutate({ lines: [], pays_with: { kind: 'cash', notes: 1 } });
  for await (const each of await client.words.query({ prompt: 'x' })) same<Equal<typeof each, string>>();
  const subscription = client.orders.onChange.subscribe({ lastEventId: null }, {
    onData(event) {
      const id: string = event.id;
      const total: number | undefined = event.data.lines[0]?.amount;
      same<Equal<typeof event.data.status, Status>>();
      void [id, total];
    },
    onError(error) { const code: string | undefined = error.data?.code; void code; },
  });
  subscription.unsubscribe();
  client.orders.onChange.subscribe(undefined, { onData() {} });
  client.clock.subscribe(undefined, { onData(at) { same<Equal<typeof at, INSTANT>>(); } });
  try { await client.hello.query(); } catch (error) {
    if (error instanceof TRPCClientError) {
      const known = error as TRPCClientError<AppRouter>;
      const status: number | undefined = known.data?.httpStatus;
      const number: number | undefined = known.shape?.code;
      void [status, number];
    }
  }
}

type Inputs = inferRouterInputs<AppRouter>;
type Outputs = inferRouterOutputs<AppRouter>;
same<Equal<Inputs['orders']['byId'], number>>();
same<Equal<Outputs['hello'], string>>();
same<Equal<Line['amount'], number>>();
same<Equal<LineInput['amount'], number | undefined>>();
export const order: Outputs['orders']['create'] = { orderId: 1, status: 'new', madeAt: INSTANT_VALUE, lines: [], note: null };
export const sameOrder: Order = order;
