//! Operators act while workers run: a lane makes more calls at a time, or fewer, and jobs that wait are retried now.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use lanes::governor::{hurry, lanes as said};
use lanes::job::JobMeta;
use lanes::policy::limit::{Limit, Scope};
use lanes::policy::pacing::EndpointBudget;
use lanes::publish::{NewJob, Published};
use lanes::store::{Hastened, IN_TURN, State};
use lanes::telemetry::Telemetry;
use tokio::sync::watch;

use super::on_every_backend;
use super::pausing::{STEP, ada, all_done, lane_of, pass, pause, publish, resume, two_endpoints, until_calls};
use super::rig::{Backend, Reply, Rig, crm, lane, new_job};

on_every_backend!(
    a_raised_lane_makes_more_calls_at_once,
    a_lowered_lane_finishes_its_calls_and_gives_back_the_rest,
    a_number_of_calls_ends_by_itself,
    a_restart_keeps_a_number_of_calls_and_a_reset_ends_it,
    what_all_workers_may_call_together_stays,
    a_hurried_retry_is_called_at_once,
    a_hurried_job_is_called_before_its_time,
    a_job_in_its_turn_is_not_hurried_past_its_budget,
    a_hurried_job_of_a_paused_lane_goes_when_it_is_resumed,
);

/// Longest time from an operator's word to what follows from it. Workers follow within a second, and the releaser of a lane
/// looks as often; the rest is for a machine with too much to do, on which the clock of a test runs ahead of its worker. It is
/// far below the minutes and hours that the jobs of these tests would wait by themselves.
const FOLLOWS_WITHIN: Duration = Duration::from_secs(30);

async fn set(rig: &Rig, name: &str, calls: u32, lasts: Option<Duration>) {
    let (now, store) = (rig.now(), &*rig.backing.store);
    let until = lasts.map(|lasts| now.plus(lasts));
    said::set_concurrency(store, &lane(name), calls, until, &ada(), now).await.expect("set");
}

async fn reset(rig: &Rig, name: &str) {
    let before = said::reset_concurrency(&*rig.backing.store, &lane(name), &ada(), rig.now()).await.expect("answered");
    assert!(before.is_some(), "something was set");
}

/// How many rows a worker has claimed and not settled.
async fn running(rig: &Rig) -> usize {
    rig.rows().await.iter().filter(|row| row.state == State::Run).count()
}

async fn a_raised_lane_makes_more_calls_at_once(backend: Backend) {
    let (open, gate) = watch::channel(false);
    let mut rig = Rig::new(backend, move |_, _| Reply::status(200).gated(&gate)).await;
    let (telemetry, metrics) = Telemetry::prometheus();
    rig.telemetry = telemetry;
    let limit = |calls: u32| {
        let line = format!("lanes_lane_concurrency_limit{{lane=\"bulk\"}} {calls}\n");
        metrics.render().contains(&line)
    };
    let worker = rig.start();
    let jobs = publish(&rig, "bulk", "acme", &crm(), 150).await;
    until_calls(&rig, "calls of the configured number", 2).await;
    assert!(limit(2), "{}", metrics.render());
    // more than it has messages in hand for
    let raised_at = rig.now();
    set(&rig, "bulk", 100, None).await;
    until_calls(&rig, "as many calls as were said", 100).await;
    let took = rig.now().since(raised_at);
    assert!(took < FOLLOWS_WITHIN, "it took {took:?}");
    pass(&rig, Duration::from_secs(2)).await;
    assert_eq!((rig.api.count(), rig.api.most_inflight("bulk")), (100, 100), "and no more");
    assert!(limit(100), "{}", metrics.render());
    open.send(true).expect("the API listens");
    until_calls(&rig, "all calls", 150).await;
    all_done(&rig, &jobs).await;
    worker.stop().await;
}

