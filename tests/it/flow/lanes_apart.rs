//! Lanes are independent: caps are never exceeded, bulk cannot delay real-time, a stop under load loses nothing.

use std::time::Duration;

use lanes::store::State;

use super::on_every_backend;
use super::rig::{Backend, Reply, Rig, new_job};

on_every_backend!(
    caps_are_never_exceeded,
    a_full_bulk_lane_does_not_hold_up_realtime,
    a_stop_under_load_loses_and_repeats_nothing,
    not_before_waits_in_the_store,
    an_expired_job_is_not_called,
);

async fn caps_are_never_exceeded(backend: Backend) {
    let rig = Rig::new(backend, |_, _| Reply::status(200)).await;
    for lane in ["realtime", "bulk"] {
        let jobs = (0..150).map(|n| new_job(lane, &format!("{lane}-{n}"))).collect();
        for answer in rig.publisher.publish(jobs).await {
            answer.expect("confirmed");
        }
    }
    let worker = rig.start();
    rig.api.until_calls(300).await;
    worker.stop().await;
    assert!((1..=4).contains(&rig.api.most_inflight("realtime")), "{}", rig.api.most_inflight("realtime"));
    assert!((1..=2).contains(&rig.api.most_inflight("bulk")), "{}", rig.api.most_inflight("bulk"));
    assert_eq!(rig.api.calls().len(), 300, "each once");
}

async fn a_full_bulk_lane_does_not_hold_up_realtime(backend: Backend) {
    let (open, gate) = tokio::sync::watch::channel(false);
    let rig = Rig::new(backend, move |seen, _| match seen.lane.as_str() {
        "bulk" => Reply::status(200).gated(&gate),
        _ => Reply::status(200),
    })
    .await;
    let backlog = (0..500).map(|n| new_job("bulk", &format!("bulk-{n}"))).collect();
    for answer in rig.publisher.publish(backlog).await {
        answer.expect("confirmed");
    }
    let worker = rig.start();
    rig.api.until("a full bulk lane", |seen| seen.iter().filter(|call| call.lane == "bulk").count() == 2).await;
    for n in 0..20 {
        let job = rig.publish("realtime", &format!("now-{n}")).await;
        rig.until_state(&job, State::Done).await;
    }
    assert_eq!(rig.api.calls().iter().filter(|call| call.lane == "bulk").count(), 2, "bulk is still stuck");
    open.send(true).expect("the API listens");
    worker.stop().await;
}

async fn a_stop_under_load_loses_and_repeats_nothing(backend: Backend) {
    let rig = Rig::new(backend, |_, _| Reply::status(200)).await;
    let jobs = (0..400).map(|n| new_job("realtime", &format!("job-{n}"))).collect();
    for answer in rig.publisher.publish(jobs).await {
        answer.expect("confirmed");
    }
    for round in 1..=4 {
        let worker = rig.start();
        rig.api.until_calls(round * 60).await;
        worker.stop().await;
    }
    let worker = rig.start();
    rig.clock.advance(Duration::from_secs(2)); // what was given back is due
    rig.api.until("every job", |seen| distinct(seen) == 400).await;
    worker.stop().await;
    assert_eq!(rig.api.calls().len(), 400, "each once");
    assert!(rig.rows().await.iter().all(|row| row.state == State::Done));
}

fn distinct(seen: &[super::rig::Seen]) -> usize {
    seen.iter().map(|call| &call.job_id).collect::<std::collections::HashSet<_>>().len()
}

async fn not_before_waits_in_the_store(backend: Backend) {
    let rig = Rig::new(backend, |_, _| Reply::status(200)).await;
    let worker = rig.start();
    let mut job = new_job("bulk", "a");
    let at = rig.now().plus(Duration::from_secs(3_600));
    job.meta.not_before = Some(at);
    let job = rig.publisher.publish_one(job).await.expect("confirmed");
    let row = rig.until_state(&job, State::Waiting).await;
    assert_eq!((row.reason.as_str(), row.resume_at, row.attempt), ("not_before", Some(at), 0));
    rig.clock.advance(Duration::from_secs(3_600));
    let row = rig.until_state(&job, State::Done).await;
    assert_eq!(row.attempt, 1, "waiting spends no attempt");
    worker.stop().await;
}

async fn an_expired_job_is_not_called(backend: Backend) {
    let rig = Rig::new(backend, |_, _| Reply::status(200)).await;
    let mut job = new_job("bulk", "a");
    job.meta.expires_at = Some(rig.now().plus(Duration::from_secs(60)));
    let job = rig.publisher.publish_one(job).await.expect("confirmed");
    rig.clock.advance(Duration::from_secs(60));
    let worker = rig.start();
    rig.until_state(&job, State::Dead).await;
    assert_eq!(rig.until_letters(1).await[0].reason, lanes::job::verdict::DeadReason::Expired);
    worker.stop().await;
    assert!(rig.api.calls().is_empty());
}
