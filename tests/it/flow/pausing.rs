//! Operators hold lanes, endpoints and tenants back: what is paused is not called, everything else goes on, nothing is lost
//! and no attempt is spent.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use lanes::clock::Timestamp;
use lanes::engine::settings::WorkerSettings;
use lanes::governor::view::hold_of;
use lanes::governor::{Governor, operator, sync};
use lanes::job::control::{Source, Speaker, Target};
use lanes::job::verdict::WaitReason;
use lanes::job::{EndpointName, Tenant, wire};
use lanes::policy::circuit::CircuitRules;
use lanes::policy::limit::{Limit, Scope};
use lanes::policy::pacing::{Budgets, EndpointBudget, Learn};
use lanes::publish::{NewJob, Published};
use lanes::store::{AuditFilter, IN_TURN, JobRow, State};
use tokio::sync::watch;

use super::on_every_backend;
use super::rig::{Backend, Reply, Rig, Seen, crm, lane, new_job, settings};
use super::weather::{self, Asked, Weather};

on_every_backend!(
    a_paused_lane_calls_nothing_and_goes_on_when_it_is_resumed,
    a_pause_with_an_end_ends_by_itself,
    calls_in_flight_finish_and_what_was_owned_comes_back_uncounted,
    nothing_is_released_in_a_paused_lane,
    a_paused_endpoint_holds_its_own_jobs_alone,
    a_paused_tenant_holds_nobody_else,
    after_a_pause_jobs_go_at_the_pace_of_their_budget,
    a_stop_while_paused_loses_nothing,
    the_dead_are_buried_in_a_paused_lane_too,
);

/// How far the clock goes at a time: less than a token may be late.
pub(super) const STEP: Duration = Duration::from_millis(50);

pub(super) fn lane_of(name: &str) -> Target {
    Target::Lane(lane(name))
}

pub(super) fn ada() -> Speaker {
    Speaker::new("ada", Source::Cli).because("the CRM is being moved")
}

pub(super) async fn pause(rig: &Rig, target: &Target, lasts: Option<Duration>) {
    let (now, store) = (rig.now(), &*rig.backing.store);
    operator::pause(store, target, lasts.map(|lasts| now.plus(lasts)), &ada(), now).await.expect("paused");
}

pub(super) async fn resume(rig: &Rig, target: &Target) {
    let resumed = operator::resume(&*rig.backing.store, target, &ada(), rig.now()).await.expect("answered");
    assert!(resumed.is_some(), "{target} was paused");
}

pub(super) async fn publish(rig: &Rig, lane: &str, name: &str, endpoint: &EndpointName, jobs: usize) -> Vec<Published> {
    let tenant = Tenant::new(name).expect("a tenant");
    let job = |nth| NewJob {
        tenant: tenant.clone(),
        endpoint: endpoint.clone(),
        ..new_job(lane, &format!("{endpoint}-{name}-{nth}"))
    };
    let answers = rig.publisher.publish((0..jobs).map(job).collect()).await;
    answers.into_iter().map(|answer| answer.expect("confirmed")).collect()
}

/// Consumers of a lane's queues.
async fn consumers(rig: &Rig, name: &str) -> u64 {
    let mut all = 0;
    for queue in [wire::queue(&lane(name)), wire::due_queue(&lane(name))] {
        all += rig.backing.broker.depth(&queue).await.expect("answers").map_or(0, |depth| depth.consumers);
    }
    all
}

/// Waits, while the clock goes on, until nobody consumes a lane.
async fn until_resting(rig: &Rig, name: &str) {
    rig.until_in_steps(STEP, "lane that rests", async || consumers(rig, name).await == 0).await;
}

async fn until_consuming(rig: &Rig, name: &str, workers: u64) {
    rig.until("lane that consumes", async || consumers(rig, name).await == 2 * workers).await;
}

