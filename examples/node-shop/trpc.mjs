// The tRPC router of a Node shop, at /api/trpc, with its orders in memory. `orders.updateStatus` needs no key.
import { initTRPC, TRPCError } from '@trpc/server'
import { createHTTPServer } from '@trpc/server/adapters/standalone'
import { z } from 'zod'

const port = Number(process.env.PORT ?? 3000)
const orders = new Map()

const t = initTRPC.create()
const router = t.router({
  orders: t.router({
    updateStatus: t.procedure
      .input(z.object({ orderId: z.string().min(1), status: z.enum(['pending', 'paid', 'canceled', 'refunded']) }))
      .mutation(({ input }) => {
        const told = orders.get(input.orderId) ?? []
        orders.set(input.orderId, [...told, input.status])
        return { orderId: input.orderId, status: input.status }
      }),
    get: t.procedure.input(z.string()).query(({ input }) => {
      const told = orders.get(input)
      if (told === undefined) throw new TRPCError({ code: 'NOT_FOUND', message: `there is no order ${input}` })
      return { orderId: input, status: told.at(-1), told }
    }),
    all: t.procedure.query(() => Object.fromEntries(orders)),
  }),
})

createHTTPServer({ router, basePath: '/api/trpc/' }).listen(port, '127.0.0.1', () => console.log('shop is ready'))
