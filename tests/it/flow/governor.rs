//! The governor: what answers teach is kept, blocks are probed by one, slots hold over all workers, an operator's word acts.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use lanes::clock::Timestamp;
use lanes::engine::settings::WorkerSettings;
use lanes::governor::operator::{self, Wish};
use lanes::job::budget::Account;
use lanes::job::control::{Source, Speaker};
use lanes::job::verdict::WaitReason;
use lanes::job::{JobMeta, Tenant};
use lanes::policy::circuit::CircuitRules;
use lanes::policy::limit::{Limit, Scope};
use lanes::policy::pacing::{Budgets, EndpointBudget};
use lanes::publish::{NewJob, Published};
use lanes::store::{IN_TURN, State};
use tokio::sync::watch;

use super::on_every_backend;
use super::rig::{Backend, Reply, Rig, Seen, crm, new_job, settings};

on_every_backend!(
    limits_that_answers_tell_are_kept_by_all_workers,
    an_outage_costs_no_job_its_attempts,
    a_probe_that_fails_ends_no_job,
    a_probe_is_a_call_where_the_publisher_counts_them,
    after_a_block_one_call_goes_first,
    slots_of_an_endpoint_hold_over_all_workers,
    slots_of_a_tenant_hold_nobody_else,
    slots_of_a_lane_hold_over_all_workers,
    limits_set_by_an_operator_act_on_jobs_that_wait,
    a_call_that_was_never_sent_costs_no_attempt,
    jobs_that_cost_more_take_longer,
    a_cold_start_sends_no_backlog_through_the_store,
);

/// How far the clock goes at a time: less than a token may be late.
const STEP: Duration = Duration::from_millis(50);

fn governed(budget: EndpointBudget) -> WorkerSettings {
    let budgets = Budgets { endpoints: HashMap::from([(crm(), budget)]), ..Budgets::default() };
    WorkerSettings { budgets: Arc::new(budgets), ..settings() }
}

fn limit(requests: u32, per: Duration) -> Limit {
    Limit { requests, per, burst: Some(1), scope: Scope::Tenant, headroom: 1.0 }
}

async fn publish(rig: &Rig, lane: &str, tenant: &str, jobs: usize) -> Vec<Published> {
    let tenant_name = Tenant::new(tenant).expect("a tenant");
    let job = |nth| NewJob { tenant: tenant_name.clone(), ..new_job(lane, &format!("{tenant}-{nth}")) };
    let answers = rig.publisher.publish((0..jobs).map(job).collect()).await;
    answers.into_iter().map(|answer| answer.expect("confirmed")).collect()
}

async fn until(rig: &Rig, what: &str, enough: impl Fn(&[Seen]) -> bool) -> Vec<Seen> {
    rig.until_in_steps(STEP, what, async || enough(&rig.api.calls())).await;
    rig.api.calls()
}

/// An API that lets so many calls pass in any second, tells so, and counts what it refuses.
fn announcing(most: usize) -> (impl Fn(&Seen, usize) -> Reply, Arc<AtomicUsize>) {
    let (let_in, refused) = (Mutex::new(VecDeque::<Timestamp>::new()), Arc::new(AtomicUsize::new(0)));
    let count = Arc::clone(&refused);
    let script = move |seen: &Seen, _| {
        let mut let_in = let_in.lock().expect("not poisoned");
        while let_in.front().is_some_and(|first| seen.at.since(*first) >= Duration::from_secs(1)) {
            let_in.pop_front();
        }
        let passes = let_in.len() < most;
        if passes {
            let_in.push_back(seen.at);
        } else {
            count.fetch_add(1, Ordering::Relaxed);
        }
        let left = u32::try_from(most - let_in.len()).expect("small");
        let reply = Reply::status(if passes { 200 } else { 429 });
        reply
            .header("x-ratelimit-limit", u32::try_from(most).expect("small"))
            .header("x-ratelimit-remaining", left)
            .header("x-ratelimit-reset", 1)
    };
    (script, refused)
}

