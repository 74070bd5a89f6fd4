// The usual Node endpoint: a connection for each request, no token, no confirm, and no "OK".
import { createServer } from "node:http";
import amqp from "amqplib";
import { createApp, eventHandler, readBody, toNodeListener } from "h3";

const { BENCH_AMQP_URL: url, BENCH_QUEUE: queue, BENCH_QUEUE_TYPE: type } = process.env;
const declared = { durable: true, arguments: { "x-queue-type": type } };

const app = createApp();
app.use(
  "/api/tinkoff-callback",
  eventHandler(async (event) => {
    const body = await readBody(event);
    const connection = await amqp.connect(url);
    const channel = await connection.createChannel();
    await channel.assertQueue(queue, declared);
    channel.sendToQueue(queue, Buffer.from(JSON.stringify(body)), { persistent: true });
    await channel.close();
    await connection.close();
    return { ok: true };
  }),
);
createServer(toNodeListener(app)).listen(Number(process.argv[2]), "127.0.0.1");