/// A worker's store, and how often it was asked what is paused.
fn watched(rig: &Rig) -> (Arc<Weather>, Arc<AtomicUsize>) {
    let (store, looks) = (Weather::before(&rig.backing.store), Arc::new(AtomicUsize::new(0)));
    let count = Arc::clone(&looks);
    store.turns(Arc::new(move |asked| {
        count.fetch_add(usize::from(matches!(asked, Asked::Controls)), Ordering::Relaxed);
        weather::ready(Ok(()))
    }));
    (store, looks)
}

/// Waits, while the clock goes on, until the worker has heard what is written now: the next look is over when the one after
/// it begins.
async fn until_heard(rig: &Rig, looks: &AtomicUsize) {
    let before = looks.load(Ordering::Relaxed);
    rig.until_in_steps(STEP, "two looks", async || looks.load(Ordering::Relaxed) >= before + 2).await;
}

/// Lets the clock go on in steps.
pub(super) async fn pass(rig: &Rig, time: Duration) {
    let end = rig.now().plus(time);
    while rig.now() < end {
        rig.pass(STEP).await;
    }
}

pub(super) async fn until_calls(rig: &Rig, what: &str, count: usize) -> Vec<Seen> {
    rig.until_in_steps(STEP, what, async || rig.api.count() >= count).await;
    rig.api.calls()
}

/// Every job has ended well, after one call.
pub(super) async fn all_done(rig: &Rig, jobs: &[Published]) {
    for job in jobs {
        let row = rig.until_state(job, State::Done).await;
        assert_eq!((row.attempt, row.takeovers), (1, 0), "{row:#?}");
    }
    assert_eq!(rig.api.count(), jobs.len(), "each once");
    assert_eq!(rig.letters().await, []);
}

fn paused(rows: &[JobRow]) -> Vec<&JobRow> {
    rows.iter().filter(|row| row.reason == WaitReason::Paused.as_str()).collect()
}

async fn a_paused_lane_calls_nothing_and_goes_on_when_it_is_resumed(backend: Backend) {
    let rig = Rig::new(backend, |_, _| Reply::status(200)).await;
    let workers = [rig.start(), rig.start()];
    until_consuming(&rig, "realtime", 2).await;
    pause(&rig, &lane_of("realtime"), None).await;
    until_resting(&rig, "realtime").await;
    let mut jobs = publish(&rig, "realtime", "acme", &crm(), 5).await;
    let others = publish(&rig, "bulk", "acme", &crm(), 3).await;
    until_calls(&rig, "calls of the other lane", 3).await;
    pass(&rig, Duration::from_secs(5)).await;
    assert!(rig.api.calls().iter().all(|seen| seen.lane == "bulk"), "{:#?}", rig.api.calls());
    assert_eq!(rig.ready(&wire::queue(&lane("realtime"))).await, 5, "they stay in the broker");
    assert!(rig.rows().await.iter().all(|row| row.lane == lane("bulk")));
    resume(&rig, &lane_of("realtime")).await;
    until_calls(&rig, "calls after the pause", 8).await;
    jobs.extend(others);
    all_done(&rig, &jobs).await;
    for worker in workers {
        worker.stop().await;
    }
    let lines = rig.backing.store.audit(&AuditFilter::default(), 10).await.expect("read");
    let told: Vec<_> = lines.iter().map(|row| (row.entry.action.as_str(), row.entry.after.as_str())).collect();
    assert_eq!(told, [("resume", "not paused"), ("pause", "paused until resumed")]);
    assert!(lines.iter().all(|row| row.entry.actor == "ada" && row.entry.target == "lane realtime"));
}