async fn limits_that_answers_tell_are_kept_by_all_workers(backend: Backend) {
    let (script, refused) = announcing(20);
    let rig = Rig::new(backend, script).await;
    let jobs = publish(&rig, "bulk", "acme", 80).await;
    let started_at = rig.now();
    let workers =
        [rig.start_with(governed(EndpointBudget::default())), rig.start_with(governed(EndpointBudget::default()))];
    // without lessons three of four would be refused; how few it is in real time is measured by the benchmark
    until(&rig, "call of every job", |calls| calls.len() >= 80).await;
    let refused = refused.load(Ordering::Relaxed);
    assert!(refused <= 8, "{refused} of 80 calls were refused: nothing was learnt");
    rig.until_in_time("the end of every job", async || {
        rig.rows().await.iter().filter(|row| row.state == State::Done).count() == jobs.len()
    })
    .await;
    assert!(rig.now().since(started_at) >= Duration::from_secs(4), "80 at 16/s");
    for worker in workers {
        worker.stop().await;
    }
}

async fn an_outage_costs_no_job_its_attempts(backend: Backend) {
    const JOBS: usize = 5_000;
    let outage = Duration::from_mins(10);
    let down = Arc::new(AtomicBool::new(true));
    let is_down = Arc::clone(&down);
    let script = move |_: &Seen, _| Reply::status(if is_down.load(Ordering::Relaxed) { 503 } else { 200 });
    let rig = Rig::new(backend, script).await;
    let rules =
        CircuitRules { open: Duration::from_secs(10), open_max: Duration::from_mins(1), ..CircuitRules::default() };
    let pace = Limit { burst: Some(50), ..limit(1_000, Duration::from_secs(1)) };
    let mut settings = governed(EndpointBudget { limits: vec![pace], circuit: rules, ..EndpointBudget::default() });
    for lane in &mut settings.lanes {
        (lane.concurrency, lane.prefetch) = (100, 500);
    }
    let worker = rig.start_with(settings);
    publish(&rig, "bulk", "acme", JOBS).await;
    let began_at = rig.now();
    rig.until_in_steps(STEP, "a circuit that is open", async || {
        rig.rows().await.iter().any(|row| row.reason == WaitReason::Circuit.as_str())
    })
    .await;
    while rig.now().since(began_at) < outage {
        rig.pass(Duration::from_secs(1)).await;
    }
    let during = rig.api.count();
    // ten in a row, those beside them, and a probe after 10, 20, 40 s and each minute
    assert!(during <= 10 + 200 + 13, "{during} calls during the outage");
    assert_eq!(rig.letters().await, [], "no job was exhausted by waiting");
    down.store(false, Ordering::Relaxed);
    let up_at = rig.now();
    rig.until_count(Duration::from_millis(100), during + JOBS).await;
    let calls = rig.api.calls();
    let after: Vec<&Seen> = calls[during..].iter().collect();
    let first_second = after.iter().filter(|seen| seen.at.since(after[0].at) < Duration::from_secs(1)).count();
    assert!(first_second < 300, "{first_second} calls in the first second after the outage: a herd");
    assert!(after.last().expect("called").at.since(up_at) < Duration::from_mins(20));
    assert_eq!(rig.letters().await, []);
    worker.stop().await;
}

