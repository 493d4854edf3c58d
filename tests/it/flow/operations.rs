//! Operations on many: workers carry them out at the pace that was asked for, one goes on where another died, and calls keep to
//! their budgets.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use lanes::broker::Outgoing;
use lanes::engine::settings::WorkerSettings;
use lanes::governor::operations::{self, Manner};
use lanes::job::control::{Source, Speaker};
use lanes::job::operation::{Action, Operation, Phase, Selection};
use lanes::job::wire;
use lanes::message::{Message, Properties};
use lanes::policy::circuit::CircuitRules;
use lanes::policy::limit::{Limit, Scope};
use lanes::policy::pacing::{Budgets, EndpointBudget, Learn};
use lanes::store::State;
use uuid::Uuid;

use super::on_every_backend;
use super::rig::{Backend, Reply, Rig, Running, crm, lane, new_job};

on_every_backend!(
    dead_letters_come_back_at_the_pace_that_was_asked_for,
    a_worker_goes_on_where_another_died,
    calls_of_many_replays_keep_to_their_budget,
    what_was_cancelled_goes_no_further,
    messages_that_never_were_jobs_are_published_again,
    a_message_that_dies_again_is_a_letter_again,
    jobs_that_wait_are_cancelled,
);

const STEP: Duration = Duration::from_millis(50);

fn ada() -> Speaker {
    Speaker::new("ada", Source::Page).because("the API is back")
}

/// A rig with so many dead letters, and a switch that lets the API work.
async fn with_letters(backend: Backend, jobs: usize) -> (Rig, Arc<AtomicBool>) {
    let works = Arc::new(AtomicBool::new(false));
    let answers = Arc::clone(&works);
    let script = move |_: &_, _| Reply::status(if answers.load(Ordering::Acquire) { 200 } else { 422 });
    let rig = Rig::new(backend, script).await;
    let worker = rig.start();
    let jobs_of = |nth| new_job("bulk", &format!("job-{nth}"));
    for answer in rig.publisher.publish((0..jobs).map(jobs_of).collect()).await {
        answer.expect("confirmed");
    }
    rig.api.until_calls(jobs).await;
    rig.until("all dead", async || count(&rig).await == jobs as u64).await;
    worker.stop().await;
    works.store(true, Ordering::Release);
    (rig, works)
}

async fn count(rig: &Rig) -> u64 {
    rig.backing.store.letter_counts().await.expect("answers").iter().map(|(_, letters)| letters).sum()
}

async fn start(rig: &Rig, action: Action, per_second: Option<f64>) -> Uuid {
    let (store, now) = (&*rig.backing.store, rig.now());
    let plan = operations::plan(store, action, Selection::all(now), |name| name == "bulk", |name| name == "crm").await;
    let plan = plan.expect("planned");
    let manner = Manner { id: Uuid::new_v4(), per_second, claim: None };
    operations::start(store, action, &plan, manner, &ada(), now).await.expect("started").id
}

async fn look(rig: &Rig, id: Uuid) -> Operation {
    rig.backing.store.operation(id).await.expect("answers").expect("it is there")
}

async fn done(rig: &Rig, id: Uuid) -> u64 {
    look(rig, id).await.tally.done
}

/// A worker that dies without a word is not missed for long.
fn short_lease(rig: &Rig) -> WorkerSettings {
    WorkerSettings { lease: Duration::from_secs(15), ..rig.settings.clone() }
}

/// So many jobs were called with success, each once.
fn called_once(rig: &Rig, before: usize, jobs: usize) {
    let calls: Vec<String> = rig.api.calls().into_iter().skip(before).map(|call| call.job_id).collect();
    let different: HashSet<&String> = calls.iter().collect();
    assert_eq!((calls.len(), different.len()), (jobs, jobs));
}

async fn dead_letters_come_back_at_the_pace_that_was_asked_for(backend: Backend) {
    let (rig, _) = with_letters(backend, 60).await;
    let worker = rig.start();
    let began = rig.now();
    let id = start(&rig, Action::Retry, Some(20.0)).await;
    rig.until_in_steps(STEP, "all of them", async || done(&rig, id).await == 60).await;
    let took = rig.now().since(began);
    // 20 a second in steps of five: the last of twelve steps is made 2.75 s after the first
    assert!(took >= Duration::from_millis(2_750), "{took:?}");
    rig.until_in_steps(STEP, "its end", async || look(&rig, id).await.phase == Phase::Done).await;
    rig.api.until_calls(120).await;
    called_once(&rig, 60, 60);
    let operation = look(&rig, id).await;
    assert_eq!((operation.tally.looked_at(), operation.problem.as_str()), (60, ""));
    assert_eq!((operation.begun.planned, operation.begun.actor.as_str()), (60, "ada"));
    worker.stop().await;
}

async fn a_worker_goes_on_where_another_died(backend: Backend) {
    let (rig, _) = with_letters(backend, 60).await;
    let first = rig.start_with(short_lease(&rig));
    let id = start(&rig, Action::Retry, Some(20.0)).await;
    rig.until_in_steps(STEP, "a part of them", async || done(&rig, id).await >= 20).await;
    first.abort();
    let second = rig.start_with(WorkerSettings { name: "test:2".to_owned(), ..short_lease(&rig) });
    rig.until_in_time("all of them", async || look(&rig, id).await.phase == Phase::Done).await;
    assert_eq!(look(&rig, id).await.tally.done, 60, "each is counted once");
    assert_eq!(count(&rig).await, 0);
    // what the dead one was calling may be called twice, nothing else
    rig.until_in_time("all calls", async || {
        let rows = rig.rows().await;
        rows.iter().all(|row| row.state == State::Done)
    })
    .await;
    let replayed = rig.rows().await;
    assert!(replayed.iter().all(|row| row.generation == 2), "each was put back to work once");
    second.stop().await;
}

