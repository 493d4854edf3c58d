//! One suite for every store: each test runs against SQLite and PostgreSQL, on a database of its own.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use lanes::clock::{Clock, SystemClock, Timestamp};
use lanes::db::{self, PgPoolUse, Sqlite};
use lanes::job::verdict::{DeadReason, WaitReason};
use lanes::job::{DedupKey, EndpointName, Identity, JobId, LaneName, Tenant};
use lanes::store::postgres::PgStore;
use lanes::store::sqlite::SqliteStore;
use lanes::store::{
    AttemptRecord, AuditFilter, CancelAnswer, ClaimContext, Claimed, FreshClaim, Granted, Hastened, JobFilter, JobRow,
    LIST_MAX, Letter, LetterFilter, Next, Payload, RawLetter, Replayed, Retention, Settled, Settlement, State, Store,
    StoreError, Wake, WokenClaim, WorkerId,
};
use sqlx::{AssertSqlSafe, Connection, PgConnection, PgPool};
use uuid::Uuid;

use super::controls;
use crate::services;

pub const WINDOW: Duration = Duration::from_mins(10);
const GRACE: Duration = Duration::from_mins(1);

/// A moment of the tests' time.
pub const fn at(seconds: i64) -> Timestamp {
    Timestamp::from_secs(1_000_000 + seconds)
}

/// A store under test and what keeps its database alive.
pub struct Bench {
    pub store: Arc<dyn Store>,
    pub worker: WorkerId,
    backend: Backend,
}

enum Backend {
    Sqlite(Sqlite, #[expect(dead_code, reason = "removes the file when dropped")] tempfile::TempDir),
    Postgres(PgPool),
}

impl Bench {
    pub async fn sqlite() -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let url = format!("sqlite:{}", dir.path().join("store.db").display());
        let db = db::open_sqlite(&url).await.expect("the file opens");
        // no power fails during a test
        sqlx::query("PRAGMA synchronous = OFF").execute(&db.write).await.expect("a pragma");
        Self::new(Arc::new(SqliteStore::new(db.clone())), Backend::Sqlite(db, dir)).await
    }

    pub async fn postgres() -> Self {
        let url = services::fresh_database().await;
        let pool = db::open_postgres(&url, PgPoolUse { name: "test", connections: 4 }).expect("a pool");
        db::migrate_postgres(&url, &pool).await.expect("the schema");
        Self::new(Arc::new(PgStore::new(pool.clone(), &url)), Backend::Postgres(pool)).await
    }

    async fn new(store: Arc<dyn Store>, backend: Backend) -> Self {
        let worker = store.register("host:1", "bulk,realtime", at(0)).await.expect("registered");
        Self { store, worker, backend }
    }

    /// Empties every table and registers the worker anew.
    pub async fn clear(&mut self) {
        for table in [
            "jobs",
            "jobs_side",
            "letters",
            "attempts",
            "workers",
            "marks",
            "budgets",
            "slots",
            "history",
            "operations",
        ] {
            let sql = AssertSqlSafe(format!("DELETE FROM {table}"));
            match &self.backend {
                Backend::Sqlite(..) if table == "jobs_side" => {}
                Backend::Sqlite(db, _) => drop(sqlx::query(sql).execute(&db.write).await.expect("deleted")),
                Backend::Postgres(pool) => drop(sqlx::query(sql).execute(pool).await.expect("deleted")),
            }
        }
        self.worker = self.store.register("host:1", "bulk", at(0)).await.expect("registered");
    }

    /// The pool behind a PostgreSQL store.
    pub fn pool(&self) -> &PgPool {
        match &self.backend {
            Backend::Postgres(pool) => pool,
            Backend::Sqlite(..) => unreachable!("a PostgreSQL bench"),
        }
    }

    pub fn ctx(&self, now: Timestamp) -> ClaimContext {
        ClaimContext { worker: self.worker, now, window: WINDOW }
    }

    pub async fn fresh(&self, now: Timestamp, claim: &FreshClaim) -> Claimed {
        self.store.claim_fresh(self.ctx(now), std::slice::from_ref(claim)).await.expect("claimed").remove(0)
    }

    pub async fn run(&self, now: Timestamp, claim: &FreshClaim) -> Granted {
        granted(self.fresh(now, claim).await)
    }

    pub async fn wake(&self, now: Timestamp, wake: &Wake) -> Claimed {
        let claim = WokenClaim { key: wake.key, instance: wake.instance, token: Uuid::new_v4() };
        self.store.claim_woken(self.ctx(now), &[claim]).await.expect("claimed").remove(0)
    }

    pub async fn settle(&self, now: Timestamp, claim: &FreshClaim, next: Next) -> Settled {
        self.store.settle(now, &[settlement(claim, next)]).await.expect("settled").remove(0)
    }

    pub async fn release(&self, now: Timestamp) -> Vec<Wake> {
        self.store.release(&lane("bulk"), now, 100, 1_000).await.expect("released")
    }

    pub async fn row(&self, instance: Uuid) -> JobRow {
        self.store.job(instance).await.expect("read").expect("the row exists")
    }

    pub async fn state(&self, instance: Uuid) -> State {
        self.row(instance).await.state
    }

    /// Brings a new job into `state`; with `effect`, a call of it may have had an effect.
    pub async fn job_in(&self, state: State, effect: bool, instance: u128, id: &str, now: Timestamp) -> FreshClaim {
        let claim = claim(instance, id, now);
        self.run(now, &claim).await;
        let settlement = |next| Settlement { effect_possible: effect, ..settlement(&claim, next) };
        match state {
            State::Run if effect => unreachable!("a first call is not doubted while it runs"),
            State::Run => {}
            State::Done => drop(self.store.settle(now, &[settlement(Next::Done)]).await.expect("settled")),
            State::Dead => drop(self.store.settle(now, &[settlement(dead())]).await.expect("settled")),
            State::Waiting | State::Queued | State::Cancelled => {
                let due = if state == State::Waiting { at(90_000) } else { now };
                self.store.settle(now, &[settlement(waiting(due))]).await.expect("settled");
                if state == State::Queued {
                    assert_eq!(self.release(now).await.len(), 1);
                }
                if state == State::Cancelled {
                    let answer = self.store.cancel(claim.instance, now).await.expect("cancelled");
                    assert_eq!(answer, CancelAnswer::Cancelled);
                }
            }
        }
        assert_eq!(self.state(claim.instance).await, state);
        claim
    }
}

pub fn lane(name: &str) -> LaneName {
    LaneName::new(name).expect("a lane name")
}

pub fn claim(instance: u128, id: &str, published_at: Timestamp) -> FreshClaim {
    claim_in("bulk", instance, id, published_at)
}

pub fn claim_in(lane_name: &str, instance: u128, id: &str, published_at: Timestamp) -> FreshClaim {
    let (lane, tenant, id) = (lane(lane_name), Tenant::new("acme").expect("tenant"), JobId::new(id).expect("id"));
    FreshClaim {
        key: DedupKey::of(&lane, &tenant, &id),
        instance: Uuid::from_u128(instance),
        token: Uuid::new_v4(),
        lane,
        tenant,
        id,
        endpoint: EndpointName::new("crm").expect("endpoint"),
        published_at,
        payload_sha256: [7; 32],
        payload: Payload { meta: "{}".into(), body: format!("body {instance}").into() },
        identity: Identity::Stamped,
        redelivered: false,
        in_turn: None,
    }
}

/// The same message, delivered again to another claimant.
fn again(claim: &FreshClaim) -> FreshClaim {
    FreshClaim { token: Uuid::new_v4(), redelivered: true, ..claim.clone() }
}

fn wake_of(claim: &FreshClaim) -> Wake {
    Wake { lane: claim.lane.clone(), key: claim.key, instance: claim.instance }
}

fn granted(claimed: Claimed) -> Granted {
    match claimed {
        Claimed::Run(granted) => granted,
        other => panic!("not granted: {other:?}"),
    }
}

fn settlement(claim: &FreshClaim, next: Next) -> Settlement {
    Settlement {
        key: claim.key,
        instance: claim.instance,
        token: claim.token,
        next,
        effect_possible: false,
        attempt: None,
    }
}

fn waiting(resume_at: Timestamp) -> Next {
    Next::Waiting { reason: WaitReason::RateLimited, resume_at, counted: true }
}

fn dead() -> Next {
    Next::Dead { reason: DeadReason::Exhausted, detail: "five\0times".to_owned(), counted: true }
}

fn attempt(number: u32) -> AttemptRecord {
    AttemptRecord {
        generation: 1,
        attempt: number,
        started_at: at(i64::from(number)),
        duration_us: 1_234,
        class: "rate_limited".to_owned(),
        status: Some(429),
        detail: "slow down".to_owned(),
        retry_after_ms: Some(2_000),
        rate_headers: vec![("x-ratelimit-remaining".to_owned(), "0".to_owned())],
        next: "retry".to_owned(),
        reason: "rate_limited".to_owned(),
        resume_at: Some(at(120)),
    }
}

