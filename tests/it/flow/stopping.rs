//! A worker that stops, and one that breaks: others get at once what it does not need, and nobody thinks that it goes on.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use lanes::broker::{
    Broker, BrokerError, DEAD_QUEUE, Deliveries, Depth, Outgoing, PublishError, QueueSpec, Subscription,
};
use lanes::engine::settings::WorkerSettings;
use lanes::engine::worker::WorkerParts;
use lanes::job::wire;
use lanes::store::State;

use super::on_every_backend;
use super::rig::{Backend, Reply, Rig, Running, lane, settings};
use super::weather::{self, Asked, Weather};

on_every_backend!(what_a_stopping_worker_has_not_claimed_goes_to_others_at_once);

async fn what_a_stopping_worker_has_not_claimed_goes_to_others_at_once(backend: Backend) {
    let (open, gate) = tokio::sync::watch::channel(false);
    let begun = AtomicUsize::new(0);
    let rig = Rig::new(backend, move |_, _| match begun.fetch_add(1, Ordering::Relaxed) {
        0..4 => Reply::status(200).gated(&gate),
        _ => Reply::status(200),
    })
    .await;
    let mut jobs = Vec::new();
    for n in 0..30 {
        jobs.push(rig.publish("realtime", &format!("job-{n}")).await);
    }
    let patient = WorkerSettings { drain_timeout: Duration::from_secs(1_000_000), ..settings() };
    let first = rig.start_with(patient);
    rig.api.until_calls(4).await;
    rig.until("delivery of everything", async || rig.ready(&wire::queue(&lane("realtime"))).await == 0).await;
    first.ask_to_stop();
    let second = rig.start();
    rig.until_with_clock("call of the others", |seen| seen.len() == 30).await;
    let running = rig.rows().await.iter().filter(|row| row.state == State::Run).count();
    assert!(running >= 4, "the first worker still waits for its calls: {running}");
    open.send(true).expect("the API listens");
    first.ended().await;
    for job in &jobs {
        assert_eq!(rig.until_state(job, State::Done).await.attempt, 1);
    }
    second.stop().await;
    assert_eq!(rig.api.calls().len(), 30, "each once");
}

/// Weather in which the code that makes this call panics.
fn panics_at(wanted: fn(&Asked<'_>) -> bool) -> weather::Forecast {
    Arc::new(move |asked| {
        assert!(!wanted(&asked), "a bug, made by the test");
        weather::ready(Ok(()))
    })
}

async fn breaks(wanted: fn(&Asked<'_>) -> bool) {
    let rig = Rig::new(Backend::Sqlite, |_, _| Reply::status(200)).await;
    let store = Weather::before(&rig.backing.store);
    store.turns(panics_at(wanted));
    rig.publish("realtime", "a").await;
    rig.start_before(rig.settings.clone(), &store).failed().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_claim_that_panics_ends_the_worker() {
    breaks(|asked| matches!(asked, Asked::ClaimFresh(_))).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_settlement_that_panics_ends_the_worker() {
    breaks(|asked| matches!(asked, Asked::Settle(_))).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_releaser_that_panics_ends_the_worker() {
    breaks(|asked| matches!(asked, Asked::Release)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_heartbeat_that_panics_ends_the_worker() {
    breaks(|asked| matches!(asked, Asked::Heartbeat)).await;
}

/// A broker whose lanes' consumers panic.
#[derive(Debug)]
struct Trap(Arc<dyn Broker>);

#[async_trait]
impl Broker for Trap {
    async fn declare(&self, queues: &[QueueSpec]) -> Result<(), BrokerError> {
        self.0.declare(queues).await
    }

    async fn publish(&self, messages: Vec<Outgoing>) -> Vec<Result<(), PublishError>> {
        self.0.publish(messages).await
    }

    async fn subscribe(&self, subscriptions: &[Subscription]) -> Result<Vec<Box<dyn Deliveries>>, BrokerError> {
        assert!(subscriptions.iter().all(|wanted| wanted.queue == DEAD_QUEUE), "a bug, made by the test");
        self.0.subscribe(subscriptions).await
    }

    async fn depth(&self, queue: &str) -> Result<Option<Depth>, BrokerError> {
        self.0.depth(queue).await
    }

    fn health(&self) -> Result<(), String> {
        self.0.health()
    }

    async fn close(&self) {
        self.0.close().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_intake_that_panics_ends_the_worker() {
    let rig = Rig::new(Backend::Sqlite, |_, _| Reply::status(200)).await;
    let broker = Arc::new(Trap(Arc::clone(&rig.backing.broker)));
    Running::start(WorkerParts { broker, ..rig.parts(rig.settings.clone()) }).failed().await;
}

/// What a lane owned when it broke is not settled: the worker may not leave as if it were.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lane_that_panics_while_it_stops_is_told_and_stays_registered() {
    let (open, gate) = tokio::sync::watch::channel(false);
    let rig = Rig::new(Backend::Sqlite, move |_, _| Reply::status(200).gated(&gate)).await;
    let store = Weather::before(&rig.backing.store);
    store.turns(panics_at(|asked| matches!(asked, Asked::Settle(_))));
    rig.publish("realtime", "a").await;
    let worker = rig.start_before(rig.settings.clone(), &store);
    rig.api.until_calls(1).await;
    worker.ask_to_stop();
    open.send(true).expect("the API listens");
    worker.failed().await;
    assert_eq!(rig.backing.store.workers().await.expect("answers").len(), 1, "others take over when its lease is over");
}
