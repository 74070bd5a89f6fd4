// node orders.mjs '{"url": "http://127.0.0.1:8080/api/trpc", "read": KEY, "write": KEY}'
// Does with the real client what shops do at the door, and prints what came of it as one JSON object.
import { EventSource } from 'eventsource';
import { packageOf } from './packages.mjs';

const { url, read, write } = JSON.parse(process.argv[2]);
const trpc = packageOf('11.25', '@trpc/client');
const bearer = (key) => ({ authorization: `Bearer ${key}` });
const client = (key) => trpc.createTRPCClient({ links: [trpc.httpBatchLink({ url, headers: bearer(key) })] });
const shop = client(write);

// As shops write it, without any library.
async function updateStatus(orderId, status, headers) {
  const answer = await fetch(`${url}/orders.updateStatus`, {
    method: 'POST',
    headers: { 'content-type': 'application/json', ...headers },
    body: JSON.stringify({ orderId, status }),
  });
  const told = await answer.json();
  return [answer.status, told.result?.data?.status ?? told.error.data.code];
}

function watch(token, orderId, wanted, lastEventId) {
  const link = trpc.httpSubscriptionLink({ url, EventSource, connectionParams: async () => ({ token }) });
  const browser = trpc.createTRPCClient({ links: [link] });
  return new Promise((resolve, reject) => {
    const seen = [];
    const subscription = browser.orders.onStatusChange.subscribe(
      { orderId, lastEventId },
      {
        onData(event) {
          seen.push([event.id, event.data.status]);
          if (seen.length === wanted) {
            subscription.unsubscribe();
            resolve(seen);
          }
        },
        onError: (error) => reject(error),
      },
    );
  });
}

const refused = (promise) => promise.then(() => 'answered', (error) => error.data?.code);
const told = {};
// The batch link sends these three as one request.
const [registered, again, listed] = await Promise.all([
  shop.orders.register.mutate({ orderId: 'N-1', amount: 19900 }),
  shop.orders.register.mutate({ orderId: 'N-2', amount: 100 }),
  client(read).orders.list.query({ status: 'paid' }),
]);
told.registered = [registered.status, again.amount, listed.items.length];
told.fetch = [
  await updateStatus('N-1', 'paid', {}),
  await updateStatus('N-1', 'paid', bearer(read)),
];
const { token } = await shop.orders.buyerToken.mutate({ orderId: 'N-1' });
const watching = watch(token, 'N-1', 2);
told.fetch.push(await updateStatus('N-1', 'paid', bearer(write)), await updateStatus('N-1', 'paid', bearer(write)));
const seen = await watching;
told.watched = seen.map(([, status]) => status);
told.resumed = (await watch(token, 'N-1', 1, seen[0][0])).map(([id, status]) => [id === seen[1][0], status]);
told.buyer = [
  await refused(watch(token, 'N-2', 1)),
  await refused(client(token).orders.get.query({ orderId: 'N-2' })),
  await refused(client(token).orders.updateStatus.mutate({ orderId: 'N-1', status: 'refunded' })),
  (await client(token).orders.get.query({ orderId: 'N-1' })).status,
  await refused(watch(`${token}x`, 'N-1', 1)),
];
console.log(JSON.stringify(told));
process.exit(0);