pub fn instances(wakes: &[Wake]) -> Vec<u128> {
    wakes.iter().map(|wake| wake.instance.as_u128()).collect()
}

macro_rules! on_every_store {
    ($($test:ident,)*) => {
        mod sqlite {
            $(#[tokio::test]
            async fn $test() {
                super::$test(crate::suite::store::Bench::sqlite().await).await;
            })*
        }
        mod postgres {
            $(#[tokio::test]
            async fn $test() {
                super::$test(crate::suite::store::Bench::postgres().await).await;
            })*
        }
    };
}
pub(super) use on_every_store;

on_every_store! {
    a_job_runs_and_is_done,
    a_repeated_claim_goes_on,
    a_repeated_claim_moves_to_the_new_registration,
    a_word_of_a_newer_version_stops_nobody,
    a_repeated_settlement_is_applied_once,
    a_settlement_after_a_takeover_is_lost,
    the_row_carries_its_own_copies,
    in_the_window_of_another,
    out_of_the_window_of_another,
    several_claims_of_one_key_in_a_batch,
    followers_run_one_at_a_time_in_publish_order,
    a_replay_looks_before_it_runs,
    a_released_replay_gives_way_to_a_busy_key,
    a_replay_runs_again_with_its_payload,
    a_replay_after_its_row_was_forgotten,
    a_replay_of_a_raw_letter,
    cancelling_in_every_state,
    a_cancel_while_it_runs_ends_it_instead_of_waiting,
    hurrying_in_every_state,
    what_holds_a_job_back_is_not_hurried,
    a_hurried_job_may_be_called_before_its_time,
    many_are_hurried_with_one_line,
    a_job_that_kills_its_workers_is_poison,
    an_identity_without_a_time_is_minted_anew,
    what_waits_and_what_is_queued_is_counted,
    calls_that_were_not_made_are_not_counted,
    the_journal_keeps_what_was_told,
    raw_letters_count_their_copies,
    letters_are_filtered_discarded_and_forgotten,
    jobs_are_filtered,
    releasing_is_bounded_ordered_and_per_lane,
    what_stays_queued_is_released_again,
    workers_come_and_go,
    finished_rows_are_forgotten_by_watermark_and_cap,
    what_followers_need_is_not_forgotten,
    marks_rise_and_remember,
    two_workers_and_one_key,
    the_stores_clock_is_a_clock,
}

async fn a_job_runs_and_is_done(bench: Bench) {
    let job = claim(1, "a", at(0));
    let grant = bench.run(at(1), &job).await;
    let expected = Granted {
        instance: job.instance,
        attempt: 1,
        generation: 1,
        takeovers: 0,
        effect_possible: false,
        released_at: None,
        held_since: None,
        stored: None,
    };
    assert_eq!(grant, expected);
    let row = bench.row(job.instance).await;
    assert_eq!((row.state, row.worker, row.holds_key), (State::Run, Some(bench.worker), true));
    assert_eq!(
        (row.lane, row.tenant, row.id, row.endpoint),
        (job.lane.clone(), job.tenant.clone(), job.id.clone(), job.endpoint.clone())
    );
    assert_eq!(bench.store.state_counts().await.expect("counts"), [], "what runs is counted by who runs it");

    assert_eq!(bench.settle(at(2), &job, Next::Done).await, Settled::Applied(State::Done));
    let row = bench.row(job.instance).await;
    assert_eq!((row.state, row.worker, row.ended_at, row.holds_key), (State::Done, None, Some(at(2)), true));
    assert_eq!(bench.store.state_counts().await.expect("counts"), []);
    assert_eq!(bench.store.job(Uuid::from_u128(99)).await.expect("read"), None);
}

async fn a_repeated_claim_goes_on(bench: Bench) {
    let job = claim(1, "a", at(0));
    let first = bench.run(at(1), &job).await;
    assert_eq!(bench.run(at(2), &job).await, first, "the COMMIT's answer was lost, the claim is sent again");

    bench.settle(at(3), &job, waiting(at(3))).await;
    let wake = bench.release(at(3)).await.remove(0);
    let woken = WokenClaim { key: wake.key, instance: wake.instance, token: Uuid::new_v4() };
    let first = bench.store.claim_woken(bench.ctx(at(4)), &[woken]).await.expect("claimed").remove(0);
    let second = bench.store.claim_woken(bench.ctx(at(5)), &[woken]).await.expect("claimed").remove(0);
    let (first, second) = (granted(first), granted(second));
    assert_eq!((first.attempt, first.released_at), (2, Some(at(3))));
    assert_eq!(second.attempt, 2);
    let stored = first.stored.expect("what the row holds");
    assert_eq!(stored.payload, job.payload);
    assert_eq!((&stored.tenant, stored.published_at), (&job.tenant, at(0)));
    assert_eq!(second.stored, Some(stored));
}

async fn a_repeated_claim_moves_to_the_new_registration(mut bench: Bench) {
    let (fresh, woken) = (claim(1, "a", at(0)), bench.job_in(State::Queued, false, 2, "b", at(0)).await);
    let wake = WokenClaim { key: woken.key, instance: woken.instance, token: Uuid::new_v4() };
    let first = bench.run(at(1), &fresh).await;
    granted(bench.store.claim_woken(bench.ctx(at(1)), &[wake]).await.expect("claimed").remove(0));
    bench.store.deregister(bench.worker).await.expect("declared dead");
    bench.worker = bench.store.register("host:1", "bulk", at(2)).await.expect("registered anew");
    assert_eq!(bench.run(at(3), &fresh).await, first);
    granted(bench.store.claim_woken(bench.ctx(at(3)), &[wake]).await.expect("claimed").remove(0));
    for job in [&fresh, &woken] {
        assert_eq!(bench.row(job.instance).await.worker, Some(bench.worker));
    }
    assert_eq!(bench.store.sweep_run(at(4), 3, 100).await.expect("swept").len(), 0, "nobody is dead");
}

async fn a_word_of_a_newer_version_stops_nobody(bench: Bench) {
    let (odd, plain) = (claim(1, "a", at(0)), claim(2, "b", at(0)));
    bench.run(at(0), &odd).await;
    bench.run(at(0), &plain).await;
    match &bench.backend {
        Backend::Sqlite(db, _) => drop(sqlx::query(ODD_REASON).execute(&db.write).await.expect("written")),
        Backend::Postgres(pool) => drop(sqlx::query(ODD_REASON).execute(pool).await.expect("written")),
    }
    assert_eq!(bench.store.cancel(odd.instance, at(1)).await.expect("asked"), CancelAnswer::Running);
    assert_eq!(bench.row(odd.instance).await.reason, "of_tomorrow", "kept while it is not changed");
    bench.store.deregister(bench.worker).await.expect("gone");
    assert_eq!(bench.store.sweep_run(at(2), 3, 100).await.expect("swept").len(), 2);
    assert_eq!(bench.row(odd.instance).await.reason, "");
}

const ODD_REASON: &str = "UPDATE jobs SET reason = 'of_tomorrow' WHERE id = 'a'";

async fn a_repeated_settlement_is_applied_once(bench: Bench) {
    for (n, next, state) in
        [(1, Next::Done, State::Done), (2, waiting(at(9)), State::Waiting), (3, dead(), State::Dead)]
    {
        let job = claim(n, &format!("job {n}"), at(0));
        bench.run(at(1), &job).await;
        let mut settlement = settlement(&job, next);
        settlement.attempt = Some(Box::new(attempt(1)));
        for now in [at(2), at(3)] {
            let settled = bench.store.settle(now, std::slice::from_ref(&settlement)).await.expect("settled");
            assert_eq!(settled, [Settled::Applied(state)]);
        }
        assert_eq!(bench.store.attempts(job.instance).await.expect("journal").len(), 1, "told once");
    }
    let letters = bench.store.letters(&LetterFilter { limit: 10, ..LetterFilter::default() }).await.expect("letters");
    assert_eq!(letters.iter().map(|l| (l.instance.as_u128(), l.copies)).collect::<Vec<_>>(), [(3, 1)]);

    // the plain batch, with a settlement twice, a stranger's among them, and one of no row
    let (own, other) = (claim(4, "own", at(0)), claim(5, "other", at(0)));
    bench.run(at(1), &own).await;
    bench.run(at(1), &other).await;
    let strangers = again(&own);
    let batch: Vec<Settlement> = [&own, &strangers, &other, &own, &claim(6, "nobody's", at(0))]
        .into_iter()
        .map(|claim| settlement(claim, Next::Done))
        .collect();
    let done = Settled::Applied(State::Done);
    for now in [at(2), at(3)] {
        let settled = bench.store.settle(now, &batch).await.expect("settled");
        assert_eq!(settled, [done, Settled::Lost, done, done, Settled::Lost]);
    }
    assert_eq!(bench.row(own.instance).await.ended_at, Some(at(2)));
}