async fn a_pause_with_an_end_ends_by_itself(backend: Backend) {
    let rig = Rig::new(backend, |_, _| Reply::status(200)).await;
    // known before the first call
    pause(&rig, &lane_of("realtime"), Some(Duration::from_secs(20))).await;
    let ends_at = rig.now().plus(Duration::from_secs(20));
    let worker = rig.start();
    let jobs = publish(&rig, "realtime", "acme", &crm(), 6).await;
    pass(&rig, Duration::from_secs(10)).await;
    assert_eq!(rig.api.count(), 0);
    let calls = until_calls(&rig, "calls after the pause", 6).await;
    assert!(calls.iter().all(|seen| seen.at >= ends_at), "{calls:#?}");
    all_done(&rig, &jobs).await;
    let rows = rig.backing.store.controls().await.expect("read");
    assert_eq!(rows.len(), 1, "nobody had to write anything");
    worker.stop().await;
}

async fn calls_in_flight_finish_and_what_was_owned_comes_back_uncounted(backend: Backend) {
    let (open, gate) = watch::channel(false);
    let rig = Rig::new(backend, move |_, _| Reply::status(200).gated(&gate)).await;
    // of three slots each one that frees up is claimed for at once, however the messages arrive
    let mut settings = rig.settings.clone();
    settings.lanes[0].concurrency = 3;
    let worker = rig.start_with(settings);
    let jobs = publish(&rig, "realtime", "acme", &crm(), 20).await;
    rig.api.until_calls(3).await;
    rig.until("claims of all that may be owned", async || rig.rows().await.len() == 6).await;
    pause(&rig, &lane_of("realtime"), None).await;
    rig.until_in_steps(STEP, "jobs given back", async || paused(&rig.rows().await).len() == 3).await;
    let queue = wire::queue(&lane("realtime"));
    rig.until_in_steps(STEP, "messages given back", async || rig.ready(&queue).await == 14).await;
    let rows = rig.rows().await;
    assert!(paused(&rows).iter().all(|row| row.state == State::Waiting && row.attempt == 0), "{rows:#?}");
    let hold = hold(&rig, paused(&rows)[0]).await.expect("it is held back");
    assert_eq!((hold.0, hold.1), (WaitReason::Paused, None));
    assert_eq!(hold.2, "lane realtime is paused by ada, until it is resumed: the CRM is being moved");
    open.send(true).expect("the API listens");
    rig.until_in_steps(STEP, "calls that finish", async || {
        rig.rows().await.iter().filter(|row| row.state == State::Done).count() == 3
    })
    .await;
    pass(&rig, Duration::from_secs(3)).await;
    assert_eq!(rig.api.count(), 3, "nothing else is called");
    resume(&rig, &lane_of("realtime")).await;
    until_calls(&rig, "calls after the pause", 20).await;
    all_done(&rig, &jobs).await;
    worker.stop().await;
}

/// What holds a job back, as people are shown it.
async fn hold(rig: &Rig, row: &JobRow) -> Option<(WaitReason, Option<Timestamp>, String)> {
    let (governor, store) = (Governor::observer(Budgets::default()), &*rig.backing.store);
    sync::round(&governor, store, rig.now(), Timestamp::EPOCH).await.expect("answered");
    let hold = hold_of(&governor, store, row, rig.now()).await.expect("answered");
    hold.map(|hold| (hold.reason, hold.until, hold.why))
}

async fn nothing_is_released_in_a_paused_lane(backend: Backend) {
    let rig = Rig::new(backend, |_, nth| Reply::status(if nth == 1 { 503 } else { 200 })).await;
    let worker = rig.start();
    let job = rig.publish("realtime", "a").await;
    rig.until_row(&job, "a retry", |row| row.state == State::Waiting).await;
    pause(&rig, &lane_of("realtime"), None).await;
    until_resting(&rig, "realtime").await;
    let row = rig.row(&job).await.expect("is there");
    assert!(hold(&rig, &row).await.is_some_and(|hold| hold.0 == WaitReason::Paused));
    rig.until_in_time("time of the retry", async || row.resume_at.is_some_and(|at| at < rig.now())).await;
    for _ in 0..5 {
        rig.pass_a_second().await;
    }
    let row = rig.row(&job).await.expect("is there");
    assert_eq!((row.state, row.reason.as_str(), row.attempt), (State::Waiting, "transient", 1));
    resume(&rig, &lane_of("realtime")).await;
    until_calls(&rig, "the second call", 2).await;
    assert_eq!(rig.until_state(&job, State::Done).await.attempt, 2);
    worker.stop().await;
}