async fn a_lowered_lane_finishes_its_calls_and_gives_back_the_rest(backend: Backend) {
    let ((open_first, first), (open_rest, rest)) = (watch::channel(false), watch::channel(false));
    let calls = AtomicUsize::new(0);
    let script = move |_: &_, _| {
        let nth = calls.fetch_add(1, Ordering::SeqCst);
        Reply::status(200).gated(if nth < 3 { &first } else { &rest })
    };
    let rig = Rig::new(backend, script).await;
    // of three slots each one that frees up is claimed for at once, however the messages arrive
    let mut settings = rig.settings.clone();
    settings.lanes[0].concurrency = 3;
    let worker = rig.start_with(settings);
    let jobs = publish(&rig, "realtime", "acme", &crm(), 12).await;
    until_calls(&rig, "calls of the configured number", 3).await;
    rig.until("claims of all that may be owned", async || running(&rig).await == 6).await;
    set(&rig, "realtime", 1, None).await;
    rig.until_in_steps(STEP, "jobs given back", async || running(&rig).await == 3).await;
    pass(&rig, Duration::from_secs(2)).await;
    assert_eq!((rig.api.count(), running(&rig).await), (3, 3), "no call is cut off, and none begins");
    open_first.send(true).expect("the API listens");
    until_calls(&rig, "one call more", 4).await;
    rig.until_in_steps(STEP, "calls that finish", async || {
        rig.rows().await.iter().filter(|row| row.state == State::Done).count() == 3
    })
    .await;
    pass(&rig, Duration::from_secs(3)).await;
    assert_eq!(rig.api.count(), 4, "one at a time");
    open_rest.send(true).expect("the API listens");
    until_calls(&rig, "all calls", 12).await;
    all_done(&rig, &jobs).await;
    worker.stop().await;
}

async fn a_number_of_calls_ends_by_itself(backend: Backend) {
    let (open, gate) = watch::channel(false);
    let rig = Rig::new(backend, move |_, _| Reply::status(200).gated(&gate)).await;
    // known before the first call
    set(&rig, "realtime", 1, Some(Duration::from_secs(20))).await;
    let ends_at = rig.now().plus(Duration::from_secs(20));
    let worker = rig.start();
    let jobs = publish(&rig, "realtime", "acme", &crm(), 8).await;
    until_calls(&rig, "a call", 1).await;
    pass(&rig, Duration::from_secs(10)).await;
    assert_eq!(rig.api.count(), 1);
    let calls = until_calls(&rig, "calls of the configured number", 4).await;
    assert!(calls[1..].iter().all(|seen| seen.at >= ends_at), "{calls:#?}");
    assert!(rig.now().since(ends_at) < FOLLOWS_WITHIN, "the clock ends it");
    let rows = rig.backing.store.concurrencies().await.expect("read");
    assert_eq!(rows.len(), 1, "nobody had to write anything");
    open.send(true).expect("the API listens");
    until_calls(&rig, "all calls", 8).await;
    all_done(&rig, &jobs).await;
    worker.stop().await;
}

async fn a_restart_keeps_a_number_of_calls_and_a_reset_ends_it(backend: Backend) {
    let (open, gate) = watch::channel(true);
    let rig = Rig::new(backend, move |_, _| Reply::status(200).gated(&gate)).await;
    let first = rig.start();
    set(&rig, "realtime", 1, None).await;
    let mut jobs = publish(&rig, "realtime", "early", &crm(), 3).await;
    until_calls(&rig, "the first calls", 3).await;
    first.stop().await;
    open.send(false).expect("the API listens");
    let second = rig.start();
    jobs.extend(publish(&rig, "realtime", "late", &crm(), 8).await);
    until_calls(&rig, "one call", 4).await;
    pass(&rig, Duration::from_secs(3)).await;
    assert_eq!(rig.api.count(), 4, "a worker that starts knows of it before its first call");
    reset(&rig, "realtime").await;
    let reset_at = rig.now();
    until_calls(&rig, "as many as configured", 7).await;
    assert!(rig.now().since(reset_at) < FOLLOWS_WITHIN, "{:?}", rig.now().since(reset_at));
    pass(&rig, Duration::from_secs(2)).await;
    assert_eq!(rig.api.count(), 7);
    open.send(true).expect("the API listens");
    until_calls(&rig, "all calls", 11).await;
    all_done(&rig, &jobs).await;
    second.stop().await;
}

async fn what_all_workers_may_call_together_stays(backend: Backend) {
    let (open, gate) = watch::channel(false);
    let rig = Rig::new(backend, move |_, _| Reply::status(200).gated(&gate)).await;
    let mut settings = rig.settings.clone();
    settings.lanes[1].global_concurrency = Some(5);
    let workers = [rig.start_with(settings.clone()), rig.start_with(settings)];
    let jobs = publish(&rig, "bulk", "acme", &crm(), 40).await;
    // one of them may have taken all there is
    until_calls(&rig, "calls of the configured number", 2).await;
    set(&rig, "bulk", 30, None).await;
    until_calls(&rig, "as many as all workers may make", 5).await;
    pass(&rig, Duration::from_secs(5)).await;
    assert_eq!((rig.api.count(), rig.api.most_inflight("bulk")), (5, 5));
    open.send(true).expect("the API listens");
    until_calls(&rig, "all calls", 40).await;
    all_done(&rig, &jobs).await;
    assert!(rig.api.most_inflight("bulk") <= 5);
    for worker in workers {
        worker.stop().await;
    }
}