async fn calls_of_many_replays_keep_to_their_budget(backend: Backend) {
    let (mut rig, _) = with_letters(backend, 40).await;
    let limit =
        Limit { requests: 10, per: Duration::from_secs(1), burst: Some(1), scope: Scope::Tenant, headroom: 1.0 };
    let budget = EndpointBudget {
        limits: vec![limit],
        learn: Learn::Off,
        circuit: CircuitRules::NEVER,
        ..EndpointBudget::default()
    };
    rig.settings.budgets = Arc::new(Budgets { endpoints: HashMap::from([(crm(), budget)]), ..Budgets::default() });
    let worker = rig.start();
    let id = start(&rig, Action::Retry, None).await;
    rig.until_in_steps(STEP, "the operation's end", async || look(&rig, id).await.phase == Phase::Done).await;
    rig.until_count(STEP, 80).await;
    let times: Vec<_> = rig.api.calls().iter().skip(40).map(|call| call.at).collect();
    // 40 at 10 a second; a call may arrive later than its moment, so that stretches between calls tell less
    let took = times[39].since(times[0]);
    assert!(took >= Duration::from_secs(3), "{took:?}: {times:?}");
    called_once(&rig, 40, 40);
    worker.stop().await;
}

async fn what_was_cancelled_goes_no_further(backend: Backend) {
    let (rig, _) = with_letters(backend, 40).await;
    let worker: Running = rig.start();
    let id = start(&rig, Action::Discard, Some(10.0)).await;
    rig.until_in_steps(STEP, "some of them", async || done(&rig, id).await >= 6).await;
    let seen = look(&rig, id).await;
    assert!(operations::cancel(&*rig.backing.store, &seen, &ada(), rig.now()).await.expect("answered"));
    let operation = look(&rig, id).await;
    assert_eq!(operation.phase, Phase::Cancelled);
    let left = 40 - operation.tally.done;
    for _ in 0..5 {
        rig.pass_a_second().await;
    }
    assert_eq!((count(&rig).await, look(&rig, id).await), (left, operation));
    worker.stop().await;
}

async fn messages_that_never_were_jobs_are_published_again(backend: Backend) {
    let rig = Rig::new(backend, |_, _| Reply::status(200)).await;
    let worker = rig.start();
    let message = |nth: u32| Message {
        properties: Properties { message_id: Some(format!("m-{nth}")), ..Properties::default() },
        headers: std::collections::BTreeMap::new(),
        body: Bytes::from(format!("{{\"n\":{nth}}}")),
    };
    let outgoing = (0..3).map(|nth| Outgoing { route: wire::route(&lane("bulk")), message: message(nth) }).collect();
    for answer in rig.backing.broker.publish(outgoing).await {
        answer.expect("confirmed");
    }
    let before = rig.until_letters(3).await;
    worker.stop().await;
    // an endpoint for them, where the publisher named none
    let mut settings = rig.settings.clone();
    for lane in &mut settings.lanes {
        lane.decode.default_endpoint = Some(crm());
    }
    let worker = rig.start_with(settings);
    let id = start(&rig, Action::Retry, None).await;
    rig.until_in_time("the operation's end", async || look(&rig, id).await.phase == Phase::Done).await;
    assert_eq!(look(&rig, id).await.tally.done, 3, "{before:#?}");
    let calls = rig.api.until_calls(3).await;
    let ids: HashSet<_> = calls.iter().map(|call| call.job_id.as_str()).collect();
    assert_eq!(ids, HashSet::from(["m-0", "m-1", "m-2"]));
    rig.until("no letters", async || count(&rig).await == 0).await;
    worker.stop().await;
}

async fn a_message_that_dies_again_is_a_letter_again(backend: Backend) {
    let rig = Rig::new(backend, |_, _| Reply::status(200)).await;
    let worker = rig.start();
    let nobody = Message {
        properties: Properties { message_id: Some("m".to_owned()), ..Properties::default() },
        headers: std::collections::BTreeMap::new(),
        body: Bytes::from_static(b"{}"),
    };
    let outgoing = vec![Outgoing { route: wire::route(&lane("bulk")), message: nobody }];
    for answer in rig.backing.broker.publish(outgoing).await {
        answer.expect("confirmed");
    }
    rig.until_letters(1).await;
    // nothing was mended: whatever is sooner, the worker that buries it again or the word that it was published, it is kept
    for round in 2..6 {
        let id = start(&rig, Action::Retry, None).await;
        rig.until_in_time("the operation's end", async || look(&rig, id).await.phase == Phase::Done).await;
        rig.barrier("bulk").await;
        rig.until(&format!("a letter in round {round}"), async || count(&rig).await == 1).await;
    }
    worker.stop().await;
}

async fn jobs_that_wait_are_cancelled(backend: Backend) {
    let rig = Rig::new(backend, |_, _| Reply::status(503)).await;
    let worker = rig.start();
    for nth in 0..5 {
        rig.publish("bulk", &format!("job-{nth}")).await;
    }
    rig.until("all wait", async || {
        let rows = rig.rows().await;
        rows.len() == 5 && rows.iter().all(|row| row.state == State::Waiting)
    })
    .await;
    let id = start(&rig, Action::Cancel, None).await;
    rig.until_in_steps(STEP, "the operation's end", async || look(&rig, id).await.phase == Phase::Done).await;
    assert!(rig.rows().await.iter().all(|row| row.state == State::Cancelled));
    assert_eq!(look(&rig, id).await.tally.done, 5);
    worker.stop().await;
}