async fn a_settlement_after_a_takeover_is_lost(bench: Bench) {
    let job = claim(1, "a", at(0));
    bench.run(at(1), &job).await;
    bench.store.deregister(bench.worker).await.expect("gone");
    let taken = bench.store.sweep_run(at(20), 3, 100).await.expect("swept");
    assert_eq!(taken.len(), 1);
    assert_eq!((taken[0].key, taken[0].row.state, taken[0].row.takeovers), (job.key, State::Queued, 1));
    assert_eq!(taken[0].row, bench.row(job.instance).await);
    for next in [Next::Done, waiting(at(30)), dead()] {
        assert_eq!(bench.settle(at(21), &job, next).await, Settled::Lost);
    }
    let grant = granted(bench.wake(at(22), &wake_of(&job)).await);
    assert_eq!((grant.attempt, grant.takeovers, grant.effect_possible), (2, 1, true));
    assert_eq!(bench.settle(at(23), &job, Next::Done).await, Settled::Lost, "another token");
}

async fn the_row_carries_its_own_copies(bench: Bench) {
    for (n, state) in State::ALL.into_iter().enumerate() {
        let job = bench.job_in(state, false, n as u128, &format!("job {n}"), at(0)).await;
        let before = bench.row(job.instance).await;
        assert_eq!(bench.fresh(at(5), &again(&job)).await, Claimed::Stale, "{state:?}");
        if state != State::Queued {
            assert_eq!(bench.wake(at(5), &wake_of(&job)).await, Claimed::Stale, "{state:?}");
        }
        assert_eq!(bench.row(job.instance).await, before);
    }
    assert_eq!(bench.wake(at(5), &wake_of(&claim(99, "unknown", at(0)))).await, Claimed::Stale);
}

async fn in_the_window_of_another(bench: Bench) {
    let shapes = [
        (State::Run, false, true),
        (State::Waiting, false, true),
        (State::Queued, false, true),
        (State::Done, false, true),
        (State::Dead, true, true),
        (State::Cancelled, true, true),
        (State::Dead, false, false),
        (State::Cancelled, false, false),
    ];
    for (n, (state, effect, is_duplicate)) in (0_u128..).zip(shapes) {
        let id = format!("job {n}");
        let job = bench.job_in(state, effect, 10 * n + 1, &id, at(0)).await;
        let second = claim(10 * n + 2, &id, at(599));
        let different = FreshClaim { payload_sha256: [8; 32], ..claim(10 * n + 3, &id, at(599)) };
        if is_duplicate {
            for (copy, different_payload) in [(&second, false), (&different, true)] {
                let duplicate = Claimed::Duplicate { original: job.instance, state, different_payload };
                assert_eq!(bench.fresh(at(700), copy).await, duplicate);
                assert_eq!(bench.store.job(copy.instance).await.expect("read"), None);
            }
        } else {
            bench.run(at(700), &second).await;
            assert!(!bench.row(job.instance).await.holds_key, "the key was free");
            assert!(bench.row(second.instance).await.holds_key);
        }
        assert_eq!(bench.state(job.instance).await, state);
    }
}

async fn out_of_the_window_of_another(bench: Bench) {
    for (n, state) in (0_u128..).zip(State::ALL) {
        let id = format!("job {n}");
        let job = bench.job_in(state, !state.is_alive(), 10 * n + 1, &id, at(0)).await;
        let later = claim(10 * n + 2, &id, at(600));
        let claimed = bench.fresh(at(700), &later).await;
        let (old, new) = (bench.row(job.instance).await, bench.row(later.instance).await);
        if state.is_alive() {
            assert_eq!(claimed, Claimed::Parked);
            assert_eq!((new.state, new.reason.as_str(), new.holds_key), (State::Waiting, "key_busy", false));
            assert!(old.holds_key);
        } else {
            assert!(matches!(claimed, Claimed::Run(_)));
            assert!(new.holds_key && !old.holds_key, "it gives up the key");
            let near_both = claim(10 * n + 3, &id, at(300));
            assert!(
                matches!(bench.fresh(at(701), &near_both).await, Claimed::Duplicate { .. }),
                "every row is looked at"
            );
            assert_eq!(bench.settle(at(702), &later, Next::Done).await, Settled::Applied(State::Done));
            let third = claim(10 * n + 4, &id, at(1_200));
            bench.run(at(1_300), &third).await;
            assert_eq!(
                bench.settle(at(1_301), &later, Next::Done).await,
                Settled::Applied(State::Done),
                "displaced meanwhile"
            );
            let near_first = claim(10 * n + 5, &id, at(-1));
            let original = job.instance;
            let duplicate = Claimed::Duplicate { original, state, different_payload: false };
            assert_eq!(bench.fresh(at(1_302), &near_first).await, duplicate, "displaced rows too");
        }
    }
}

async fn several_claims_of_one_key_in_a_batch(bench: Bench) {
    let first = claim(1, "a", at(0));
    let batch = [
        first.clone(),
        claim(2, "b", at(0)),
        again(&first),
        claim(3, "a", at(10)),
        claim(4, "a", at(900)),
        claim(5, "a", at(901)),
        first.clone(),
    ];
    let answers = bench.store.claim_fresh(bench.ctx(at(1_000)), &batch).await.expect("claimed");
    let of = |original: u128, state| Claimed::Duplicate {
        original: Uuid::from_u128(original),
        state,
        different_payload: false,
    };
    assert!(matches!(answers[0], Claimed::Run(_)) && matches!(answers[1], Claimed::Run(_)));
    assert_eq!(answers[2], Claimed::Stale);
    assert_eq!(answers[3], of(1, State::Run));
    assert_eq!(answers[4], Claimed::Parked);
    assert_eq!(answers[5], of(4, State::Waiting));
    assert_eq!(answers[6], answers[0], "the same claim twice");
    assert_eq!(bench.store.claim_fresh(bench.ctx(at(1_000)), &[]).await.expect("nothing"), []);
    assert_eq!(bench.store.claim_woken(bench.ctx(at(1_000)), &[]).await.expect("nothing"), []);
    assert_eq!(bench.store.settle(at(1_000), &[]).await.expect("nothing"), []);
}

async fn followers_run_one_at_a_time_in_publish_order(bench: Bench) {
    let head = claim(1, "a", at(0));
    bench.run(at(1), &head).await;
    // they come in another order than they were published
    for (n, published) in [(4, 3_000), (2, 1_000), (3, 2_000)] {
        assert_eq!(bench.fresh(at(5_000), &claim(n, "a", at(published))).await, Claimed::Parked);
    }
    assert_eq!(bench.release(at(6_000)).await, [], "the key is busy");
    assert_eq!(bench.store.next_due(&lane("bulk")).await.expect("next"), None);
    bench.settle(at(6_000), &head, Next::Done).await;

    for n in [2, 3, 4] {
        assert_eq!(bench.store.next_due(&lane("bulk")).await.expect("next"), Some(at(5_000)));
        let wakes = bench.release(at(6_001)).await;
        assert_eq!(instances(&wakes), [n]);
        assert_eq!(bench.release(at(6_002)).await, [], "one of a key at a time");
        assert_eq!(bench.store.next_due(&lane("bulk")).await.expect("next"), None);
        let grant = granted(bench.wake(at(6_003), &wakes[0]).await);
        assert_eq!((grant.attempt, grant.released_at), (1, Some(at(6_001))));
        assert_eq!(grant.stored.expect("its payload").payload.body, format!("body {n}").as_bytes());
        let row = bench.row(wakes[0].instance).await;
        assert!(row.holds_key && row.state == State::Run);
        assert_eq!(bench.release(at(6_004)).await, []);
        let token = Uuid::new_v4();
        // it is taken over and settled like any other
        bench.store.deregister(bench.worker).await.expect("gone");
        assert_eq!(bench.store.sweep_run(at(6_005), 3, 10).await.expect("swept").len(), 1);
        let woken = WokenClaim { key: wakes[0].key, instance: wakes[0].instance, token };
        assert!(matches!(
            bench.store.claim_woken(bench.ctx(at(6_006)), &[woken]).await.expect("claimed")[0],
            Claimed::Run(_)
        ));
        let settlement = Settlement { token, instance: woken.instance, ..settlement(&head, Next::Done) };
        assert_eq!(
            bench.store.settle(at(6_007), &[settlement]).await.expect("settled"),
            [Settled::Applied(State::Done)]
        );
    }
    assert_eq!(bench.release(at(6_010)).await, []);
}

