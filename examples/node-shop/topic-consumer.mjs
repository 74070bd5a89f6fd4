// Hears of each change as an event on a topic exchange: a queue of its own, bound to what it wants to hear of.
import amqp from 'amqplib'

const connection = await amqp.connect(process.env.RABBITMQ_URL ?? 'amqp://localhost')
const channel = await connection.createChannel()
const exchange = process.env.EXCHANGE ?? 'oplata.events'
const queue = process.env.QUEUE ?? 'shop.paid-orders'

await channel.assertExchange(exchange, 'topic', { durable: true })
await channel.assertQueue(queue, { durable: true, arguments: { 'x-queue-type': 'quorum' } })
for (const key of (process.env.KEYS ?? 'order.paid,order.refunded').split(',')) {
  await channel.bindQueue(queue, exchange, key)
}
await channel.prefetch(10)

const seen = new Set() // In a shop: a table with the id as its key, written with whatever the event causes.
await channel.consume(queue, (message) => {
  if (message === null) return
  const { messageId, type } = message.properties
  if (!seen.has(messageId)) {
    seen.add(messageId)
    const { data } = JSON.parse(message.content.toString())
    console.log(`${type} ${data.orderId} ${data.version}`)
  }
  channel.ack(message)
})
console.log('consumer is ready')
process.once('SIGTERM', async () => {
  await channel.close()
  await connection.close()
})
