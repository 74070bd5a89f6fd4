// What a shop's frontend writes against the types of the orders' router. The compiler is the test.
import { createTRPCClient, httpBatchLink, httpSubscriptionLink, splitLink } from '@trpc/client';
import type { inferRouterInputs, inferRouterOutputs } from '@trpc/server';
import type { AppRouter } from './app-router';

type Inputs = inferRouterInputs<AppRouter>;
type Outputs = inferRouterOutputs<AppRouter>;
type Order = Outputs['orders']['get'];

const client = createTRPCClient<AppRouter>({
  links: [
    splitLink({
      condition: (op) => op.type === 'subscription',
      true: httpSubscriptionLink({ url: '/api/trpc', connectionParams: () => ({ token: 't' }) }),
      false: httpBatchLink({ url: '/api/trpc', headers: { authorization: 'Bearer k' } }),
    }),
  ],
});

export async function check(): Promise<void> {
  const order: Order = await client.orders.register.mutate({ orderId: '1', amount: 19900 });
  const amount: number | null = order.amount;
  const status: 'paid' | 'pending' | string = order.status;
  const page = await client.orders.list.query({ status: 'paid', review: true, text: 'A-', limit: 10 });
  const cursor: string | null = page.nextCursor;
  await client.orders.list.query();
  await client.orders.updateStatus.mutate({ orderId: '1', status: 'paid', reason: 'in cash' });
  // @ts-expect-error  It is no status.
  await client.orders.updateStatus.mutate({ orderId: '1', status: 'payed' });
  // @ts-expect-error  The amount is missing.
  await client.orders.register.mutate({ orderId: '1' });
  const wanted: Inputs['deadLetters']['redrive'] = { choice: { ids: [1, 2] }, why: 'mended', dryRun: true };
  const settled = await client.deadLetters.redrive.mutate(wanted);
  settled.letters.forEach((letter) => letter.outcome.toUpperCase());
  const { token, expiresAt } = await client.orders.buyerToken.mutate({ orderId: '1', lifetimeS: 600 });
  const hours: number[] = (await client.stats.overview.query()).hours.map((hour) => hour.at);
  const body: string | null = (await client.callbacks.get.query({ id: 'x' })).body;
  client.orders.onStatusChange.subscribe(
    { orderId: '1' },
    {
      onData({ id, data }) {
        const said: [string, string, number] = [id, data.orderId, data.version];
        if (data.status === 'paid') console.log(said);
        // @ts-expect-error  It can never be that.
        if (data.status === 'payed') console.log(said);
      },
    },
  );
  console.log(amount, status, cursor, token, expiresAt, hours, body);
}
