// The callback route of a Nuxt shop, `server/api/tinkoff-callback.post.ts`, served by h3 as Nitro serves it.
// It is shown as shops have it: no check of the token, no confirm, a connection per request, and not the answer `OK`.
import { createServer } from 'node:http'
import amqp from 'amqplib'
import { createApp, createRouter, defineEventHandler, readBody, toNodeListener } from 'h3'

const broker = process.env.RABBITMQ_URL ?? 'amqp://localhost'
const queue = process.env.QUEUE ?? 'tinkoff_payments'
const port = Number(process.env.PORT ?? 3000)

const callback = defineEventHandler(async (event) => {
  const body = await readBody(event)
  const connection = await amqp.connect(broker)
  const channel = await connection.createChannel()
  await channel.assertQueue(queue, { durable: true })
  channel.sendToQueue(queue, Buffer.from(JSON.stringify(body)), { persistent: true })
  await channel.close()
  await connection.close()
  return { ok: true }
})

const app = createApp()
app.use(createRouter().post('/api/tinkoff-callback', callback))
createServer(toNodeListener(app)).listen(port, '127.0.0.1', () => console.log('endpoint is ready'))
