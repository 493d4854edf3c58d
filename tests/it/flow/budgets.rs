//! Budgets: never more calls than allowed, nobody held up by somebody else's limit, waiting that costs nothing.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use lanes::clock::Timestamp;
use lanes::engine::settings::WorkerSettings;
use lanes::job::Tenant;
use lanes::job::verdict::WaitReason;
use lanes::policy::limit::{Limit, Scope};
use lanes::policy::pacing::{Budgets, EndpointBudget};
use lanes::publish::{NewJob, Published};
use lanes::store::{IN_TURN, State};

use super::on_every_backend;
use super::rig::{Backend, Reply, Rig, Seen, crm, lane, new_job, settings};

on_every_backend!(
    calls_keep_to_the_budget_and_waiting_spends_no_attempt,
    two_workers_share_one_budget,
    a_burst_is_used_at_once,
    a_throttled_tenant_holds_up_nobody_else,
    who_may_not_be_called_takes_no_token,
    realtime_has_its_reserve,
    realtime_goes_first_beyond_its_reserve,
    a_retry_after_stops_everybody_of_that_budget,
    a_limit_that_was_taken_away_holds_nobody,
    a_stop_gives_back_who_waits_for_tokens,
);

/// How far the clock goes at a time: less than a token may be late.
const STEP: Duration = Duration::from_millis(50);

fn limited(requests: u32, per: Duration, burst: u32, scope: Scope, reserve: f64) -> WorkerSettings {
    let limit = Limit { requests, per, burst: Some(burst), scope, headroom: 1.0 };
    let budgets = Budgets {
        endpoints: HashMap::from([(crm(), EndpointBudget { limits: vec![limit], ..EndpointBudget::default() })]),
        reserves: vec![(lane("realtime"), reserve)],
        ..Budgets::default()
    };
    WorkerSettings { budgets: Arc::new(budgets), ..settings() }
}

async fn publish(rig: &Rig, lane: &str, tenant: &str, jobs: usize) -> Vec<Published> {
    let mut published = Vec::new();
    for nth in 0..jobs {
        let job = new_job(lane, &format!("{tenant}-{nth}"));
        let job = NewJob { tenant: Tenant::new(tenant).expect("a tenant"), ..job };
        published.push(rig.publisher.publish_one(job).await.expect("confirmed"));
    }
    published
}

/// Lets time go on until the calls satisfy `enough`.
async fn until(rig: &Rig, what: &str, enough: impl Fn(&[Seen]) -> bool) -> Vec<Seen> {
    rig.until_in_steps(STEP, what, async || enough(&rig.api.calls())).await;
    rig.api.calls()
}

fn of<'a>(calls: &'a [Seen], tenant: &str) -> Vec<&'a Seen> {
    calls.iter().filter(|seen| seen.job_id.starts_with(tenant)).collect()
}

/// In no time more than `burst`, and one for each `interval`.
fn assert_paced(calls: &[Seen], interval: Duration, burst: usize) {
    for (nth, first) in calls.iter().enumerate() {
        for (count, last) in calls[nth..].iter().enumerate() {
            let span = last.at.since(first.at);
            let most = burst as u128 + span.as_micros() / interval.as_micros();
            // the clock goes on in steps: a call may be seen one step after its time
            let most = most + STEP.as_micros().div_ceil(interval.as_micros());
            assert!(count as u128 <= most, "{} calls in {span:?}, at most {most}", count + 1);
        }
    }
}

async fn calls_keep_to_the_budget_and_waiting_spends_no_attempt(backend: Backend) {
    let rig = Rig::new(backend, |_, _| Reply::status(200)).await;
    let jobs = publish(&rig, "bulk", "acme", 30).await;
    let worker = rig.start_with(limited(60, Duration::from_mins(1), 5, Scope::Tenant, 0.0));
    rig.until("jobs that wait for their turn", async || {
        rig.rows().await.iter().filter(|row| row.reason == WaitReason::Budget.as_str()).count() >= 20
    })
    .await;
    let waiting = rig.rows().await.into_iter().find(|row| row.state == State::Waiting).expect("one waits");
    assert_eq!((waiting.resume_at, waiting.attempt), (Some(IN_TURN), 0));

    let calls = until(&rig, "call of every job", |calls| calls.len() == 30).await;
    assert_paced(&calls, Duration::from_secs(1), 5);
    for job in &jobs {
        let row = rig.until_state(job, State::Done).await;
        assert_eq!((row.attempt, row.takeovers), (1, 0));
    }
    worker.stop().await;
    assert_eq!(rig.api.calls().len(), 30, "each once");
}

