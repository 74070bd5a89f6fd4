// The usual Node worker with a prefetch of 1, and its tuned form with 100: one UPDATE for each message, then its ack.
import amqp from "amqplib";
import pg from "pg";

const { BENCH_AMQP_URL: url, BENCH_QUEUE: queue, BENCH_QUEUE_TYPE: type, BENCH_DATABASE_URL: database } = process.env;
const prefetch = Number(process.argv[2]);

const pool = new pg.Pool({ connectionString: database, max: prefetch === 1 ? 1 : 10 });
const connection = await amqp.connect(url);
const channel = await connection.createChannel();
await channel.assertQueue(queue, { durable: true, arguments: { "x-queue-type": type } });
await channel.prefetch(prefetch);
await channel.consume(queue, async (message) => {
  const payment = JSON.parse(message.content.toString());
  try {
    await pool.query("UPDATE shop_orders SET status = 'paid' WHERE order_id = $1", [payment.OrderId]);
    channel.ack(message);
  } catch {
    channel.nack(message);
  }
});