async fn hurried(rig: &Rig, job: &Published) -> Hastened {
    let row = rig.row(job).await.expect("it has one");
    hurry::one(&*rig.backing.store, &row, &ada(), rig.now()).await.expect("answered")
}

async fn a_hurried_retry_is_called_at_once(backend: Backend) {
    let rig = Rig::new(backend, |_, nth| Reply::status(if nth == 1 { 503 } else { 200 })).await;
    let worker = rig.start();
    let job = rig.publish("bulk", "a").await;
    let row = rig.until_row(&job, "a retry", |row| row.state == State::Waiting).await;
    assert_eq!((row.reason.as_str(), row.resume_at), ("transient", Some(rig.now().plus(Duration::from_mins(2)))));
    // its releaser has looked, and sleeps until the next look
    pass(&rig, Duration::from_secs(3)).await;
    let asked_at = rig.now();
    assert_eq!(hurried(&rig, &job).await, Hastened::Hurried);
    let calls = until_calls(&rig, "the second call", 2).await;
    let waited = calls[1].at.since(asked_at);
    assert!(waited < FOLLOWS_WITHIN, "{waited:?} after an operator asked for it");
    assert_eq!(rig.until_state(&job, State::Done).await.attempt, 2);
    worker.stop().await;
}

async fn a_hurried_job_is_called_before_its_time(backend: Backend) {
    let rig = Rig::new(backend, |_, _| Reply::status(200)).await;
    let worker = rig.start();
    let meta = JobMeta { not_before: Some(rig.now().plus(Duration::from_hours(1))), ..JobMeta::default() };
    let job = rig.publisher.publish_one(NewJob { meta, ..new_job("bulk", "a") }).await.expect("confirmed");
    rig.until_row(&job, "the wait", |row| row.reason == "not_before").await;
    let asked_at = rig.now();
    assert_eq!(hurried(&rig, &job).await, Hastened::Hurried);
    let calls = until_calls(&rig, "the call", 1).await;
    assert!(calls[0].at.since(asked_at) < FOLLOWS_WITHIN, "{calls:#?}");
    all_done(&rig, &[job]).await;
    worker.stop().await;
}

async fn a_job_in_its_turn_is_not_hurried_past_its_budget(backend: Backend) {
    let rig = Rig::new(backend, |_, _| Reply::status(200)).await;
    let hour = Duration::from_hours(1);
    let limit = Limit { requests: 1, per: hour, burst: Some(1), scope: Scope::Tenant, headroom: 1.0 };
    let worker = rig.start_with(two_endpoints(EndpointBudget { limits: vec![limit], ..EndpointBudget::default() }));
    let jobs = publish(&rig, "bulk", "acme", &crm(), 2).await;
    until_calls(&rig, "the first call", 1).await;
    let done = rig.until_in_steps(STEP, "one that waits for its turn", async || {
        rig.rows().await.iter().any(|row| row.resume_at == Some(IN_TURN))
    });
    done.await;
    let mut answers = [hurried(&rig, &jobs[0]).await, hurried(&rig, &jobs[1]).await];
    answers.sort_by_key(|answer| *answer != Hastened::InTurn);
    assert_eq!(answers, [Hastened::InTurn, Hastened::Ended(State::Done)]);
    pass(&rig, Duration::from_secs(5)).await;
    assert_eq!(rig.api.count(), 1, "the API allows no more");
    rig.clock.advance(hour);
    until_calls(&rig, "the second call", 2).await;
    all_done(&rig, &jobs).await;
    worker.stop().await;
}

async fn a_hurried_job_of_a_paused_lane_goes_when_it_is_resumed(backend: Backend) {
    let rig = Rig::new(backend, |_, nth| Reply::status(if nth == 1 { 503 } else { 200 })).await;
    let worker = rig.start();
    let job = rig.publish("bulk", "a").await;
    rig.until_row(&job, "a retry", |row| row.state == State::Waiting).await;
    pause(&rig, &lane_of("bulk"), None).await;
    pass(&rig, Duration::from_secs(2)).await;
    assert_eq!(hurried(&rig, &job).await, Hastened::Hurried);
    pass(&rig, Duration::from_secs(3)).await;
    assert_eq!(rig.api.count(), 1, "it is due, and its lane is paused");
    resume(&rig, &lane_of("bulk")).await;
    until_calls(&rig, "the second call", 2).await;
    rig.until_state(&job, State::Done).await;
    worker.stop().await;
}