fn erp() -> EndpointName {
    EndpointName::new("erp").expect("a legal endpoint name")
}

/// Settings with a second endpoint, and budgets for the first one.
pub(super) fn two_endpoints(of_crm: EndpointBudget) -> WorkerSettings {
    let mut settings = settings();
    let same = settings.endpoints[&crm()].clone();
    settings.endpoints.insert(erp(), same);
    let plain = EndpointBudget { learn: Learn::Off, circuit: CircuitRules::NEVER, ..EndpointBudget::default() };
    let endpoints = HashMap::from([(erp(), plain.clone()), (crm(), EndpointBudget { learn: Learn::Off, ..of_crm })]);
    WorkerSettings { budgets: Arc::new(Budgets { endpoints, ..Budgets::default() }), ..settings }
}

async fn a_paused_endpoint_holds_its_own_jobs_alone(backend: Backend) {
    let (open, gate) = watch::channel(false);
    let script = move |seen: &Seen, _| {
        let reply = Reply::status(200);
        if seen.job_id.contains("early") { reply.gated(&gate) } else { reply }
    };
    let rig = Rig::new(backend, script).await;
    let (store, looks) = watched(&rig);
    let worker = rig.start_before(two_endpoints(EndpointBudget::default()), &store);
    // two in flight and two owned when the pause comes
    let mut jobs = publish(&rig, "bulk", "early", &crm(), 4).await;
    until_calls(&rig, "calls in flight", 2).await;
    pause(&rig, &Target::Endpoint(crm()), None).await;
    until_heard(&rig, &looks).await;
    jobs.extend(publish(&rig, "bulk", "acme", &crm(), 30).await);
    jobs.extend(publish(&rig, "bulk", "acme", &erp(), 5).await);
    rig.until_in_steps(STEP, "jobs that wait for the end of the pause", async || paused(&rig.rows().await).len() == 30)
        .await;
    open.send(true).expect("the API listens");
    until_calls(&rig, "calls of the other endpoint", 2 + 5).await;
    rig.until_in_steps(STEP, "all of the paused ones", async || paused(&rig.rows().await).len() == 32).await;
    pass(&rig, Duration::from_secs(3)).await;
    let calls = rig.api.calls();
    let of_crm = calls.iter().filter(|seen| seen.job_id.starts_with("crm")).count();
    assert_eq!((of_crm, calls.len()), (2, 7), "{calls:#?}");
    let rows = rig.rows().await;
    let held = paused(&rows);
    assert!(held.iter().all(|row| row.resume_at == Some(IN_TURN) && row.attempt == 0), "{held:#?}");
    let why = hold(&rig, held[0]).await.expect("it is held back").2;
    assert!(why.starts_with("endpoint crm is paused by ada"), "{why}");
    resume(&rig, &Target::Endpoint(crm())).await;
    until_calls(&rig, "calls after the pause", jobs.len()).await;
    all_done(&rig, &jobs).await;
    worker.stop().await;
}

