// Publishes one job to lanes. Needs amqplib: npm install amqplib
const amqp = require("amqplib");

async function main() {
  const url = process.env.AMQP_URL ?? "amqp://guest:guest@127.0.0.1:5672/%2f";
  const connection = await amqp.connect(url);
  const channel = await connection.createConfirmChannel();
  let returned = false;
  channel.on("return", () => { returned = true; });

  const job = { email: "ada@example.com", status: "qualified" };
  channel.publish("lanes", "realtime", Buffer.from(JSON.stringify(job)), { // the routing key is the lane
    mandatory: true, // an unknown lane is returned instead of lost
    messageId: "contact-4711-v3", // the deduplication id: the same change keeps its id when it is sent again
    deliveryMode: 2, // on disk before the confirm
    timestamp: Math.floor(Date.now() / 1000),
    contentType: "application/json",
    headers: { "lanes-endpoint": "crm", "lanes-tenant": "acme" },
  });
  await channel.waitForConfirms(); // rejects if the broker refuses the job
  await connection.close();
  if (returned) throw new Error("no such lane: realtime");
  console.log("published");
}

main().catch((error) => {
  console.error(error.message);
  process.exit(1);
});