async fn a_probe_that_fails_ends_no_job(backend: Backend) {
    let down = Arc::new(AtomicBool::new(true));
    let is_down = Arc::clone(&down);
    let script = move |_: &Seen, _| Reply::status(if is_down.load(Ordering::Relaxed) { 503 } else { 200 });
    let rig = Rig::new(backend, script).await;
    let rules = CircuitRules { failures: 3, open: Duration::from_secs(10), open_max: Duration::from_secs(10) };
    let mut settings = governed(EndpointBudget { circuit: rules, ..EndpointBudget::default() });
    for lane in &mut settings.lanes {
        lane.retry.max_attempts = 1;
    }
    let worker = rig.start_with(settings);
    let jobs = publish(&rig, "bulk", "acme", 20).await;
    rig.until_in_steps(STEP, "an open circuit", async || {
        rig.rows().await.iter().any(|row| row.reason == WaitReason::Circuit.as_str())
    })
    .await;
    rig.until("the end of all that were called", async || rig.letters().await.len() == rig.api.count()).await;
    let died = rig.letters().await.len();
    assert!(died <= 5, "{died} died before the circuit opened: three, and those beside them");
    let before = rig.api.count();
    rig.until_in_steps(Duration::from_millis(500), "ten probes", async || rig.api.count() >= before + 10).await;
    assert_eq!(rig.letters().await.len(), died, "each of them had one attempt, and none died as a probe");
    down.store(false, Ordering::Relaxed);
    rig.until_in_time("the end of the others", async || {
        rig.rows().await.iter().filter(|row| row.state == State::Done).count() == jobs.len() - died
    })
    .await;
    worker.stop().await;
}

async fn a_probe_is_a_call_where_the_publisher_counts_them(backend: Backend) {
    let rig = Rig::new(backend, |_, _| Reply::status(503)).await;
    let rules = CircuitRules { failures: 3, open: Duration::from_secs(10), open_max: Duration::from_secs(10) };
    let worker = rig.start_with(governed(EndpointBudget { circuit: rules, ..EndpointBudget::default() }));
    for nth in 0..8 {
        let meta = JobMeta { max_attempts: Some(1), ..JobMeta::default() };
        let job = NewJob { meta, ..new_job("bulk", &format!("once-{nth}")) };
        rig.publisher.publish_one(job).await.expect("confirmed");
    }
    rig.until_in_steps(Duration::from_millis(500), "the end of all", async || rig.letters().await.len() == 8).await;
    assert_eq!(rig.api.count(), 8, "each was called once");
    worker.stop().await;
}

async fn after_a_block_one_call_goes_first(backend: Backend) {
    let (open, gate) = watch::channel(false);
    let rig = Rig::new(backend, move |seen, _| match seen.job_id.as_str() {
        "first" => Reply::status(429).header("retry-after", 30),
        _ => Reply::status(200).gated(&gate),
    })
    .await;
    let both =
        [rig.start_with(governed(EndpointBudget::default())), rig.start_with(governed(EndpointBudget::default()))];
    rig.publish("realtime", "first").await;
    rig.api.until_calls(1).await;
    rig.until("the row of the limited job", async || rig.rows().await.iter().any(|row| row.attempt == 1)).await;
    let told_at = rig.now();
    // the other worker knows within a second
    for _ in 0..100 {
        rig.pass(STEP).await;
    }
    publish(&rig, "bulk", "acme", 20).await;
    rig.until("jobs that wait for the end of the block", async || {
        let rows = rig.rows().await;
        rows.iter().filter(|row| row.reason == WaitReason::Cooldown.as_str() && row.resume_at == Some(IN_TURN)).count()
            == 20
    })
    .await;
    let calls = until(&rig, "the probe", |calls| calls.len() == 2).await;
    assert!(calls[1].at >= told_at.plus(Duration::from_secs(30)), "{:?}", calls[1]);
    for _ in 0..40 {
        rig.pass(STEP).await;
    }
    assert_eq!(rig.api.calls().len(), 2, "one call shows how things are; the others wait for it");
    open.send(true).expect("the API listens");
    until(&rig, "call of every job", |calls| calls.len() >= 21).await;
    for worker in both {
        worker.stop().await;
    }
}