async fn a_paused_tenant_holds_nobody_else(backend: Backend) {
    let rig = Rig::new(backend, |_, _| Reply::status(200)).await;
    let (store, looks) = watched(&rig);
    let worker = rig.start_before(two_endpoints(EndpointBudget::default()), &store);
    let acme = Tenant::new("acme").expect("a tenant");
    let (everywhere, at_erp) =
        (Target::Tenant(acme), Target::TenantAt(erp(), Tenant::new("globex").expect("a tenant")));
    pause(&rig, &everywhere, None).await;
    pause(&rig, &at_erp, Some(Duration::from_hours(1))).await;
    until_heard(&rig, &looks).await;
    let mut jobs = Vec::new();
    for tenant in ["acme", "globex"] {
        for endpoint in [crm(), erp()] {
            jobs.extend(publish(&rig, "bulk", tenant, &endpoint, 3).await);
        }
    }
    until_calls(&rig, "calls of whoever is not paused", 3).await;
    rig.until_in_steps(STEP, "jobs that wait", async || paused(&rig.rows().await).len() == 9).await;
    pass(&rig, Duration::from_secs(2)).await;
    assert!(rig.api.calls().iter().all(|seen| seen.job_id.starts_with("crm-globex")), "{:#?}", rig.api.calls());
    resume(&rig, &everywhere).await;
    until_calls(&rig, "calls of the tenant", 9).await;
    assert!(rig.api.calls().iter().all(|seen| !seen.job_id.starts_with("erp-globex")));
    resume(&rig, &at_erp).await;
    until_calls(&rig, "calls of the other one", 12).await;
    all_done(&rig, &jobs).await;
    worker.stop().await;
}

async fn after_a_pause_jobs_go_at_the_pace_of_their_budget(backend: Backend) {
    let rig = Rig::new(backend, |_, _| Reply::status(200)).await;
    let second = Duration::from_secs(1);
    let limit = Limit { requests: 4, per: second, burst: Some(1), scope: Scope::Tenant, headroom: 1.0 };
    pause(&rig, &Target::Endpoint(crm()), None).await;
    let worker = rig.start_with(two_endpoints(EndpointBudget { limits: vec![limit], ..EndpointBudget::default() }));
    let jobs = publish(&rig, "bulk", "acme", &crm(), 12).await;
    rig.until_in_steps(STEP, "jobs that wait", async || paused(&rig.rows().await).len() == 12).await;
    pass(&rig, Duration::from_secs(20)).await;
    assert_eq!(rig.api.count(), 0);
    resume(&rig, &Target::Endpoint(crm())).await;
    let calls = until_calls(&rig, "calls after the pause", 12).await;
    let took = calls[11].at.since(calls[0].at);
    assert!(took >= Duration::from_millis(2_500), "what was not called meanwhile is not made up for: {took:?}");
    all_done(&rig, &jobs).await;
    worker.stop().await;
}

async fn a_stop_while_paused_loses_nothing(backend: Backend) {
    let (open, gate) = watch::channel(false);
    let rig = Rig::new(backend, move |_, _| Reply::status(200).gated(&gate)).await;
    // of three slots each one that frees up is claimed for at once, however the messages arrive
    let mut settings = rig.settings.clone();
    settings.lanes[0].concurrency = 3;
    let first = rig.start_with(settings);
    let jobs = publish(&rig, "realtime", "acme", &crm(), 20).await;
    rig.api.until_calls(3).await;
    rig.until("claims of all that may be owned", async || rig.rows().await.len() == 6).await;
    pause(&rig, &lane_of("realtime"), None).await;
    rig.until_in_steps(STEP, "jobs given back", async || paused(&rig.rows().await).len() == 3).await;
    first.ask_to_stop();
    open.send(true).expect("the API listens");
    first.ended().await;
    let second = rig.start();
    pass(&rig, Duration::from_secs(3)).await;
    assert_eq!(rig.api.count(), 3, "a worker that starts knows of the pause before its first call");
    second.stop().await;
    let third = rig.start();
    resume(&rig, &lane_of("realtime")).await;
    until_calls(&rig, "calls after the pause", 20).await;
    all_done(&rig, &jobs).await;
    third.stop().await;
}

