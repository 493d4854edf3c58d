//! History: what happens to jobs is counted in the store, and incidents are concluded from it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use lanes::broker::Broker;
use lanes::job::history::{Measure, Step};
use lanes::observe::{self, Picture, Scope};
use lanes::policy::backoff::RetryPolicy;
use lanes::policy::health::Kind;
use lanes::store::Store;

use super::on_every_backend;
use super::rig::{Backend, Reply, Rig, settings};

on_every_backend!(what_happens_is_counted, incidents_say_what_needs_a_person,);

async fn look(rig: &Rig) -> Picture {
    let scope = Scope {
        lanes: rig.settings.lanes.iter().map(|lane| lane.name.clone()).collect(),
        concurrency: std::collections::BTreeMap::new(),
        lease: rig.settings.lease,
        budgets: (*rig.settings.budgets).clone(),
        recent: observe::Recent::default(),
    };
    let (store, broker): (&dyn Store, &dyn Broker) = (&*rig.backing.store, &*rig.backing.broker);
    let mut picture = observe::look(&scope, Ok(store), Ok(broker), rig.now()).await;
    // the store of a test has a real clock: what is counted is of the test's
    picture.now = rig.now();
    let past = observe::past(store, rig.now()).await.expect("read");
    picture.incidents = observe::incidents(&picture, &past, scope.lease);
    picture
}

async fn counted(rig: &Rig, measure: Measure, subject: &str) -> u64 {
    let until = rig.now().plus(Duration::from_mins(1));
    let sums = rig.backing.store.history(Step::Coarse, until.minus(Duration::from_hours(1)), until, &[measure]).await;
    sums.expect("read").iter().filter(|(series, _)| series.subject == subject).map(|(_, sum)| sum.count).sum()
}

async fn what_happens_is_counted(backend: Backend) {
    let limited = Arc::new(AtomicBool::new(true));
    let is_limited = Arc::clone(&limited);
    let script = move |_: &_, nth| match nth {
        1 if is_limited.load(Ordering::Relaxed) => Reply::status(429),
        _ => Reply::status(200),
    };
    let rig = Rig::new(backend, script).await;
    let worker = rig.start();
    for n in 0..3 {
        rig.publish("bulk", &format!("job-{n}")).await;
    }
    rig.until_with_clock("two calls of each", |calls| calls.len() == 6).await;
    rig.until_in_time("the end of all", async || counted(&rig, Measure::Succeeded, "bulk").await == 3).await;
    assert_eq!(counted(&rig, Measure::Waited, "bulk").await, 6, "each call waited");
    assert_eq!(counted(&rig, Measure::Calls, "crm").await, 6);
    assert_eq!(counted(&rig, Measure::CallsByLane, "crm").await, 6);
    assert_eq!(counted(&rig, Measure::RateLimited, "crm").await, 3);
    assert_eq!(counted(&rig, Measure::Retries, "crm").await, 3);
    assert_eq!(counted(&rig, Measure::Duration, "bulk").await, 3);
    assert_eq!(counted(&rig, Measure::Died, "bulk").await, 0);
    limited.store(false, Ordering::Relaxed);
    rig.publish("realtime", "last").await;
    rig.api.until_calls(7).await;
    worker.stop().await;
    assert_eq!(counted(&rig, Measure::Succeeded, "realtime").await, 1, "a stop writes what was counted");
}

async fn incidents_say_what_needs_a_person(backend: Backend) {
    let rig = Rig::new(backend, |_, _| Reply::status(503)).await;
    let mut settings = settings();
    for lane in &mut settings.lanes {
        lane.retry = RetryPolicy { max_attempts: 1, ..lane.retry.clone() };
    }
    rig.publish("bulk", "first").await;
    let picture = look(&rig).await;
    assert_eq!(picture.incidents.iter().map(|one| one.kind).collect::<Vec<_>>(), [Kind::NoWorker]);
    let worker = rig.start_with(settings);
    for n in 0..5 {
        rig.publish("bulk", &format!("job-{n}")).await;
    }
    rig.until_letters(6).await;
    rig.until_in_time("the incident", async || {
        let picture = look(&rig).await;
        let found = picture.incidents.iter().find(|incident| incident.kind == Kind::Exhaustion);
        let message = "bulk: 100 % of jobs ran out of retries in the last hour (6 of 6). Most of them at crm (6).";
        found.is_some_and(|incident| incident.message == message)
    })
    .await;
    worker.stop().await;
}