async fn slots_of_an_endpoint_hold_over_all_workers(backend: Backend) {
    let (open, gate) = watch::channel(false);
    let rig = Rig::new(backend, move |_, _| Reply::status(200).gated(&gate)).await;
    let budget = EndpointBudget { max_concurrency: Some(3), ..EndpointBudget::default() };
    let workers = [rig.start_with(governed(budget.clone())), rig.start_with(governed(budget))];
    let jobs = publish(&rig, "realtime", "acme", 12).await;
    until(&rig, "calls in every slot", |calls| calls.len() == 3).await;
    rig.until_in_steps(STEP, "jobs that wait for a slot", async || {
        rig.rows().await.iter().filter(|row| row.reason == WaitReason::Concurrency.as_str()).count() >= 4
    })
    .await;
    for _ in 0..60 {
        rig.pass(STEP).await;
    }
    assert_eq!(rig.api.calls().len(), 3, "every slot is taken");
    open.send(true).expect("the API listens");
    until(&rig, "call of every job", |calls| calls.len() == 12).await;
    for job in &jobs {
        let row = rig.until_state(job, State::Done).await;
        assert_eq!(row.attempt, 1, "waiting for a slot spends no attempt");
    }
    assert!(rig.api.most_inflight("realtime") <= 3, "{} at a time", rig.api.most_inflight("realtime"));
    for worker in workers {
        worker.stop().await;
    }
}

async fn slots_of_a_tenant_hold_nobody_else(backend: Backend) {
    let (open, gate) = watch::channel(false);
    let script = move |seen: &Seen, _| {
        let reply = Reply::status(200);
        if seen.job_id.starts_with("acme") { reply.gated(&gate) } else { reply }
    };
    let rig = Rig::new(backend, script).await;
    let budget = EndpointBudget { max_concurrency_per_tenant: Some(1), ..EndpointBudget::default() };
    let worker = rig.start_with(governed(budget));
    publish(&rig, "bulk", "acme", 10).await;
    until(&rig, "the call in the tenant's slot", |calls| calls.len() == 1).await;
    publish(&rig, "bulk", "globex", 3).await;
    let calls = until(&rig, "calls of the other tenant", |calls| calls.len() == 4).await;
    assert_eq!(calls.iter().filter(|seen| seen.job_id.starts_with("acme")).count(), 1);
    open.send(true).expect("the API listens");
    until(&rig, "call of every job", |calls| calls.len() == 13).await;
    worker.stop().await;
}

async fn slots_of_a_lane_hold_over_all_workers(backend: Backend) {
    let (open, gate) = watch::channel(false);
    let rig = Rig::new(backend, move |_, _| Reply::status(200).gated(&gate)).await;
    let mut settings = settings();
    for lane in settings.lanes.iter_mut().filter(|lane| lane.name.as_str() == "bulk") {
        // so few in hand that both workers get some
        (lane.global_concurrency, lane.prefetch) = (Some(3), 3);
    }
    let workers = [rig.start_with(settings.clone()), rig.start_with(settings)];
    publish(&rig, "bulk", "acme", 10).await;
    until(&rig, "calls in every slot of the lane", |calls| calls.len() == 3).await;
    publish(&rig, "realtime", "acme", 4).await;
    until(&rig, "calls of the other lane", |calls| calls.iter().filter(|seen| seen.lane == "realtime").count() == 4)
        .await;
    for _ in 0..60 {
        rig.pass(STEP).await;
    }
    assert_eq!(rig.api.calls().iter().filter(|seen| seen.lane == "bulk").count(), 3);
    open.send(true).expect("the API listens");
    until(&rig, "call of every job", |calls| calls.len() == 14).await;
    assert!(rig.api.most_inflight("bulk") <= 3, "{} at a time", rig.api.most_inflight("bulk"));
    for worker in workers {
        worker.stop().await;
    }
}