async fn a_replay_looks_before_it_runs(bench: Bench) {
    let first = bench.job_in(State::Dead, false, 1, "a", at(0)).await;
    let corrected = claim(2, "a", at(10));
    bench.run(at(11), &corrected).await;
    bench.settle(at(12), &corrected, Next::Done).await;
    assert_eq!(bench.store.replay(first.instance, at(20)).await.expect("replayed"), Replayed::Waiting(2));
    let wakes = bench.release(at(20)).await;
    assert_eq!(instances(&wakes), [1]);
    let Claimed::Superseded { by, row } = bench.wake(at(21), &wakes[0]).await else { panic!("it ran twice") };
    assert_eq!((by, row.state, row.reason.as_str()), (corrected.instance, State::Dead, "superseded"));
    assert_eq!(row, bench.row(first.instance).await);
    let letter = bench.store.letter(first.instance).await.expect("read").expect("a letter again");
    assert_eq!((letter.letter.reason, letter.letter.generation), (DeadReason::Superseded, 2));
    assert_eq!(letter.payload, first.payload);
    assert!(bench.row(corrected.instance).await.holds_key);
}

async fn a_released_replay_gives_way_to_a_busy_key(bench: Bench) {
    let first = bench.job_in(State::Dead, false, 1, "a", at(0)).await;
    bench.store.replay(first.instance, at(20)).await.expect("replayed");
    let wakes = bench.release(at(20)).await;
    let later = claim(2, "a", at(600));
    bench.run(at(601), &later).await;
    assert_eq!(bench.wake(at(602), &wakes[0]).await, Claimed::Parked);
    let row = bench.row(first.instance).await;
    assert_eq!((row.state, row.reason.as_str(), row.resume_at), (State::Waiting, "key_busy", Some(at(602))));
    assert_eq!(bench.release(at(603)).await, []);
    bench.settle(at(604), &later, Next::Done).await;
    let wakes = bench.release(at(605)).await;
    let grant = granted(bench.wake(at(606), &wakes[0]).await);
    assert_eq!(
        (grant.instance, grant.generation, grant.attempt),
        (first.instance, 2, 1),
        "out of the window of the other"
    );
    assert!(bench.row(first.instance).await.holds_key && !bench.row(later.instance).await.holds_key);
}

async fn a_replay_runs_again_with_its_payload(bench: Bench) {
    let job = bench.job_in(State::Dead, true, 1, "a", at(0)).await;
    let letter = bench.store.letter(job.instance).await.expect("read").expect("a letter");
    assert_eq!(letter.payload, job.payload);
    let expected = Letter {
        instance: job.instance,
        lane: job.lane.clone(),
        tenant: Some(job.tenant.clone()),
        id: Some("a".to_owned()),
        endpoint: Some("crm".to_owned()),
        reason: DeadReason::Exhausted,
        detail: "five\u{fffd}times".to_owned(),
        published_at: Some(at(0)),
        died_at: at(0),
        attempts: 1,
        generation: 1,
        copies: 1,
        raw: false,
        body_bytes: 6,
    };
    assert_eq!(letter.letter, expected);
    assert_eq!(bench.store.replay(job.instance, at(20)).await.expect("replayed"), Replayed::Waiting(2));
    assert_eq!(bench.store.replay(job.instance, at(20)).await.expect("replayed"), Replayed::NotFound);
    assert_eq!(bench.store.letter(job.instance).await.expect("read"), None);
    let row = bench.row(job.instance).await;
    assert_eq!((row.state, row.reason.as_str(), row.attempt), (State::Waiting, "replay", 0));
    assert!(row.effect_possible && !row.holds_key);
    let wakes = bench.release(at(20)).await;
    let grant = granted(bench.wake(at(21), &wakes[0]).await);
    assert_eq!((grant.attempt, grant.generation, grant.effect_possible), (1, 2, true));
    assert_eq!(grant.stored.expect("its payload").payload, job.payload);
}

const FORGET_ALL: Retention = Retention { published_before: at(10_000), ended_before: Timestamp::EPOCH, limit: 100 };

async fn a_replay_after_its_row_was_forgotten(bench: Bench) {
    let job = bench.job_in(State::Dead, true, 1, "a", at(0)).await;
    assert_eq!(bench.store.purge(&lane("bulk"), FORGET_ALL).await.expect("purged").by_watermark, 1);
    assert_eq!(bench.store.job(job.instance).await.expect("read"), None);
    let busy = claim(2, "a", at(6_000));
    bench.run(at(6_000), &busy).await;
    assert_eq!(bench.store.replay(job.instance, at(6_001)).await.expect("replayed"), Replayed::Waiting(2));
    assert!(bench.row(job.instance).await.effect_possible, "the doubt is never lost");
    assert_eq!(bench.release(at(6_001)).await, [], "behind the busy key");
    bench.settle(at(6_002), &busy, Next::Done).await;
    let wakes = bench.release(at(6_003)).await;
    let grant = granted(bench.wake(at(6_004), &wakes[0]).await);
    assert_eq!((grant.instance, grant.generation), (job.instance, 2));
    assert_eq!(grant.stored.expect("its payload").payload, job.payload);

    let alone = bench.job_in(State::Dead, false, 3, "b", at(0)).await;
    assert_eq!(bench.store.purge(&lane("bulk"), FORGET_ALL).await.expect("purged").by_watermark, 2);
    assert_eq!(bench.store.replay(alone.instance, at(6_001)).await.expect("replayed"), Replayed::Waiting(2));
    assert_eq!(instances(&bench.release(at(6_001)).await), [3]);
}

pub fn raw(instance: u128, lane_name: &str, reason: DeadReason, died: i64) -> RawLetter {
    let letter = Letter {
        instance: Uuid::from_u128(instance),
        lane: lane(lane_name),
        tenant: None,
        id: None,
        endpoint: Some("crm\0".to_owned()),
        reason,
        detail: "not\0JSON".to_owned(),
        published_at: None,
        died_at: at(died),
        attempts: 0,
        generation: 1,
        copies: 1,
        raw: true,
        body_bytes: 3,
    };
    RawLetter { letter, payload: Payload { meta: "{}".into(), body: (&[0xff, 0, 1][..]).into() } }
}

async fn a_replay_of_a_raw_letter(bench: Bench) {
    let letter = raw(1, "bulk", DeadReason::Undecodable, 0);
    bench.store.bury(std::slice::from_ref(&letter)).await.expect("buried");
    let Replayed::Raw(back) = bench.store.replay(letter.letter.instance, at(1)).await.expect("replayed") else {
        panic!("a raw letter has no row");
    };
    assert_eq!(back.payload, letter.payload);
    assert!(
        bench.store.letter(letter.letter.instance).await.expect("read").is_some(),
        "discarded after the publish only"
    );
    assert_eq!(bench.store.replay(Uuid::from_u128(9), at(1)).await.expect("replayed"), Replayed::NotFound);
}

async fn cancelling_in_every_state(bench: Bench) {
    for (n, state) in (1_u128..).zip(State::ALL) {
        let job = bench.job_in(state, false, n, &format!("job {n}"), at(0)).await;
        let expected = match state {
            State::Run => CancelAnswer::Running,
            State::Waiting | State::Queued => CancelAnswer::Cancelled,
            ended => CancelAnswer::Ended(ended),
        };
        assert_eq!(bench.store.cancel(job.instance, at(5)).await.expect("cancelled"), expected);
        if expected == CancelAnswer::Cancelled {
            let row = bench.row(job.instance).await;
            assert_eq!((row.state, row.ended_at, row.holds_key), (State::Cancelled, Some(at(5)), false));
            assert_eq!((row.resume_at, row.released_at), (None, None));
            assert_eq!(bench.wake(at(6), &wake_of(&job)).await, Claimed::Stale);
        }
    }
    assert_eq!(bench.release(at(100)).await, []);
    assert_eq!(bench.store.cancel(Uuid::from_u128(99), at(5)).await.expect("cancelled"), CancelAnswer::NotFound);

    let head = claim(20, "busy", at(0));
    bench.run(at(1), &head).await;
    let follower = claim(21, "busy", at(900));
    assert_eq!(bench.fresh(at(901), &follower).await, Claimed::Parked);
    assert_eq!(bench.store.cancel(follower.instance, at(902)).await.expect("cancelled"), CancelAnswer::Cancelled);
    bench.settle(at(903), &head, Next::Done).await;
    assert_eq!(bench.release(at(904)).await, []);
}

async fn hasten(bench: &Bench, instances: &[u128], now: Timestamp) -> Vec<Hastened> {
    let instances: Vec<Uuid> = instances.iter().map(|instance| Uuid::from_u128(*instance)).collect();
    bench.store.hasten(&instances, now, &controls::line("retry_now", "jobs", 1)).await.expect("answered")
}

/// What the log says was hurried, the newest first.
async fn hurried(bench: &Bench) -> Vec<String> {
    let lines = bench.store.audit(&AuditFilter::default(), LIST_MAX).await.expect("read");
    lines.into_iter().map(|row| row.entry.after).collect()
}

