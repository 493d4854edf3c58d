//! Who is alive, who may say so, and what becomes of the jobs of the dead.

use std::collections::HashSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use lanes::clock::{Clock, Timestamp};
use lanes::engine::settings::WorkerSettings;
use lanes::engine::worker::WorkerParts;
use lanes::job::wire;
use lanes::store::{State, WorkerId, WorkerRow};
use tokio::sync::watch;

use super::on_every_backend;
use super::rig::{Backend, Reply, Rig, Running, Seen, lane, settings};
use super::weather::{self, Asked, Forecast, Weather};

const LEASE: Duration = Duration::from_secs(15);
/// Three heartbeats in a lease.
const BEAT: Duration = Duration::from_secs(5);

on_every_backend!(
    nobody_is_buried_right_after_an_outage_of_the_store,
    who_is_not_heard_buries_nobody,
    a_lease_begins_when_the_registration_is_asked_for,
    what_was_claimed_before_ones_own_burial_is_given_back,
    heartbeats_wait_for_nobody,
    a_worker_of_another_lane_takes_over,
);

fn short_lease() -> WorkerSettings {
    WorkerSettings { lease: LEASE, ..settings() }
}

/// When a worker looked for dead ones.
#[derive(Clone, Default)]
struct Burials(Arc<Mutex<Vec<Timestamp>>>);

