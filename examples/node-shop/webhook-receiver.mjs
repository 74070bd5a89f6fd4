// Hears of each change as a signed webhook, and checks it with the published verifier. h3, as Nitro serves it.
import { createServer } from 'node:http'
import { createApp, createError, createRouter, defineEventHandler, getHeaders, readRawBody, toNodeListener } from 'h3'
import { Webhook } from 'standardwebhooks'

const port = Number(process.env.PORT ?? 3000)
const webhook = new Webhook(process.env.WEBHOOK_SECRET)
const seen = new Set() // In a shop: a table with the id as its key, written with whatever the event causes.

const receive = defineEventHandler(async (event) => {
  const headers = getHeaders(event)
  let told
  try {
    // The bytes as they came: a body that was parsed and written anew has another signature.
    told = webhook.verify((await readRawBody(event)) ?? '', headers)
  } catch (error) {
    throw createError({ statusCode: 401, message: String(error) })
  }
  if (!seen.has(headers['webhook-id'])) {
    seen.add(headers['webhook-id'])
    console.log(`${told.type} ${told.data.orderId} ${told.data.version}`)
  }
  return { received: true }
})

const app = createApp()
app.use(createRouter().post('/webhooks/oplata', receive))
createServer(toNodeListener(app)).listen(port, '127.0.0.1', () => console.log('receiver is ready'))