async fn hurrying_in_every_state(bench: Bench) {
    for (n, state) in (1_u128..).zip(State::ALL) {
        let job = bench.job_in(state, false, n, &format!("job {n}"), at(0)).await;
        let before = bench.row(job.instance).await;
        let expected = match state {
            State::Run => Hastened::Running,
            State::Waiting => Hastened::Hurried,
            State::Queued => Hastened::Due,
            ended => Hastened::Ended(ended),
        };
        assert_eq!(hasten(&bench, &[n], at(5)).await, [expected]);
        let after = bench.row(job.instance).await;
        if state == State::Waiting {
            assert_eq!(before.resume_at, Some(at(90_000)));
            assert_eq!(after, JobRow { resume_at: Some(at(5)), ..before }, "nothing else changes");
            assert_eq!(hasten(&bench, &[n], at(6)).await, [Hastened::Due]);
            assert_eq!(instances(&bench.release(at(6)).await), [n], "and it goes at once");
        } else {
            assert_eq!(after, before, "{state:?}");
        }
    }
    assert_eq!(hasten(&bench, &[99], at(5)).await, [Hastened::NotFound]);
    assert_eq!(hasten(&bench, &[], at(5)).await, []);
    assert_eq!(hurried(&bench).await, ["paused"], "one was hurried: one line");
}

async fn what_holds_a_job_back_is_not_hurried(bench: Bench) {
    let waits = FreshClaim { in_turn: Some(WaitReason::Budget), ..claim(1, "held", at(0)) };
    assert_eq!(bench.fresh(at(1), &waits).await, Claimed::InTurn);
    let head = claim(2, "busy", at(0));
    bench.run(at(1), &head).await;
    let follower = claim(3, "busy", at(900));
    assert_eq!(bench.fresh(at(901), &follower).await, Claimed::Parked);
    let before = (bench.row(waits.instance).await, bench.row(follower.instance).await);
    assert_eq!(hasten(&bench, &[1, 3], at(902)).await, [Hastened::InTurn, Hastened::KeyBusy]);
    assert_eq!((bench.row(waits.instance).await, bench.row(follower.instance).await), before);
    assert_eq!(bench.release(at(903)).await, []);
    assert_eq!(hurried(&bench).await, [""; 0], "nothing was changed, nothing is said");
    // a replay waits for its key alone, not for a time
    let dead = bench.job_in(State::Dead, false, 5, "again", at(0)).await;
    assert_eq!(bench.store.replay(dead.instance, at(904)).await.expect("replayed"), Replayed::Waiting(2));
    assert_eq!(hasten(&bench, &[5], at(904)).await, [Hastened::Due]);
}

async fn a_hurried_job_may_be_called_before_its_time(bench: Bench) {
    let payload = |meta: &str| Payload { meta: meta.to_owned().into(), body: "b".into() };
    let meta = "{\"app_id\":\"x\",\"not_before\":\"2027-01-15T08:00:00Z\"}";
    let reason = |reason| Next::Waiting { reason, resume_at: at(90_000), counted: false };
    for (n, why) in [(1, WaitReason::NotBefore), (2, WaitReason::RateLimited)] {
        let job = FreshClaim { payload: payload(meta), ..claim(n, &format!("{n}"), at(0)) };
        bench.run(at(1), &job).await;
        bench.settle(at(2), &job, reason(why)).await;
    }
    assert_eq!(hasten(&bench, &[1, 2], at(5)).await, [Hastened::Hurried; 2]);
    let stored = async |n| bench.store.payload(Uuid::from_u128(n)).await.expect("read").expect("it has one");
    assert_eq!(stored(1).await, payload("{\"app_id\":\"x\"}"), "who said that it may go now has said it for good");
    assert_eq!(stored(2).await, payload(meta), "what it does not wait for stays");
}

async fn many_are_hurried_with_one_line(bench: Bench) {
    for n in 1..=20_u128 {
        bench.job_in(State::Waiting, false, n, &format!("job {n}"), at(0)).await;
    }
    bench.job_in(State::Run, false, 21, "job 21", at(0)).await;
    // some of them named twice, one that is not there
    let all: Vec<u128> = (1..=21).chain([1, 99]).collect();
    let answers = hasten(&bench, &all, at(5)).await;
    let expected: Vec<Hastened> = std::iter::repeat_n(Hastened::Hurried, 20)
        .chain([Hastened::Running, Hastened::Due, Hastened::NotFound])
        .collect();
    assert_eq!(answers, expected);
    assert_eq!(bench.release(at(5)).await.len(), 20);
    assert_eq!(hurried(&bench).await, ["paused: 20 jobs"]);
}

async fn a_cancel_while_it_runs_ends_it_instead_of_waiting(bench: Bench) {
    let nexts = [(waiting(at(9)), State::Cancelled), (Next::Done, State::Done), (dead(), State::Dead)];
    for (n, (next, state)) in (1_u128..).zip(nexts) {
        let job = claim(n, &format!("job {n}"), at(0));
        bench.run(at(1), &job).await;
        assert_eq!(bench.store.cancel(job.instance, at(2)).await.expect("asked"), CancelAnswer::Running);
        assert!(bench.row(job.instance).await.cancel_requested);
        assert_eq!(bench.settle(at(3), &job, next).await, Settled::Applied(state));
    }
    let job = claim(9, "swept", at(0));
    bench.run(at(1), &job).await;
    bench.store.cancel(job.instance, at(2)).await.expect("asked");
    bench.store.deregister(bench.worker).await.expect("gone");
    let taken = bench.store.sweep_run(at(3), 3, 10).await.expect("swept");
    assert_eq!(taken.iter().map(|t| t.row.state).collect::<Vec<_>>(), [State::Cancelled]);
}

async fn a_job_that_kills_its_workers_is_poison(bench: Bench) {
    let job = claim(1, "a", at(0));
    let alive = claim(2, "b", at(0));
    bench.run(at(1), &job).await;
    let survivor = bench.store.register("host:2", "bulk", at(0)).await.expect("registered");
    let ctx = ClaimContext { worker: survivor, ..bench.ctx(at(1)) };
    bench.store.claim_fresh(ctx, std::slice::from_ref(&alive)).await.expect("claimed");

    for death in 1..=3 {
        assert_eq!(bench.store.bury_workers(at(0), survivor).await.expect("nobody"), 0);
        bench.store.deregister(bench.worker).await.expect("dead");
        let taken = bench.store.sweep_run(at(10 * death), 3, 100).await.expect("swept");
        assert_eq!(taken.len(), 1, "only the dead worker's");
        let row = &taken[0].row;
        assert_eq!(i64::from(row.takeovers), death);
        if death < 3 {
            assert_eq!(row.state, State::Queued);
            let grant = granted(bench.wake(at(10 * death + 1), &wake_of(&job)).await);
            assert_eq!(i64::from(grant.attempt), death + 1);
        } else {
            assert_eq!((row.state, row.reason.as_str(), row.holds_key), (State::Dead, "poison", true));
        }
    }
    let letter = bench.store.letter(job.instance).await.expect("read").expect("a letter");
    assert_eq!((letter.letter.reason, letter.letter.attempts), (DeadReason::Poison, 3));
    assert_eq!(letter.payload, job.payload);
    assert_eq!(bench.state(alive.instance).await, State::Run);
}

async fn an_identity_without_a_time_is_minted_anew(bench: Bench) {
    let untimed = |redelivered| FreshClaim { identity: Identity::DerivedUntimed, redelivered, ..claim(1, "a", at(0)) };
    let first = untimed(false);
    bench.run(at(0), &first).await;
    assert_eq!(bench.fresh(at(1), &untimed(true)).await, Claimed::Stale);
    bench.settle(at(2), &first, Next::Done).await;
    assert_eq!(bench.fresh(at(3), &untimed(true)).await, Claimed::Stale, "a redelivery soon after");

    let duplicate = Claimed::Duplicate { original: first.instance, state: State::Done, different_payload: false };
    assert_eq!(bench.fresh(at(4), &untimed(false)).await, duplicate, "published again in the window");
    let equal = FreshClaim { published_at: at(700), ..untimed(false) };
    let grant = bench.run(at(700), &equal).await;
    assert_ne!(grant.instance, first.instance, "published again out of the window");
    assert_eq!(bench.row(grant.instance).await.published_at, at(700));
    assert_eq!(bench.run(at(701), &equal).await, grant, "its answer was lost: the same instance again");
    let settlement = Settlement { instance: grant.instance, ..settlement(&equal, Next::Done) };
    assert_eq!(bench.store.settle(at(702), &[settlement]).await.expect("settled"), [Settled::Applied(State::Done)]);
}