impl Burials {
    /// Weather that writes down burials, and ends every call `meets` with an error.
    fn under(&self, rig: &Rig, meets: fn(&Asked<'_>) -> bool) -> Forecast {
        let (clock, times) = (rig.clock.clone(), Arc::clone(&self.0));
        Arc::new(move |asked| {
            if matches!(asked, Asked::BuryWorkers) {
                times.lock().expect("not poisoned").push(clock.now());
            }
            weather::ready(if meets(&asked) { Err(weather::unavailable()) } else { Ok(()) })
        })
    }

    fn since(&self, at: Timestamp) -> Vec<Timestamp> {
        self.0.lock().expect("not poisoned").iter().copied().filter(|time| *time >= at).collect()
    }
}

async fn workers(rig: &Rig) -> Vec<WorkerRow> {
    rig.backing.store.workers().await.expect("answers")
}

async fn until_registered(rig: &Rig, count: usize) -> WorkerId {
    rig.until(&format!("{count} workers"), async || workers(rig).await.len() == count).await;
    workers(rig).await.last().expect("just counted").id
}

/// Waits, while the clock goes on, for a heartbeat of `worker` after this time, and answers when it was.
async fn until_heard(rig: &Rig, worker: WorkerId, after: Timestamp) -> Timestamp {
    let beat = async || workers(rig).await.iter().find(|row| row.id == worker).map(|row| row.heartbeat_at);
    rig.until_in_time("heartbeat", async || beat().await > Some(after)).await;
    beat().await.expect("was just heard")
}

/// The store is away for longer than a lease, so everybody was silent. One worker is heard again at once, the other one
/// only as late as its own waits allow: it is not dead, and its job is not taken from it.
async fn nobody_is_buried_right_after_an_outage_of_the_store(backend: Backend) {
    let (open, gate) = watch::channel(false);
    let rig = Rig::new(backend, move |_, _| Reply::status(200).gated(&gate)).await;
    let (late_store, quick_store) = (Weather::before(&rig.backing.store), Weather::before(&rig.backing.store));
    let late = rig.start_before(short_lease(), &late_store);
    let late_id = until_registered(&rig, 1).await;
    let job = rig.publish("realtime", "a").await;
    rig.api.until_calls(1).await;
    let quick = rig.start_before(short_lease(), &quick_store);
    let quick_id = until_registered(&rig, 2).await;
    let burials = Burials::default();

    let stores = [&late_store, &quick_store];
    let unanswered = stores.map(|store| {
        let (tell, unanswered) = watch::channel(0);
        store.turns(Arc::new(move |asked| {
            tell.send_modify(|count| *count += u32::from(matches!(asked, Asked::Heartbeat)));
            weather::ready(Err(weather::unavailable()))
        }));
        unanswered
    });
    rig.clock.advance(LEASE + BEAT);
    rig.until_in_time("failed heartbeats", async || unanswered.iter().all(|count| *count.borrow() > 0)).await;

    quick_store.turns(burials.under(&rig, |_| false));
    let back_at = until_heard(&rig, quick_id, rig.now()).await;
    for _ in 0..2 {
        rig.pass_a_second().await;
    }
    late_store.turns(weather::clear());
    until_heard(&rig, late_id, back_at).await;
    rig.until_in_time("burial", async || !burials.since(back_at).is_empty()).await;

    let first = burials.since(back_at)[0];
    assert!(first >= back_at.plus(LEASE), "looked for the dead at {first}, back since {back_at}");
    let ids: Vec<_> = workers(&rig).await.iter().map(|row| row.id).collect();
    assert_eq!(ids, [late_id, quick_id], "as they were registered");
    assert_eq!(rig.row(&job).await.expect("is there").takeovers, 0);
    open.send(true).expect("the API listens");
    rig.until_state(&job, State::Done).await;
    late.stop().await;
    quick.stop().await;
    assert_eq!(rig.api.calls().len(), 1);
}

/// A worker whose own heartbeats are not answered may be the dead one: it does not judge others, however silent.
async fn a_lease_begins_when_the_registration_is_asked_for(backend: Backend) {
    let (open, gate) = watch::channel(false);
    let (tell, mut asked_for) = watch::channel(false);
    let rig = Rig::new(backend, |_, _| Reply::status(200)).await;
    let store = Weather::before(&rig.backing.store);
    store.turns(Arc::new(move |asked| match asked {
        Asked::Register => {
            tell.send_replace(true);
            weather::once(&gate)
        }
        Asked::Heartbeat => weather::ready(Err(weather::unavailable())),
        _ => weather::ready(Ok(())),
    }));
    let worker = rig.start_before(short_lease(), &store);
    asked_for.wait_for(|asked| *asked).await.expect("the store listens");
    rig.clock.advance(LEASE);
    open.send(true).expect("the store listens");
    until_registered(&rig, 1).await;
    let job = rig.publish("realtime", "a").await;
    for _ in 0..BEAT.as_secs() {
        rig.pass_a_second().await;
    }
    assert_eq!(rig.api.calls().len(), 0, "others may have taken its jobs: its lease was over when it was registered");

    store.turns(weather::clear());
    rig.until_in_time("call", async || rig.api.count() == 1).await;
    rig.until_state(&job, State::Done).await;
    worker.stop().await;
}

async fn who_is_not_heard_buries_nobody(backend: Backend) {
    let rig = Rig::new(backend, |_, _| Reply::status(200)).await;
    let silent = rig.backing.store.register("silent", "bulk", rig.now()).await.expect("answers");
    let store = Weather::before(&rig.backing.store);
    let burials = Burials::default();
    let unheard = |asked: &Asked<'_>| matches!(asked, Asked::Heartbeat);
    store.turns(burials.under(&rig, unheard));
    let worker = rig.start_before(short_lease(), &store);
    until_registered(&rig, 2).await;
    let over_at = rig.now().plus(LEASE);
    for _ in 0..4 * LEASE.as_secs() {
        rig.pass_a_second().await;
    }
    assert_eq!(burials.since(over_at), [], "its lease is over since {over_at}");
    assert!(workers(&rig).await.iter().any(|row| row.id == silent));

    store.turns(burials.under(&rig, |_| false));
    let gone = async || workers(&rig).await.iter().all(|row| row.id != silent);
    rig.until_in_time("burial of the silent one", gone).await;
    worker.stop().await;
}

/// What was claimed before the worker's own burial belongs to whoever takes it over, however alive the worker is again.
async fn what_was_claimed_before_ones_own_burial_is_given_back(backend: Backend) {
    let (open, gate) = watch::channel(false);
    let rig = Rig::new(backend, move |_, _| Reply::status(200).gated(&gate)).await;
    let store = Weather::before(&rig.backing.store);
    let (let_go, released) = watch::channel(false);
    store.turns(Arc::new(move |asked| match asked {
        Asked::Release | Asked::SweepRun => weather::once(&released),
        _ => weather::ready(Ok(())),
    }));
    // of three slots each one that frees up is claimed for at once, however the messages arrive
    let mut three_at_a_time = short_lease();
    three_at_a_time.lanes[0].concurrency = 3;
    let mut jobs = Vec::new();
    for n in 0..6 {
        jobs.push(rig.publish("realtime", &format!("job-{n}")).await);
    }
    let worker = rig.start_before(three_at_a_time, &store);
    rig.api.until_calls(3).await;
    rig.until("claims of all", async || rig.rows().await.len() == 6).await;
    let called: HashSet<_> = rig.api.calls().into_iter().map(|call| call.job_id).collect();

    let nobody = WorkerId(-1);
    assert_eq!(rig.backing.store.bury_workers(Timestamp::MAX, nobody).await.expect("answers"), 1);
    rig.until_in_time("another registration", async || workers(&rig).await.len() == 1).await;
    let anew = until_registered(&rig, 1).await;
    until_heard(&rig, anew, rig.now()).await; // and so it knows its new name
    open.send(true).expect("the API listens");
    for job in &jobs {
        let wanted = if called.contains(job.id.as_str()) { State::Done } else { State::Waiting };
        let row = rig.until_state(job, wanted).await;
        if wanted == State::Waiting {
            assert_eq!((row.reason.as_str(), row.attempt, row.takeovers), ("interrupted", 0, 0));
        }
    }
    assert_eq!(rig.api.calls().len(), 3, "what was given back was not called");

    let_go.send(true).expect("the releaser listens");
    rig.until_with_clock("call of every job", |seen| seen.len() == 6).await;
    for job in &jobs {
        assert_eq!(rig.until_state(job, State::Done).await.attempt, 1);
    }
    worker.stop().await;
    assert_eq!(rig.api.calls().len(), 6, "each once");
}

/// The lanes and all other upkeep wait for connections that never come free; the heartbeat has one of its own.
async fn heartbeats_wait_for_nobody(backend: Backend) {
    let rig = Rig::new(backend, |_, _| Reply::status(200)).await;
    let exhausted = Weather::before(&rig.backing.store);
    exhausted.turns(Arc::new(|_| Box::pin(std::future::pending())));
    rig.publish("realtime", "a").await;
    let parts = WorkerParts { control_store: exhausted, ..rig.parts(short_lease()) };
    let worker = Running::start(parts);
    let id = until_registered(&rig, 1).await;
    for _ in 0..4 {
        until_heard(&rig, id, rig.now()).await;
    }
    worker.abort();
    assert!(rig.api.calls().is_empty());
}

fn only(name: &str) -> WorkerSettings {
    let mut settings = short_lease();
    settings.lanes.retain(|lane| lane.name.as_str() == name);
    settings
}

/// Nobody of the dead one's own lane is left; its job waits in the due queue for the first who comes.
async fn a_worker_of_another_lane_takes_over(backend: Backend) {
    let (open, gate) = watch::channel(false);
    let script = move |_: &Seen, nth| if nth == 1 { Reply::status(200).gated(&gate) } else { Reply::status(200) };
    let rig = Rig::new(backend, script).await;
    let dying = rig.start_with(only("realtime"));
    let job = rig.publish("realtime", "a").await;
    rig.api.until_calls(1).await;
    dying.abort();
    let heir = rig.start_with(only("bulk"));
    rig.until_taken_over(&job, 1).await;
    assert_eq!(rig.row(&job).await.expect("is there").state, State::Queued);
    rig.until("wake-up", async || rig.ready(&wire::due_queue(&lane("realtime"))).await == 1).await;

    let next = rig.start_with(only("realtime"));
    let row = rig.until_state(&job, State::Done).await;
    assert_eq!((row.attempt, row.takeovers, row.effect_possible), (2, 1, true));
    drop(open);
    heir.stop().await;
    next.stop().await;
    assert_eq!(rig.api.calls().len(), 2);
}
