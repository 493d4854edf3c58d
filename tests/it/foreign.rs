//! The examples of the README, run as they stand against a private RabbitMQ: what other languages publish arrives whole.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Arc;
use std::time::Duration;

use lanes::broker::rabbitmq::RabbitMq;
use lanes::broker::{self, Broker, BrokerLimits, QueueSpec, Subscription};
use lanes::clock::{self, Clock, SystemClock};
use lanes::message::{HeaderValue, Message};

use crate::services;

/// The lane that the examples publish to.
const LANE: &str = "realtime";
/// Longest wait for a message that was confirmed.
const ARRIVAL: Duration = Duration::from_secs(20);

/// A command that publishes.
struct Publisher {
    program: PathBuf,
    example: &'static str,
    node_path: Option<PathBuf>,
}

impl Publisher {
    /// Debian's Python, which sees Debian's package of pika.
    fn python() -> Self {
        let program = PathBuf::from("/usr/bin/python3");
        let found = Command::new(&program).args(["-c", "import pika"]).output();
        assert!(
            found.as_ref().is_ok_and(|output| output.status.success()),
            "/usr/bin/python3 has no pika: apt-get install -y python3-pika, or run scripts/test ({found:?})"
        );
        Self { program, example: "examples/publish.py", node_path: None }
    }

    /// Node.js with the amqplib that scripts/test has put below `target`.
    fn node() -> Self {
        let modules = root().join("target/foreign-node/node_modules");
        assert!(modules.join("amqplib").is_dir(), "no amqplib in {}: run scripts/test", modules.display());
        Self { program: "node".into(), example: "examples/publish.js", node_path: Some(modules) }
    }

    fn run(&self, url: &str) -> Output {
        let mut command = Command::new(&self.program);
        command.arg(self.example).current_dir(root()).env("AMQP_URL", url);
        if let Some(modules) = &self.node_path {
            command.env("NODE_PATH", modules);
        }
        command.output().unwrap_or_else(|error| {
            panic!("{} does not run ({error}): install it, or run scripts/test", self.program.display())
        })
    }
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn queue() -> QueueSpec {
    QueueSpec { name: format!("lanes.{LANE}"), route: LANE.to_owned() }
}

fn connect(url: &str) -> RabbitMq {
    RabbitMq::new(url, BrokerLimits::default(), Arc::new(SystemClock::new())).expect("a valid url")
}

/// The next message of the lane; acked.
async fn received(rabbit: &RabbitMq) -> Message {
    let subscription = Subscription { queue: queue().name, prefetch: 10 };
    let mut streams = rabbit.subscribe(&[subscription]).await.expect("subscribed");
    let deliveries = clock::within(ARRIVAL, streams[0].next(10)).await.expect("it arrives").expect("a session");
    let mut deliveries = deliveries.into_iter();
    let delivery = deliveries.next().expect("one message");
    assert_eq!(deliveries.count(), 0, "one publish is one message");
    broker::ack(vec![delivery.receipt]).await;
    delivery.message
}

/// Publishes with `publisher` and checks that every field which lanes reads has arrived.
async fn arrives_whole(publisher: Publisher) {
    let url = services::fresh_vhost().await;
    let rabbit = connect(&url);
    rabbit.declare(&[queue()]).await.expect("declared");
    let before = SystemClock::new().now().as_secs_f64();
    let output = publisher.run(&url);
    assert!(output.status.success(), "{}: {output:?}", publisher.example);
    assert_eq!(String::from_utf8_lossy(&output.stdout), "published\n");

    let message = received(&rabbit).await;
    let body: serde_json::Value = serde_json::from_slice(&message.body).expect("the body is JSON");
    assert_eq!(body, serde_json::json!({"email": "ada@example.com", "status": "qualified"}));
    let properties = &message.properties;
    assert_eq!(properties.message_id.as_deref(), Some("contact-4711-v3"));
    assert_eq!(properties.content_type.as_deref(), Some("application/json"));
    assert_eq!(properties.durable, Some(true), "delivery mode 2");
    let stamped = Duration::from_secs(properties.timestamp.expect("a timestamp")).as_secs_f64();
    assert!((before - 1.0..before + 60.0).contains(&stamped), "stamped {stamped}, published after {before}");
    assert_eq!(message.headers.get("lanes-endpoint"), Some(&HeaderValue::from("crm")));
    assert_eq!(message.headers.get("lanes-tenant"), Some(&HeaderValue::from("acme")));
    rabbit.close().await;
}

/// Publishes with `publisher` to an exchange that leads nowhere: it must say so and fail.
async fn an_unknown_lane_is_refused(publisher: Publisher) {
    let url = services::fresh_vhost().await;
    let rabbit = connect(&url);
    let other = QueueSpec { name: "lanes.other".to_owned(), route: "other".to_owned() };
    rabbit.declare(&[other]).await.expect("declared");
    let output = publisher.run(&url);
    assert_eq!(output.status.code(), Some(1), "{}: {output:?}", publisher.example);
    assert_eq!(String::from_utf8_lossy(&output.stdout), "", "nothing was published");
    assert!(!output.stderr.is_empty(), "it says why");
    rabbit.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_python_publishes_arrives_whole() {
    arrives_whole(Publisher::python()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_node_publishes_arrives_whole() {
    arrives_whole(Publisher::node()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn python_is_told_that_a_lane_is_unknown() {
    an_unknown_lane_is_refused(Publisher::python()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn node_is_told_that_a_lane_is_unknown() {
    an_unknown_lane_is_refused(Publisher::node()).await;
}