async fn what_waits_and_what_is_queued_is_counted(bench: Bench) {
    for (n, state) in [(1, State::Run), (2, State::Waiting), (3, State::Queued), (4, State::Done), (5, State::Dead)] {
        bench.job_in(state, false, n, &format!("job {n}"), at(i64::try_from(n).expect("small"))).await;
    }
    assert_eq!(bench.fresh(at(900), &claim(6, "job 2", at(900))).await, Claimed::Parked);
    let counts = bench.store.state_counts().await.expect("counts");
    let shown: Vec<_> =
        counts.iter().map(|c| (c.state, c.reason.as_str(), c.jobs, c.oldest_published_at, c.next_resume_at)).collect();
    assert_eq!(
        shown,
        [
            (State::Waiting, "key_busy", 1, Some(at(900)), Some(at(900))),
            (State::Waiting, "rate_limited", 1, Some(at(2)), Some(at(90_000))),
            (State::Queued, "", 1, Some(at(3)), None),
        ]
    );
}

async fn calls_that_were_not_made_are_not_counted(bench: Bench) {
    let job = claim(1, "a", at(0));
    bench.run(at(1), &job).await;
    let paused = Next::Waiting { reason: WaitReason::Paused, resume_at: at(5), counted: false };
    assert_eq!(bench.settle(at(2), &job, paused).await, Settled::Applied(State::Waiting));
    let row = bench.row(job.instance).await;
    assert_eq!((row.attempt, row.reason.as_str(), row.resume_at), (0, "paused", Some(at(5))));
    let counts = bench.store.state_counts().await.expect("counts");
    assert_eq!((counts[0].reason.as_str(), counts[0].next_resume_at), ("paused", Some(at(5))));
    assert_eq!(bench.release(at(4)).await, [], "not before its time");
    let wakes = bench.release(at(5)).await;
    assert_eq!(granted(bench.wake(at(6), &wakes[0]).await).attempt, 1);
}

async fn the_journal_keeps_what_was_told(bench: Bench) {
    let job = claim(1, "a", at(0));
    bench.run(at(1), &job).await;
    let odd = AttemptRecord {
        status: None,
        retry_after_ms: None,
        resume_at: None,
        rate_headers: Vec::new(),
        detail: "a\0b".to_owned(),
        ..attempt(1)
    };
    let first = Settlement { attempt: Some(Box::new(odd.clone())), ..settlement(&job, waiting(at(2))) };
    bench.store.settle(at(2), &[first]).await.expect("settled");
    bench.release(at(2)).await;
    let woken = WokenClaim { key: job.key, instance: job.instance, token: Uuid::new_v4() };
    bench.store.claim_woken(bench.ctx(at(3)), &[woken]).await.expect("claimed");
    let second = Settlement { attempt: Some(Box::new(attempt(2))), token: woken.token, ..settlement(&job, Next::Done) };
    bench.store.settle(at(4), &[second]).await.expect("settled");
    let journal = bench.store.attempts(job.instance).await.expect("journal");
    assert_eq!(journal, [AttemptRecord { detail: "a\u{fffd}b".to_owned(), ..odd }, attempt(2)]);
    bench.store.purge(&lane("bulk"), FORGET_ALL).await.expect("purged");
    assert_eq!(bench.store.attempts(job.instance).await.expect("journal"), [], "forgotten with its job");
}

async fn raw_letters_count_their_copies(bench: Bench) {
    let letter = raw(1, "bulk", DeadReason::Undecodable, 5);
    let again = raw(1, "bulk", DeadReason::Undecodable, 9);
    bench.store.bury(&[letter.clone(), letter, raw(2, "bulk", DeadReason::TooLarge, 6)]).await.expect("buried");
    bench.store.bury(&[again]).await.expect("buried");
    let letters = bench.store.letters(&LetterFilter { limit: 10, ..LetterFilter::default() }).await.expect("letters");
    let shown: Vec<_> = letters.iter().map(|l| (l.instance.as_u128(), l.copies, l.died_at, l.raw)).collect();
    assert_eq!(shown, [(1, 3, at(9), true), (2, 1, at(6), true)]);
    assert_eq!((letters[0].detail.as_str(), letters[0].body_bytes), ("not\u{fffd}JSON", 3));
}

async fn letters_are_filtered_discarded_and_forgotten(bench: Bench) {
    let job = bench.job_in(State::Dead, false, 1, "a", at(0)).await;
    bench
        .store
        .bury(&[raw(2, "bulk", DeadReason::TooLarge, 10), raw(3, "realtime", DeadReason::Undecodable, 20)])
        .await
        .expect("buried");
    let list = async |filter: LetterFilter| -> Vec<u128> {
        let letters = bench.store.letters(&LetterFilter { limit: filter.limit.max(1), ..filter }).await;
        letters.expect("letters").iter().map(|letter| letter.instance.as_u128()).collect()
    };
    let all = LetterFilter { limit: 100, ..LetterFilter::default() };
    assert_eq!(list(all.clone()).await, [3, 2, 1], "newest first");
    assert_eq!(list(LetterFilter { limit: 2, ..all.clone() }).await, [3, 2]);
    let after = |seconds, instance| Some((at(seconds), Uuid::from_u128(instance)));
    assert_eq!(list(LetterFilter { after: after(20, 3), ..all.clone() }).await, [2, 1], "page by page");
    assert_eq!(list(LetterFilter { after: after(10, 2), ..all.clone() }).await, [1]);
    assert_eq!(list(LetterFilter { after: after(10, 3), ..all.clone() }).await, [2, 1]);
    assert_eq!(list(LetterFilter { lane: Some(lane("bulk")), ..all.clone() }).await, [2, 1]);
    assert_eq!(list(LetterFilter { tenant: Some(job.tenant.clone()), ..all.clone() }).await, [1]);
    assert_eq!(list(LetterFilter { endpoint: Some(job.endpoint.clone()), ..all.clone() }).await, [1]);
    assert_eq!(list(LetterFilter { reason: Some(DeadReason::TooLarge), ..all.clone() }).await, [2]);
    let counts = bench.store.letter_counts().await.expect("counts");
    assert_eq!(counts, [(lane("bulk"), 2), (lane("realtime"), 1)]);
    bench.store.bury(&[raw(4, "bulk", DeadReason::TooLarge, 30)]).await.expect("buried");
    let groups = bench.store.letter_groups(10).await.expect("groups");
    let shown: Vec<_> =
        groups.iter().map(|g| (g.endpoint.as_deref(), g.reason, g.letters, g.first_at, g.last_at)).collect();
    let unread = Some("crm\u{fffd}");
    let expected = [
        (unread, DeadReason::TooLarge, 2, at(10), at(30)),
        (Some(job.endpoint.as_str()), groups[1].reason, 1, groups[1].first_at, groups[1].last_at),
        (unread, DeadReason::Undecodable, 1, at(20), at(20)),
    ];
    assert_eq!(shown, expected, "most first");
    assert_eq!((&groups[0].tenant, &groups[1].tenant), (&None, &Some(job.tenant.clone())));
    assert_eq!(bench.store.letter_groups(1).await.expect("groups").len(), 1);
    assert!(bench.store.discard(Uuid::from_u128(4)).await.expect("discarded"));

    assert!(bench.store.discard(Uuid::from_u128(2)).await.expect("discarded"));
    assert!(!bench.store.discard(Uuid::from_u128(2)).await.expect("discarded"));
    assert_eq!(bench.store.purge_letters(at(20), 10).await.expect("purged"), 1, "died before");
    assert_eq!(list(all).await, [3]);
    assert_eq!(bench.state(job.instance).await, State::Dead, "its row goes by its own rule");
}

async fn jobs_are_filtered(bench: Bench) {
    for (n, lane_name, id) in [(1, "bulk", "a"), (2, "bulk", "b"), (3, "realtime", "a")] {
        let job = claim_in(lane_name, n, id, at(i64::try_from(n).expect("small")));
        bench.run(at(10), &job).await;
    }
    let parked = claim(4, "a", at(900));
    assert_eq!(bench.fresh(at(900), &parked).await, Claimed::Parked);
    let list = async |filter: JobFilter| -> Vec<u128> {
        let jobs = bench.store.jobs(&JobFilter { limit: filter.limit.max(1), ..filter }).await.expect("jobs");
        jobs.iter().map(|job| job.instance.as_u128()).collect()
    };
    let all = JobFilter { limit: 100, ..JobFilter::default() };
    assert_eq!(list(all.clone()).await, [4, 3, 2, 1], "newest publish first");
    assert_eq!(list(JobFilter { limit: usize::MAX, ..all.clone() }).await.len(), 4);
    assert_eq!(list(JobFilter { limit: 1, ..all.clone() }).await, [4]);
    let first = bench.store.jobs(&JobFilter { limit: 2, ..all.clone() }).await.expect("jobs");
    let after = first.last().map(|last| (last.published_at, last.instance));
    assert_eq!(list(JobFilter { after, ..all.clone() }).await, [2, 1], "the next page");
    let same_time = Some((first[1].published_at, Uuid::max()));
    assert_eq!(list(JobFilter { after: same_time, ..all.clone() }).await, [3, 2, 1], "equal times go by handle");
    let open = bench.store.payload(Uuid::from_u128(1)).await.expect("read");
    assert_eq!(open, Some(claim_in("bulk", 1, "a", at(1)).payload));
    assert_eq!(bench.store.payload(Uuid::from_u128(99)).await.expect("read"), None);
    assert_eq!(list(JobFilter { lane: Some(lane("bulk")), ..all.clone() }).await, [4, 2, 1]);
    assert_eq!(list(JobFilter { state: Some(State::Run), ..all.clone() }).await, [3, 2, 1]);
    assert_eq!(list(JobFilter { reason: Some("key_busy".to_owned()), ..all.clone() }).await, [4]);
    assert_eq!(list(JobFilter { id: Some("a".to_owned()), ..all.clone() }).await, [4, 3, 1]);
    let whole_key =
        JobFilter { lane: Some(lane("bulk")), tenant: Some(parked.tenant), id: Some("a".to_owned()), ..all.clone() };
    assert_eq!(list(whole_key).await, [4, 1]);
    assert_eq!(list(JobFilter { id: Some("\0".to_owned()), ..all.clone() }).await, []);
    assert_eq!(list(JobFilter { endpoint: Some(EndpointName::new("other").expect("name")), ..all }).await, []);
}

