// A shop's own pages against oplata's router, every name and type checked by the compiler.
// The types: `oplata typescript --out app-router.ts`. In a browser, EventSource is there already.
import { createTRPCClient, httpBatchLink, httpSubscriptionLink, splitLink, TRPCClientError } from '@trpc/client'
import { EventSource } from 'eventsource'
import type { AppRouter } from './app-router.js'

const url = process.env.RPC_URL ?? 'http://localhost:8080/api/trpc'
const orderId = process.env.ORDER_ID ?? 'A-1'

// On the shop's server, which holds a key of the scope `write`: tell of the order, and let the buyer watch it.
const server = createTRPCClient<AppRouter>({
  links: [httpBatchLink({ url, headers: { authorization: `Bearer ${process.env.API_KEY}` } })],
})
const order = await server.orders.register.mutate({ orderId, amount: 19_900 })
const { token } = await server.orders.buyerToken.mutate({ orderId })
console.log(`registered ${order.orderId} ${order.amount} ${order.status}`)

// In the buyer's browser, which holds that token and no key: watch this one order until it is paid.
const page = createTRPCClient<AppRouter>({
  links: [
    splitLink({
      condition: (operation) => operation.type === 'subscription',
      true: httpSubscriptionLink({ url, EventSource, connectionParams: { token } }),
      false: httpBatchLink({ url, headers: { authorization: `Bearer ${token}` } }),
    }),
  ],
})
const refused = await page.orders.get.query({ orderId: 'another-one' }).catch((error: unknown) => error)
console.log(`of another order: ${refused instanceof TRPCClientError ? refused.data?.code : 'told'}`)

const watching = page.orders.onStatusChange.subscribe(
  { orderId },
  {
    onData: ({ id, data }) => {
      console.log(`event ${data.orderId} ${data.version} ${data.status} ${id.length > 0}`)
      if (data.status === 'paid') {
        watching.unsubscribe()
        process.exit(0)
      }
    },
    onError: (error) => {
      console.log(`lost: ${error.message}`)
      process.exit(1)
    },
  },
)
console.log('storefront is ready')
