import { createTRPCProxyClient, createWSClient, httpBatchLink, splitLink, wsLink } from '@trpc/client';
import type { inferRouterInputs, inferRouterOutputs } from '@trpc/server';
import type { AppRouter, Status } from './app-router';

type Equal<A, B> = (<T>() => T extends A ? 1 : 2) extends <T>() => T extends B ? 1 : 2 ? true : false;
function same<_T extends true>() {}

const url = '';
const client = createTRPCProxyClient<AppRouter>({
  /* TRANSFORMER */
  links: [splitLink({ condition: (op) => op.type === 'subscription', true: wsLink({ client: createWSClient({ url }) }), false: httpBatchLink({ url }) })],
});

export async function calls() {
  const hello = await client.hello.query();
  same<Equal<typeof hello, string>>();
  const order = await client.orders.byId.query(7);
  const status: Status | undefined = order?.status;
  const made: INSTANT | undefined = order?.madeAt;
  void [status, made];
  await client.orders.search.query();
  await client.orders.create.mutate({ lines: [{ itemName: 'tea', unitPrice: '1.50' }], paysWith: { kind: 'card', number: '4' } });
  // @ts-expect-error the id is a number
  await client.orders.byId.query('7');
  // @ts-expect-error a mutation is not a query
  await client.orders.create.query({ lines: [], paysWith: { kind: 'cash', notes: 1 } });
  // @ts-expect-error what streams cannot be had with v10
  await client.words.query({ prompt: 'x' });
  client.orders.onChange.subscribe(undefined, { onData(event) { const id: string = event.id; same<Equal<typeof event.data.status, Status>>(); void id; } });
  client.clock.subscribe(undefined, { onData(at) { same<Equal<typeof at, INSTANT>>(); } });
}

type Inputs = inferRouterInputs<AppRouter>;
type Outputs = inferRouterOutputs<AppRouter>;
same<Equal<Inputs['orders']['byId'], number>>();
same<Equal<Outputs['hello'], string>>();