async fn limits_set_by_an_operator_act_on_jobs_that_wait(backend: Backend) {
    let rig = Rig::new(backend, |_, _| Reply::status(200)).await;
    let hour = Duration::from_hours(1);
    let budget = EndpointBudget { limits: vec![limit(1, hour)], ..EndpointBudget::default() };
    let worker = rig.start_with(governed(budget));
    publish(&rig, "bulk", "acme", 40).await;
    rig.until_in_steps(STEP, "jobs that wait for their turn", async || {
        rig.rows().await.iter().filter(|row| row.resume_at == Some(IN_TURN)).count() == 39
    })
    .await;
    let account = Account { endpoint: crm(), tenant: Some(Tenant::new("acme").expect("a tenant")) };
    // for the same time as the configured one: what that left behind must not hold anybody
    let wish = Wish { limits: vec![(3_600 * 5, hour)], burst: Some(1), headroom: Some(1.0), shared: false };
    let (store, set_at) = (Arc::clone(&rig.backing.store), rig.now());
    let ends_at = set_at.plus(Duration::from_secs(3));
    let ada = Speaker::new("ada", Source::Cli);
    operator::set_limits(&*store, &account, &wish, &ada, set_at, Some(ends_at)).await.expect("set");
    let calls = until(&rig, "calls at the new pace", |calls| calls.len() >= 3).await;
    let waited = calls[1].at.since(set_at);
    assert!(waited < Duration::from_mins(5), "the new limit took {waited:?}");
    while rig.now() < ends_at.plus(Duration::from_secs(5)) {
        rig.pass(STEP).await;
    }
    let called = rig.api.calls().len();
    for _ in 0..60 {
        rig.pass(STEP).await;
    }
    assert_eq!(rig.api.calls().len(), called, "the configured limit counts again");
    assert!(called <= 1 + 1 + 5 * 4, "{called} calls in the three seconds of the new limit");
    worker.stop().await;
}

async fn a_call_that_was_never_sent_costs_no_attempt(backend: Backend) {
    let mut rig = Rig::new(backend, |_, _| Reply::status(200)).await;
    let url = std::mem::replace(&mut rig.api.url, "http://127.0.0.1:1/nobody".to_owned());
    let worker = rig.start();
    let job = rig.publish("realtime", "a").await;
    let row = rig.until_row(&job, "a retry", |row| row.reason == WaitReason::Transient.as_str()).await;
    assert_eq!((row.state, row.attempt), (State::Waiting, 0));
    worker.stop().await;
    rig.api.url = url;
    let worker = rig.start();
    rig.until_in_time("the call", async || rig.api.calls().len() == 1).await;
    let row = rig.until_state(&job, State::Done).await;
    assert_eq!(row.attempt, 1);
    worker.stop().await;
}

async fn jobs_that_cost_more_take_longer(backend: Backend) {
    let rig = Rig::new(backend, |_, _| Reply::status(200)).await;
    let limits = vec![limit(10, Duration::from_secs(1))];
    let began_at = rig.now();
    let worker = rig.start_with(governed(EndpointBudget { limits, cost: 5, ..EndpointBudget::default() }));
    publish(&rig, "bulk", "acme", 8).await;
    let calls = until(&rig, "call of every job", |calls| calls.len() == 8).await;
    let took = calls[7].at.since(began_at);
    assert!(took >= Duration::from_millis(3_500), "seven times half a second: {took:?}");
    worker.stop().await;
}

/// Of an endpoint of which nothing is known the first calls are few. Their answers come soon: only what was in hand waits in
/// the store for them, not the whole import.
async fn a_cold_start_sends_no_backlog_through_the_store(backend: Backend) {
    const JOBS: usize = 600;
    let (open, gate) = watch::channel(false);
    let rig = Rig::new(backend, move |_, _| Reply::status(200).gated(&gate)).await;
    publish(&rig, "bulk", "acme", JOBS).await;
    let mut settings = governed(EndpointBudget::default());
    for lane in &mut settings.lanes {
        lane.concurrency = 20; // more than the first calls
    }
    let worker = rig.start_with(settings);
    rig.api.until_calls(5).await;
    for _ in 0..4 {
        rig.pass(STEP).await;
    }
    open.send(true).expect("the API listens");
    rig.until_count(STEP, JOBS).await;
    rig.until_in_time("the end of all", async || rig.telemetry.settled().done == JOBS as u64).await;
    let parked = rig.telemetry.settled().wait;
    assert!(parked < 150, "{parked} of {JOBS} jobs waited in the store");
    worker.stop().await;
}