async fn the_dead_are_buried_in_a_paused_lane_too(backend: Backend) {
    let (_closed, gate) = watch::channel(false);
    let rig = Rig::new(backend, move |_, nth| {
        let reply = Reply::status(200);
        if nth == 1 { reply.gated(&gate) } else { reply }
    })
    .await;
    let short = WorkerSettings { lease: Duration::from_secs(15), ..settings() };
    let dies = rig.start_with(short.clone());
    let job = rig.publish("realtime", "a").await;
    rig.api.until_calls(1).await;
    pause(&rig, &lane_of("realtime"), None).await;
    dies.abort();
    let lives = rig.start_with(short);
    rig.until("the other worker", async || rig.backing.store.workers().await.expect("answers").len() == 2).await;
    rig.until_taken_over(&job, 1).await;
    let row = rig.row(&job).await.expect("is there");
    assert_eq!((row.state, row.effect_possible), (State::Queued, true));
    pass(&rig, Duration::from_secs(3)).await;
    assert_eq!(rig.api.count(), 1);
    assert!(hold(&rig, &row).await.is_some_and(|hold| hold.0 == WaitReason::Paused));
    resume(&rig, &lane_of("realtime")).await;
    rig.until_with_clock("the second call", |seen| seen.len() == 2).await;
    assert_eq!(rig.until_state(&job, State::Done).await.takeovers, 1);
    lives.stop().await;
}

/// Calls of the store that a worker with nothing to do but to look whether it may go on makes in a second, at most: two
/// lanes, what is known of accounts and pauses four times, and what belongs to no lane.
const CALLS_A_SECOND_MAX: usize = 20;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_paused_worker_is_at_rest() {
    let rig = Rig::new(Backend::Sqlite, |_, _| Reply::status(200)).await;
    let store = Weather::before(&rig.backing.store);
    let asked = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&asked);
    store.turns(Arc::new(move |_| {
        count.fetch_add(1, Ordering::Relaxed);
        weather::ready(Ok(()))
    }));
    publish(&rig, "realtime", "acme", &crm(), 20).await;
    publish(&rig, "bulk", "acme", &crm(), 20).await;
    for name in ["realtime", "bulk"] {
        pause(&rig, &lane_of(name), Some(Duration::from_hours(10))).await;
    }
    let worker = rig.start_before(rig.settings.clone(), &store);
    pass(&rig, Duration::from_secs(2)).await;
    let (before, seconds) = (asked.load(Ordering::Relaxed), 20);
    pass(&rig, Duration::from_secs(seconds)).await;
    let calls = asked.load(Ordering::Relaxed) - before;
    let most = CALLS_A_SECOND_MAX * usize::try_from(seconds).expect("few");
    assert!(calls <= most, "{calls} calls of the store in {seconds} s");
    assert_eq!((rig.api.count(), rig.rows().await.len()), (0, 0));
    worker.stop().await;
    assert_eq!(rig.ready(&wire::queue(&lane("realtime"))).await, 20);
}

/// RabbitMQ gives up by itself what was delivered too often; without a word of ours after twenty times.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_pauses_are_no_reason_for_the_broker_to_give_jobs_up() {
    let (open, gate) = watch::channel(false);
    let rig = Rig::new(Backend::Rabbit, move |_, _| Reply::status(200).gated(&gate)).await;
    let worker = rig.start();
    let jobs = publish(&rig, "realtime", "acme", &crm(), 40).await;
    until_calls(&rig, "calls in flight", 4).await;
    let queue = wire::queue(&lane("realtime"));
    for _ in 0..30 {
        rig.until_in_steps(STEP, "messages in hand", async || rig.ready(&queue).await == 0).await;
        pause(&rig, &lane_of("realtime"), None).await;
        rig.until_in_steps(STEP, "messages given back", async || rig.ready(&queue).await >= 20).await;
        resume(&rig, &lane_of("realtime")).await;
    }
    open.send(true).expect("the API listens");
    until_calls(&rig, "all calls", jobs.len()).await;
    all_done(&rig, &jobs).await;
    assert_eq!(rig.ready("lanes.dead").await, 0);
    worker.stop().await;
}
