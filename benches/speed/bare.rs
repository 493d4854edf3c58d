//! The yardstick: a bare `lapin` consumer that does the same call, with a dedup insert in natural batches and nothing else.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::{FutureExt, StreamExt};
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use lapin::message::Delivery;
use lapin::options::{
    BasicAckOptions, BasicConsumeOptions, BasicPublishOptions, BasicQosOptions, ConfirmSelectOptions,
    QueueDeclareOptions,
};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{BasicProperties, Channel, Connection, ConnectionProperties};
use sqlx::PgPool;
use tokio::sync::{Semaphore, mpsc};

const QUEUE: &str = "bare";
const CONCURRENCY: usize = 100;
const BATCH_MAX: usize = 500;
const STATEMENTS_IN_FLIGHT: usize = 2;
const PREFETCH: u16 = 500;

async fn open(amqp: &str) -> (Connection, Channel) {
    let connection = Connection::connect(amqp, ConnectionProperties::default()).await.expect("connects");
    let channel = connection.create_channel().await.expect("a channel");
    let mut arguments = FieldTable::default();
    arguments.insert("x-queue-type".into(), AMQPValue::LongString("quorum".into()));
    channel.queue_declare(QUEUE.into(), QueueDeclareOptions::durable(), arguments).await.expect("a queue");
    (connection, channel)
}

/// Fills the queue with confirmed persistent messages.
pub async fn preload(amqp: &str, jobs: usize) {
    let (_connection, channel) = open(amqp).await;
    channel.confirm_select(ConfirmSelectOptions::default()).await.expect("confirms");
    let mut confirms = Vec::with_capacity(1_000);
    for n in 0..jobs {
        let properties = BasicProperties::default().with_delivery_mode(2).with_message_id(format!("job-{n}").into());
        let options = BasicPublishOptions::default();
        confirms.push(
            channel.basic_publish("".into(), QUEUE.into(), options, &[b'x'; 200], properties).await.expect("sent"),
        );
        if confirms.len() == 1_000 || n + 1 == jobs {
            for confirm in confirms.drain(..) {
                confirm.await.expect("confirmed");
            }
        }
    }
}

/// Consumes until it is killed. `role` = "AMQP_URL PG_URL SINK_URL".
pub async fn run(role: &str) {
    let [amqp, postgres, sink] = role.split(' ').collect::<Vec<_>>()[..] else { panic!("three urls, got {role:?}") };
    let pool = PgPool::connect(postgres).await.expect("connects");
    sqlx::query("CREATE TABLE IF NOT EXISTS dedup (id text PRIMARY KEY)").execute(&pool).await.expect("a table");
    let (_connection, channel) = open(amqp).await;
    channel.basic_qos(PREFETCH, BasicQosOptions::default()).await.expect("a prefetch");
    let (options, table) = (BasicConsumeOptions::default(), FieldTable::default());
    let mut stream = channel.basic_consume(QUEUE.into(), "bare".into(), options, table).await.expect("consumes");
    let client = Client::builder(TokioExecutor::new()).build_http::<Full<Bytes>>();
    let (done, mut acks) = mpsc::channel::<u64>(usize::from(PREFETCH));
    let (slots, statements) = (Arc::new(Semaphore::new(CONCURRENCY)), Arc::new(Semaphore::new(STATEMENTS_IN_FLIGHT)));
    tokio::spawn(async move { acknowledge(&channel, &mut acks).await });
    while let Some(first) = stream.next().await {
        let mut batch: Vec<Delivery> = vec![first.expect("a delivery")];
        let permit = Arc::clone(&statements).acquire_owned().await.expect("open");
        while batch.len() < BATCH_MAX {
            let Some(Some(next)) = stream.next().now_or_never() else { break };
            batch.push(next.expect("a delivery"));
        }
        let (pool, client, done, slots, sink) =
            (pool.clone(), client.clone(), done.clone(), Arc::clone(&slots), sink.to_owned());
        tokio::spawn(async move {
            let ids: Vec<String> = batch
                .iter()
                .map(|d| d.properties.message_id().as_ref().map(ToString::to_string).expect("an id"))
                .collect();
            sqlx::query("INSERT INTO dedup (id) SELECT * FROM unnest($1::text[]) ON CONFLICT DO NOTHING RETURNING id")
                .bind(ids)
                .fetch_all(&pool)
                .await
                .expect("inserted");
            drop(permit);
            for delivery in batch {
                let slot = Arc::clone(&slots).acquire_owned().await.expect("open");
                let (client, done, sink) = (client.clone(), done.clone(), sink.clone());
                tokio::spawn(async move {
                    let request =
                        hyper::Request::post(sink).body(Full::from(Bytes::from(delivery.data))).expect("a request");
                    let answer = client.request(request).await.expect("answered");
                    answer.into_body().collect().await.expect("a whole answer");
                    drop(slot);
                    done.send(delivery.delivery_tag).await.expect("acks are taken");
                });
            }
        });
    }
}

/// Acks up to the highest tag below which everything is done, in one frame.
async fn acknowledge(channel: &Channel, acks: &mut mpsc::Receiver<u64>) {
    let mut finished = std::collections::BTreeSet::new();
    let mut acked = 0;
    let mut batch = Vec::new();
    while acks.recv_many(&mut batch, 1_000).await > 0 {
        finished.extend(batch.drain(..));
        let before = acked;
        while finished.remove(&(acked + 1)) {
            acked += 1;
        }
        if acked > before {
            channel.basic_ack(acked, BasicAckOptions { multiple: true }).await.expect("acked");
        }
    }
}
