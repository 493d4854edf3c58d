//! One id is called once in its window, whatever comes again and in whatever way.

use std::time::Duration;

use lanes::broker::Outgoing;
use lanes::job::verdict::DeadReason;
use lanes::job::{Identity, Job, wire};
use lanes::store::State;

use super::on_every_backend;
use super::rig::{Backend, Reply, Rig, new_job};

const MINUTE: Duration = Duration::from_secs(60);

on_every_backend!(
    a_second_publish_in_the_window_is_dropped,
    a_second_publish_while_the_first_waits_is_dropped,
    a_backlog_beyond_the_window_changes_nothing,
    out_of_the_window_both_run_one_after_another,
    a_redelivery_is_not_a_duplicate,
    another_payload_is_a_dead_letter,
    an_unconfirmed_publish_sent_twice_runs_once,
);

async fn a_second_publish_in_the_window_is_dropped(backend: Backend) {
    let rig = Rig::new(backend, |_, _| Reply::status(200)).await;
    let worker = rig.start();
    let first = rig.publish("realtime", "a").await;
    rig.until_state(&first, State::Done).await;
    rig.clock.advance(Duration::from_millis(10 * 60 * 1_000 - 1));
    rig.publish("realtime", "a").await;
    rig.barrier("realtime").await;
    assert_eq!(rig.api.calls_of("a").len(), 1);
    worker.stop().await;
}

async fn a_second_publish_while_the_first_waits_is_dropped(backend: Backend) {
    let rig = Rig::new(backend, |_, nth| Reply::status(if nth == 1 { 429 } else { 200 })).await;
    let worker = rig.start();
    let first = rig.publish("realtime", "a").await;
    rig.until_state(&first, State::Waiting).await;
    let second = rig.publish("realtime", "a").await;
    rig.barrier("realtime").await;
    assert_eq!(rig.row(&second).await, None, "no row of its own");
    assert_eq!(rig.api.calls_of("a").len(), 1);
    rig.clock.advance(2 * MINUTE);
    rig.until_state(&first, State::Done).await;
    assert_eq!(rig.api.calls_of("a").len(), 2, "the retry is not mistaken for a duplicate");
    worker.stop().await;
}

async fn a_backlog_beyond_the_window_changes_nothing(backend: Backend) {
    let rig = Rig::new(backend, |_, _| Reply::status(200)).await;
    rig.publish("bulk", "near").await;
    rig.clock.advance(5 * MINUTE);
    rig.publish("bulk", "near").await;
    rig.publish("bulk", "far").await;
    rig.clock.advance(15 * MINUTE);
    rig.publish("bulk", "far").await;
    rig.clock.advance(180 * MINUTE);
    let worker = rig.start();
    rig.until_with_clock("both of far", |seen| seen.iter().filter(|call| call.job_id == "far").count() == 2).await;
    rig.barrier("bulk").await;
    assert_eq!(rig.api.calls_of("near").len(), 1, "five minutes apart, consumed hours later");
    assert_eq!(rig.api.calls_of("far").len(), 2, "fifteen minutes apart, consumed in the same second");
    worker.stop().await;
}

async fn out_of_the_window_both_run_one_after_another(backend: Backend) {
    let rig = Rig::new(backend, |_, nth| Reply::status(if nth == 1 { 503 } else { 200 })).await;
    let worker = rig.start();
    let first = rig.publish("realtime", "a").await;
    let waiting = rig.until_state(&first, State::Waiting).await;
    // make the wait longer than the window: the second publish comes out of it while the first is alive
    assert_eq!(waiting.attempt, 1);
    let job = Job {
        instance: uuid::Uuid::from_u128(42),
        identity: Identity::Stamped,
        lane: waiting.lane.clone(),
        tenant: waiting.tenant.clone(),
        id: waiting.id.clone(),
        endpoint: waiting.endpoint.clone(),
        published_at: waiting.published_at.minus(11 * MINUTE),
        meta: lanes::job::JobMeta::default(),
        body: bytes::Bytes::from_static(b"another"),
    };
    send(&rig, &job).await;
    let second = lanes::publish::Published { instance: job.instance, id: job.id.clone() };
    let parked = rig.until_row(&second, "a row of its own", |_| true).await;
    assert_eq!((parked.state, parked.reason.as_str()), (State::Waiting, "key_busy"));
    rig.clock.advance(2 * MINUTE);
    rig.until_state(&first, State::Done).await;
    rig.clock.advance(Duration::from_secs(2));
    rig.until_state(&second, State::Done).await;
    assert_eq!(rig.api.calls_of("a").len(), 3);
    worker.stop().await;
}

async fn send(rig: &Rig, job: &Job) {
    let outgoing = Outgoing { route: wire::route(&job.lane), message: wire::encode(job) };
    for answer in rig.backing.broker.publish(vec![outgoing]).await {
        answer.expect("confirmed");
    }
}

async fn a_redelivery_is_not_a_duplicate(backend: Backend) {
    let (open, gate) = tokio::sync::watch::channel(false);
    let rig = Rig::new(backend, move |_, _| Reply::status(200).gated(&gate)).await;
    let first = rig.start();
    let job = rig.publish("realtime", "a").await;
    rig.api.until_calls(1).await;
    first.ask_to_stop(); // its session ends at once: the message is redelivered while the call goes on
    let second = rig.start();
    open.send(true).expect("the API listens");
    first.ended().await;
    rig.until_state(&job, State::Done).await;
    rig.barrier("realtime").await;
    assert_eq!(rig.api.calls_of("a").len(), 1);
    second.stop().await;
}

async fn another_payload_is_a_dead_letter(backend: Backend) {
    let rig = Rig::new(backend, |_, _| Reply::status(200)).await;
    let worker = rig.start();
    let first = rig.publish("realtime", "a").await;
    rig.until_state(&first, State::Done).await;
    let mut other = new_job("realtime", "a");
    other.body = bytes::Bytes::from_static(b"{\"n\":2}");
    rig.publisher.publish_one(other).await.expect("confirmed");
    let letters = rig.until_letters(1).await;
    assert_eq!(letters[0].reason, DeadReason::DuplicateIdDifferentPayload);
    assert_eq!(letters[0].id.as_deref(), Some("a"));
    worker.stop().await;
    assert_eq!(rig.api.calls().len(), 1);
}

async fn an_unconfirmed_publish_sent_twice_runs_once(backend: Backend) {
    let rig = Rig::new(backend, |_, _| Reply::status(200)).await;
    let template = new_job("realtime", "a");
    let job = Job {
        instance: uuid::Uuid::from_u128(7),
        identity: Identity::Stamped,
        lane: template.lane,
        tenant: template.tenant,
        id: template.id.expect("has one"),
        endpoint: template.endpoint,
        published_at: rig.now(),
        meta: template.meta,
        body: template.body,
    };
    send(&rig, &job).await;
    send(&rig, &job).await;
    let worker = rig.start();
    rig.api.until_calls(1).await;
    rig.barrier("realtime").await;
    worker.stop().await;
    assert_eq!(rig.api.calls_of("a").len(), 1);
}