async fn releasing_is_bounded_ordered_and_per_lane(bench: Bench) {
    for (n, lane_name, due) in [(1, "bulk", 50), (2, "bulk", 30), (3, "bulk", 40), (4, "realtime", 20), (5, "bulk", 60)]
    {
        let job = claim_in(lane_name, n, &format!("job {n}"), at(0));
        bench.run(at(0), &job).await;
        bench.settle(at(1), &job, waiting(at(due))).await;
    }
    let next_due = async |name| bench.store.next_due(&lane(name)).await.expect("next");
    assert_eq!((next_due("bulk").await, next_due("realtime").await), (Some(at(30)), Some(at(20))));
    let release = async |now, limit, queued_max| {
        instances(&bench.store.release(&lane("bulk"), now, limit, queued_max).await.expect("released"))
    };
    assert_eq!(release(at(29), 10, 10).await, [0_u128; 0]);
    assert_eq!(release(at(55), 1, 10).await, [2], "oldest due first");
    assert_eq!(release(at(55), 10, 2).await, [3], "room for one more");
    assert_eq!(release(at(55), 10, 2).await, [0_u128; 0], "full");
    assert_eq!(release(at(55), 10, 10).await, [1], "5 is not due");
    assert_eq!(next_due("bulk").await, Some(at(60)));
    assert_eq!(bench.row(Uuid::from_u128(2)).await.released_at, Some(at(55)));
    assert_eq!(bench.state(Uuid::from_u128(4)).await, State::Waiting);
}

async fn what_stays_queued_is_released_again(bench: Bench) {
    let head = bench.job_in(State::Queued, false, 1, "a", at(0)).await;
    let follower = claim(2, "a", at(900));
    let sweep = async |now: Timestamp, limit| {
        instances(&bench.store.sweep_queued(&lane("bulk"), now, now.minus(GRACE), limit).await.expect("swept"))
    };
    assert_eq!(sweep(at(60), 10).await, [0_u128; 0], "in its grace");
    assert_eq!(sweep(at(61), 0).await, [0_u128; 0]);
    assert_eq!(sweep(at(61), 10).await, [1]);
    assert_eq!(sweep(at(62), 10).await, [0_u128; 0]);
    let grant = granted(bench.wake(at(63), &wake_of(&head)).await);
    assert_eq!(grant.released_at, Some(at(61)));
    assert_eq!(sweep(at(500), 10).await, [0_u128; 0], "it runs");

    assert_eq!(bench.fresh(at(901), &follower).await, Claimed::Parked);
    bench.store.deregister(bench.worker).await.expect("gone");
    bench.store.sweep_run(at(902), 1, 10).await.expect("poison");
    assert_eq!(instances(&bench.release(at(903)).await), [2]);
    assert_eq!(sweep(at(1_000), 10).await, [2], "a follower too");
}

async fn workers_come_and_go(bench: Bench) {
    let second = bench.store.register("host:2", "bulk", at(5)).await.expect("registered");
    assert_ne!(second, bench.worker);
    assert!(bench.store.heartbeat(second, at(20)).await.expect("alive"));
    let workers = bench.store.workers().await.expect("workers");
    let shown: Vec<_> = workers.iter().map(|w| (w.id, w.name.as_str(), w.started_at, w.heartbeat_at)).collect();
    assert_eq!(shown, [(bench.worker, "host:1", at(0), at(0)), (second, "host:2", at(5), at(20))]);

    assert_eq!(bench.store.bury_workers(at(10), bench.worker).await.expect("buried"), 0, "nobody buries itself");
    assert_eq!(bench.store.bury_workers(at(10), second).await.expect("buried"), 1);
    assert!(!bench.store.heartbeat(bench.worker, at(30)).await.expect("told so"), "declared dead");
    assert!(bench.store.heartbeat(second, at(30)).await.expect("alive"));
    bench.store.deregister(second).await.expect("left");
    assert_eq!(bench.store.workers().await.expect("workers"), []);
    let third = bench.store.register("host:3", "bulk", at(40)).await.expect("registered");
    assert!(third > second, "no id is used twice");
}

async fn finished_rows_are_forgotten_by_watermark_and_cap(bench: Bench) {
    for (n, published, ended) in [(1, 0, 10), (2, 100, 110), (3, 200, 210), (4, 300, 310)] {
        let job = claim(n, &format!("job {n}"), at(published));
        bench.run(at(published), &job).await;
        if n != 4 {
            bench.settle(at(ended), &job, Next::Done).await;
        }
    }
    let purge = async |lane_name, published, ended, limit| {
        let retention = Retention { published_before: at(published), ended_before: at(ended), limit };
        let purged = bench.store.purge(&lane(lane_name), retention).await.expect("purged");
        (purged.by_watermark, purged.by_cap)
    };
    assert_eq!(purge("bulk", -1, -1, 10).await, (0, 0));
    assert_eq!(purge("realtime", 500, 500, 10).await, (0, 0), "another lane's");
    assert_eq!(purge("bulk", 500, 0, 1).await, (1, 0), "a chunk, oldest first");
    assert_eq!(bench.store.job(Uuid::from_u128(1)).await.expect("read"), None);
    assert_eq!(purge("bulk", 150, 210, 10).await, (1, 1));
    assert_eq!(purge("bulk", 500, 500, 10).await, (0, 0), "the last one runs");
    assert_eq!(bench.state(Uuid::from_u128(4)).await, State::Run);
}

async fn what_followers_need_is_not_forgotten(bench: Bench) {
    let dead_one = bench.job_in(State::Dead, false, 1, "a", at(0)).await;
    let done = claim(2, "a", at(10));
    bench.run(at(10), &done).await;
    bench.settle(at(11), &done, Next::Done).await;
    bench.store.replay(dead_one.instance, at(20)).await.expect("replayed");
    let purge = async || bench.store.purge(&lane("bulk"), FORGET_ALL).await.expect("purged").by_watermark;
    assert_eq!(purge().await, 0, "the replay has to see that the other one is done");
    let wakes = bench.release(at(9_000)).await;
    assert!(matches!(bench.wake(at(9_001), &wakes[0]).await, Claimed::Superseded { .. }));
    assert_eq!(purge().await, 2);
    assert_eq!(bench.store.jobs(&JobFilter { limit: 10, ..JobFilter::default() }).await.expect("jobs"), []);

    // ended rows that were displaced go although their key is busy
    let first = bench.job_in(State::Done, false, 3, "b", at(0)).await;
    bench.run(at(700), &claim(4, "b", at(700))).await;
    assert_eq!(purge().await, 1);
    assert_eq!(bench.store.job(first.instance).await.expect("read"), None);
    assert_eq!(bench.state(Uuid::from_u128(4)).await, State::Run);
}

async fn marks_rise_and_remember(bench: Bench) {
    let bulk = lane("bulk");
    let mark = async |minutes| bench.store.mark(&bulk, minutes).await.expect("mark");
    assert_eq!(mark(0).await, None);
    for (minute, published) in [(0, 10), (0, 5), (1, 100), (5, 50), (6, 300)] {
        bench.store.raise_mark(&bulk, at(minute * 60), at(published)).await.expect("raised");
    }
    bench.store.raise_mark(&lane("realtime"), at(0), at(9_999)).await.expect("raised");
    assert_eq!(mark(0).await, Some(at(300)));
    // consuming minutes 6, 5, 1, 0: "one minute ago" is what the last minute before the newest whole one ended with
    assert_eq!(mark(1).await, Some(at(100)));
    assert_eq!(mark(2).await, Some(at(10)));
    assert_eq!(mark(3).await, None, "no such history yet");
    bench.store.raise_mark(&bulk, at(6 * 60 + 30), at(200)).await.expect("raised");
    assert_eq!(mark(0).await, Some(at(300)), "it never falls");
}

