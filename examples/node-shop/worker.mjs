// The worker of a Node shop, `worker/payment-worker.ts`: one message at a time, and on any error back to the queue.
// It is shown as shops have it, but for one thing: it reads `OrderId`, as the bank writes it, and not `orderId`.
import amqp from 'amqplib'

const broker = process.env.RABBITMQ_URL ?? 'amqp://localhost'
const queue = process.env.QUEUE ?? 'tinkoff_payments'
const shop = process.env.SHOP_URL ?? 'http://localhost:3000'

async function updateOrderStatus(order) {
  const answer = await fetch(`${shop}/api/trpc/orders.updateStatus`, {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify(order),
  })
  if (!answer.ok) throw new Error(`the shop answered ${answer.status}`)
}

const connection = await amqp.connect(broker)
const channel = await connection.createChannel()
await channel.assertQueue(queue, { durable: true })
await channel.prefetch(1)
await channel.consume(queue, async (message) => {
  if (message === null) return
  try {
    const payment = JSON.parse(message.content.toString())
    await updateOrderStatus({ orderId: payment.OrderId, status: 'paid' })
    channel.ack(message)
  } catch (error) {
    console.error(String(error))
    channel.nack(message, false, true)
  }
})
console.log('worker is ready')
process.once('SIGTERM', async () => {
  await channel.close()
  await connection.close()
})