async fn two_workers_share_one_budget(backend: Backend) {
    let rig = Rig::new(backend, |_, _| Reply::status(200)).await;
    let settings = limited(120, Duration::from_mins(1), 2, Scope::Endpoint, 0.0);
    let workers = [rig.start_with(settings.clone()), rig.start_with(settings)];
    publish(&rig, "bulk", "acme", 15).await;
    publish(&rig, "realtime", "globex", 15).await;
    let calls = until(&rig, "call of every job", |calls| calls.len() == 30).await;
    assert_paced(&calls, Duration::from_millis(500), 2);
    for worker in workers {
        worker.stop().await;
    }
    assert_eq!(rig.api.calls().len(), 30, "each once");
}

async fn a_burst_is_used_at_once(backend: Backend) {
    let rig = Rig::new(backend, |_, _| Reply::status(200)).await;
    publish(&rig, "realtime", "acme", 8).await;
    let worker = rig.start_with(limited(60, Duration::from_mins(1), 5, Scope::Tenant, 0.0));
    rig.api.until("the burst, while the clock stands still", |calls| calls.len() == 5).await;
    worker.stop().await;
    assert_eq!(rig.api.calls().len(), 5);
}

async fn who_may_not_be_called_takes_no_token(backend: Backend) {
    let rig = Rig::new(backend, |_, _| Reply::status(200)).await;
    for nth in 0..5 {
        let mut later = new_job("realtime", &format!("later-{nth}"));
        later.meta.not_before = Some(rig.now().plus(Duration::from_hours(1)));
        rig.publisher.publish_one(later).await.expect("confirmed");
    }
    let worker = rig.start_with(limited(1, Duration::from_hours(24), 1, Scope::Tenant, 0.0));
    rig.until("jobs that wait for their time", async || {
        rig.rows().await.iter().filter(|row| row.reason == WaitReason::NotBefore.as_str()).count() == 5
    })
    .await;
    rig.publish("realtime", "now").await;
    rig.api.until("the one token's call", |calls| calls.iter().any(|seen| seen.job_id == "now")).await;
    worker.stop().await;
}

async fn a_throttled_tenant_holds_up_nobody_else(backend: Backend) {
    let rig = Rig::new(backend, |_, _| Reply::status(200)).await;
    let acme = publish(&rig, "bulk", "acme", 100).await;
    publish(&rig, "bulk", "globex", 1).await;
    let worker = rig.start_with(limited(1, Duration::from_hours(1), 1, Scope::Tenant, 0.0));
    rig.api.until("the other tenant's call, without any time", |calls| of(calls, "globex").len() == 1).await;
    assert!(of(&rig.api.calls(), "acme").len() <= 1);
    worker.stop().await;
    let mut waiting = 0;
    for job in &acme {
        let row = rig.row(job).await;
        waiting += usize::from(row.is_none_or(|row| row.state != State::Done));
    }
    assert!(waiting >= 99);
}

async fn realtime_has_its_reserve(backend: Backend) {
    let rig = Rig::new(backend, |_, _| Reply::status(200)).await;
    publish(&rig, "bulk", "acme", 60).await;
    let worker = rig.start_with(limited(60, Duration::from_mins(1), 1, Scope::Tenant, 0.5));
    until(&rig, "saturated import", |calls| calls.len() == 14).await;
    let asked_at = rig.now();
    publish(&rig, "realtime", "acme", 1).await;
    let calls = until(&rig, "real-time call", |calls| calls.iter().any(|seen| seen.lane == "realtime")).await;
    let called = calls.iter().find(|seen| seen.lane == "realtime").expect("called");
    assert!(called.at.since(asked_at) < Duration::from_secs(2), "waited {:?}", called.at.since(asked_at));
    worker.stop().await;
    let bulk: Vec<Seen> = rig.api.calls().into_iter().filter(|seen| seen.lane == "bulk").collect();
    assert_paced(&bulk, Duration::from_secs(2), 1);
}