async fn two_workers_and_one_key(bench: Bench) {
    const KEYS: u128 = 200;
    for round in 0..4_u128 {
        let claims = |worker: u128| -> Vec<FreshClaim> {
            let mut claims: Vec<_> =
                (0..KEYS).map(|n| claim(10_000 * round + 1_000 * worker + n, &format!("{round} {n}"), at(0))).collect();
            if worker == 2 {
                claims.reverse();
            }
            claims
        };
        let (first, second) = (claims(1), claims(2));
        let (one, two) = tokio::join!(
            bench.store.claim_fresh(bench.ctx(at(1)), &first),
            bench.store.claim_fresh(bench.ctx(at(1)), &second)
        );
        let mut granted = HashSet::new();
        let mut runs = 0;
        for (claim, answer) in
            first.iter().chain(&second).zip(one.expect("claimed").into_iter().chain(two.expect("claimed")))
        {
            match answer {
                Claimed::Run(_) => {
                    assert!(granted.insert(claim.key), "granted twice");
                    runs += 1;
                }
                Claimed::Duplicate { state: State::Run, .. } => {}
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(runs, KEYS);
    }
}

async fn the_stores_clock_is_a_clock(bench: Bench) {
    let ours = SystemClock::new().now();
    let theirs = bench.store.time().await.expect("time");
    assert!(theirs.distance(ours) < Duration::from_mins(1), "{theirs} is not {ours}");
}

/// A release passes over what is locked: an answer that changes nothing must not leave its locks to a rollback that the pool
/// makes some time later. The runtime of this test stands still while another one looks, so nothing can be made up for.
#[tokio::test]
async fn an_answer_leaves_no_transaction_open() {
    let bench = Bench::postgres().await;
    let options = bench.pool().connect_options();
    let open = || {
        let options = Arc::clone(&options);
        let look = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(async {
                let mut other = PgConnection::connect_with(&options).await.expect("connects");
                let open = "SELECT count(*) FROM pg_stat_activity
                    WHERE datname = current_database() AND state LIKE 'idle in transaction%'";
                sqlx::query_scalar::<_, i64>(open).fetch_one(&mut other).await.expect("counted")
            })
        });
        look.join().expect("no panic")
    };
    let done = bench.job_in(State::Done, false, 1, "a", at(0)).await;
    let nobody = Uuid::from_u128(9);
    for instance in [done.instance, nobody] {
        let answer = bench.store.cancel(instance, at(20)).await.expect("asked");
        assert!(matches!(answer, CancelAnswer::Ended(State::Done) | CancelAnswer::NotFound), "{answer:?}");
        assert_eq!(open(), 0, "after {answer:?}");
        assert_eq!(bench.store.replay(instance, at(20)).await.expect("asked"), Replayed::NotFound);
        assert_eq!(open(), 0, "after the replay of {instance}");
    }
    let mut held = bench.pool().begin().await.expect("begins");
    sqlx::query("SELECT 1").execute(&mut *held).await.expect("answers");
    assert_eq!(open(), 1, "the look sees an open transaction");
    held.rollback().await.expect("ends");
}

/// The whole design of the hot table: a finished job costs one insert and one update that touches no index.
#[tokio::test]
async fn every_plain_settlement_is_a_hot_update() {
    let bench = Bench::postgres().await;
    let mut one = bench.pool().acquire().await.expect("a connection");
    for batch in 0..20_u128 {
        let claims: Vec<_> = (0..100).map(|n| claim(1_000 * batch + n, &format!("{batch} {n}"), at(0))).collect();
        bench.store.claim_fresh(bench.ctx(at(1)), &claims).await.expect("claimed");
        let settlements: Vec<_> = claims.iter().map(|claim| settlement(claim, Next::Done)).collect();
        let settled = bench.store.settle(at(2), &settlements).await.expect("settled");
        assert!(settled.iter().all(|settled| *settled == Settled::Applied(State::Done)));
    }
    // a backend reports its counters at the latest when it ends
    sqlx::query("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()")
        .execute(&mut *one)
        .await
        .expect("others end");
    let (updates, hot): (i64, i64) = loop {
        sqlx::query("SELECT pg_stat_clear_snapshot()").execute(&mut *one).await.expect("cleared");
        sqlx::query("SELECT pg_stat_force_next_flush()").execute(&mut *one).await.expect("flushed");
        let counters: (i64, i64) =
            sqlx::query_as("SELECT n_tup_upd, n_tup_hot_upd FROM pg_stat_user_tables WHERE relname = 'jobs'")
                .fetch_one(&mut *one)
                .await
                .expect("counters");
        if counters.0 >= 2_000 {
            break counters;
        }
        tokio::task::yield_now().await;
    };
    assert_eq!((updates, hot), (2_000, 2_000));
}

#[tokio::test]
async fn an_empty_database_is_told_with_what_to_do() {
    let url = services::fresh_database().await;
    let pool = db::open_postgres(&url, PgPoolUse { name: "test", connections: 1 }).expect("a pool");
    let error = lanes::store::WorkerStore::workers(&PgStore::new(pool, &url)).await.expect_err("no tables");
    assert!(matches!(&error, StoreError::Failed { why, .. } if why.contains("lanes migrate")), "{error}");
}

#[tokio::test]
async fn an_unreachable_server_is_unavailable_and_keeps_its_password() {
    for url in ["postgres://u:hunter2@127.0.0.1:1/db", "postgres://u@127.0.0.1:1/db?password=hunter2"] {
        let pool = db::open_postgres(url, PgPoolUse { name: "test", connections: 1 }).expect("a pool");
        let store = PgStore::new(pool.clone(), url);
        let error = lanes::store::WorkerStore::workers(&store).await.expect_err("nobody there");
        assert!(matches!(&error, StoreError::Unavailable { address, .. } if address.contains("127.0.0.1")), "{error}");
        let migration = db::migrate_postgres(url, &pool).await.expect_err("nobody there");
        let shown = format!("{store:?} {error} {error:?} {migration} {migration:?}");
        assert!(!shown.contains("hunter2"), "{shown}");
    }
}

#[tokio::test]
async fn only_a_value_that_is_refused_rejects_its_entry() {
    let bench = Bench::postgres().await;
    let answers = async |sql: &'static str| {
        sqlx::query(sql).execute(bench.pool()).await.expect("a change of the schema");
        bench.store.claim_fresh(bench.ctx(at(1)), &[claim(1, "a", at(0))]).await.expect_err("refused")
    };
    let error = answers("ALTER TABLE jobs ADD CHECK (endpoint <> 'crm')").await;
    assert!(matches!(error, StoreError::Rejected { .. }), "{error}");
    let error = answers("ALTER TABLE jobs RENAME TO gone").await;
    assert!(matches!(error, StoreError::Failed { .. }), "{error}");

    let bench = Bench::sqlite().await;
    let Backend::Sqlite(db, _) = &bench.backend else { unreachable!("an SQLite bench") };
    sqlx::query("CREATE TRIGGER no BEFORE INSERT ON jobs BEGIN SELECT raise(ABORT, 'no'); END")
        .execute(&db.write)
        .await
        .expect("a trigger");
    let error = bench.store.claim_fresh(bench.ctx(at(1)), &[claim(1, "a", at(0))]).await.expect_err("refused");
    assert!(matches!(error, StoreError::Rejected { .. }), "{error}");
    sqlx::query("DROP TABLE jobs").execute(&db.write).await.expect("dropped");
    let error = bench.store.claim_fresh(bench.ctx(at(1)), &[claim(1, "a", at(0))]).await.expect_err("no table");
    assert!(matches!(error, StoreError::Failed { .. }), "{error}");
}

#[tokio::test]
async fn an_instance_of_two_keys_is_rejected() {
    let bench = Bench::postgres().await;
    for id in ["a", "b"] {
        bench.run(at(0), &claim(if id == "a" { 1 } else { 2 }, id, at(0))).await;
    }
    assert_eq!(bench.fresh(at(900), &claim(3, "a", at(900))).await, Claimed::Parked);
    let error = bench.store.claim_fresh(bench.ctx(at(900)), &[claim(3, "b", at(900))]).await.expect_err("in use");
    assert!(matches!(error, StoreError::Rejected { .. }), "{error}");
}

#[tokio::test]
async fn settings_that_weaken_a_promise_are_told() {
    let bench = Bench::postgres().await;
    let warnings = bench.store.warnings().await.expect("warnings");
    assert!(warnings.iter().any(|warning| warning.contains("fsync is off")), "the tests' server: {warnings:?}");
    let bench = Bench::sqlite().await;
    let warnings = bench.store.warnings().await.expect("warnings");
    assert!(warnings.iter().any(|warning| warning.contains("synchronous")), "the tests' file: {warnings:?}");
}