async fn realtime_goes_first_beyond_its_reserve(backend: Backend) {
    let rig = Rig::new(backend, |_, _| Reply::status(200)).await;
    publish(&rig, "bulk", "acme", 60).await;
    let worker = rig.start_with(limited(60, Duration::from_mins(1), 1, Scope::Tenant, 0.1));
    until(&rig, "saturated import", |calls| calls.len() == 6).await;
    publish(&rig, "realtime", "acme", 8).await;
    let realtime = |calls: &[Seen]| calls.iter().filter(|seen| seen.lane == "realtime").count();
    let calls = until(&rig, "real-time calls", |calls| realtime(calls) == 8).await;
    let bulk = calls.len() - 6 - 8;
    // one each ten seconds is theirs; what goes beyond it they take before bulk does
    assert!(bulk <= 3, "{bulk} calls of bulk went before real-time jobs");
    until(&rig, "what is left", |calls| calls.len() >= 6 + bulk + 8 + 3).await;
    worker.stop().await;
}

async fn a_retry_after_stops_everybody_of_that_budget(backend: Backend) {
    let rig = Rig::new(backend, |seen, nth| match seen.job_id.as_str() {
        "acme-0" if nth == 1 => Reply::status(429).header("retry-after", 30),
        _ => Reply::status(200),
    })
    .await;
    let worker = rig.start_with(limited(6_000, Duration::from_mins(1), 1, Scope::Tenant, 0.0));
    publish(&rig, "bulk", "acme", 1).await;
    rig.api.until_calls(1).await;
    let told_at = rig.now();
    rig.until("the row of the limited job", async || {
        rig.rows().await.iter().any(|row| row.reason == WaitReason::RateLimited.as_str())
    })
    .await;
    for nth in 1..4 {
        let acme = Tenant::new("acme").expect("a tenant");
        let job = NewJob { tenant: acme, ..new_job("realtime", &format!("acme-{nth}")) };
        rig.publisher.publish_one(job).await.expect("confirmed");
    }
    publish(&rig, "bulk", "globex", 1).await;
    until(&rig, "call of the other tenant", |calls| of(calls, "globex").len() == 1).await;
    let calls = until(&rig, "calls after the cool-down", |calls| of(calls, "acme").len() >= 4).await;
    let early = of(&calls, "acme").into_iter().skip(1).filter(|seen| seen.at < told_at.plus(Duration::from_secs(30)));
    assert_eq!(early.count(), 0);
    worker.stop().await;
}

async fn a_limit_that_was_taken_away_holds_nobody(backend: Backend) {
    let rig = Rig::new(backend, |_, _| Reply::status(200)).await;
    let jobs = publish(&rig, "bulk", "acme", 10).await;
    let worker = rig.start_with(limited(1, Duration::from_hours(24), 1, Scope::Tenant, 0.0));
    rig.until("jobs that wait for their turn", async || {
        rig.rows().await.iter().filter(|row| row.resume_at == Some(IN_TURN)).count() == 9
    })
    .await;
    worker.stop().await;
    let worker = rig.start();
    let calls = until(&rig, "call of every job", |calls| calls.len() == 10).await;
    for job in &jobs {
        rig.until_state(job, State::Done).await;
    }
    assert!(calls.iter().all(|seen| seen.at < Timestamp::from_secs(1_800_003_600)));
    worker.stop().await;
}

async fn a_stop_gives_back_who_waits_for_tokens(backend: Backend) {
    let rig = Rig::new(backend, |_, _| Reply::status(200)).await;
    let worker = rig.start_with(limited(150, Duration::from_mins(1), 1, Scope::Tenant, 0.0));
    publish(&rig, "realtime", "acme", 1).await;
    rig.api.until_calls(1).await;
    // its token comes in 400 ms, and the clock stands still
    let second = rig.publish("realtime", "held").await;
    rig.until_state(&second, State::Run).await;
    worker.stop().await;
    let row = rig.row(&second).await.expect("is there");
    assert_eq!((row.state, row.attempt), (State::Waiting, 0), "given back, uncounted: {row:?}");
    let worker = rig.start();
    until(&rig, "call", |calls| calls.len() == 2).await;
    worker.stop().await;
}
