//! Random operations against a store and against a reference made of nothing but the pure decision and transitions: every
//! answer and every visible row must be equal.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use lanes::clock::Timestamp;
use lanes::job::verdict::{DeadReason, WaitReason};
use lanes::job::{DedupKey, LaneName};
use lanes::store::decide::{Copy, CopyKind, Verb, decide};
use lanes::store::transition::{self, Reason, Row, Settle};
use lanes::store::{
    CancelAnswer, ClaimContext, Claimed, FreshClaim, Granted, Hastened, IN_TURN, JobFilter, JobRow, LetterFilter, Next,
    Payload, Replayed, Retention, Settled, Settlement, State, Store, StoredJob, Turn, Wake, WokenClaim, WorkerId,
};
use uuid::Uuid;

use super::store::{Bench, WINDOW, at, claim, lane};

/// Sequences per store; each has a seed of its own, told when it fails.
const SEQUENCES: u64 = 200;
const STEPS: u32 = 45;
/// Steps between two looks at all rows; answers are compared at every step.
const LOOK_EVERY: u32 = 3;
/// What has to be seen in all sequences together: a random test that never gets there proves nothing.
const SEEN: [&str; 21] = [
    "run",
    "in turn",
    "had its turn",
    "woken",
    "parked",
    "duplicate",
    "stale",
    "superseded",
    "applied",
    "lost",
    "released",
    "swept",
    "taken over",
    "poison",
    "replayed",
    "replayed without a row",
    "cancelled",
    "running",
    "hurried",
    "purged",
    "discarded",
];
const IDS: [&str; 3] = ["a", "b", "c"];
/// Publishes per id: some in the window of each other, some not.
const PUBLISHES: u64 = 5;
const POISON_AFTER: u32 = 2;

/// SplitMix64: small, and the same on every machine.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }

    fn pick<'a, T>(&mut self, items: &'a [T]) -> Option<&'a T> {
        let at = usize::try_from(self.below(items.len().max(1) as u64)).expect("small");
        items.get(at)
    }
}

/// What a store should be: rows by instance, letters by instance.
struct Reference {
    jobs: BTreeMap<Uuid, FreshClaim>,
    rows: BTreeMap<Uuid, Row>,
    letters: BTreeMap<Uuid, Row>,
    workers: Vec<WorkerId>,
    lane: LaneName,
}

impl Reference {
    fn of_key(&self, key: DedupKey) -> Vec<Row> {
        self.rows.values().filter(|row| self.jobs[&row.instance].key == key).copied().collect()
    }

    fn key(&self, row: &Row) -> DedupKey {
        self.jobs[&row.instance].key
    }

    fn write(&mut self, row: Row) {
        let before = self.rows.insert(row.instance, row);
        if row.state == State::Dead && before.is_none_or(|before| before.state != State::Dead) {
            self.letters.insert(row.instance, row);
        }
    }

    fn claim(&mut self, ctx: &ClaimContext, copy: &Copy, key: DedupKey, in_turn: Option<WaitReason>) -> Claimed {
        let own = self.rows.get(&copy.instance).copied();
        let others: Vec<Row> = self.of_key(key).into_iter().filter(|row| row.instance != copy.instance).collect();
        let views: Vec<_> = others.iter().map(Row::view).collect();
        let verb = decide(copy, own.as_ref().map(Row::view).as_ref(), &views, ctx.now, ctx.window);
        let mut writes = transition::claim(verb, copy, own.as_ref(), &others, ctx.worker, ctx.now);
        if let Some(reason) = in_turn {
            writes = transition::claim_in_turn(writes, verb, reason, ctx.now);
        }
        for row in writes.displaced.into_iter().chain(writes.own) {
            self.write(row);
        }
        match verb {
            Verb::Run if in_turn.is_some() => Claimed::InTurn,
            Verb::Run | Verb::Continue => Claimed::Run(self.grant(copy, own)),
            Verb::Park | Verb::BackToWaiting => Claimed::Parked,
            Verb::Superseded { by } => Claimed::Superseded { by, row: self.shown(&self.rows[&copy.instance]) },
            Verb::Duplicate { of, state, different_payload } => {
                Claimed::Duplicate { original: of, state, different_payload }
            }
            Verb::Stale | Verb::Remint => Claimed::Stale,
        }
    }

    fn grant(&self, copy: &Copy, before: Option<Row>) -> Granted {
        let (row, job) = (self.rows[&copy.instance], &self.jobs[&copy.instance]);
        let stored = StoredJob {
            lane: job.lane.clone(),
            tenant: job.tenant.clone(),
            id: job.id.clone(),
            endpoint: job.endpoint.clone(),
            published_at: job.published_at,
            payload: job.payload.clone(),
        };
        Granted {
            instance: row.instance,
            attempt: row.attempt,
            generation: row.generation,
            takeovers: row.takeovers,
            effect_possible: row.effect_possible,
            released_at: before.and_then(|before| before.released_at),
            held_since: row.held_since,
            stored: (copy.kind == CopyKind::WakeUp).then(|| Box::new(stored)),
        }
    }

    fn settle(&mut self, now: Timestamp, settlement: &Settlement) -> Settled {
        let Some(row) = self.rows.get(&settlement.instance) else { return Settled::Lost };
        let settle = transition::settle(row, settlement.token, &settlement.next, settlement.effect_possible, now);
        if let Settle::Write(row) = settle {
            self.write(row);
        }
        settle.answer()
    }

    /// Rows that may be released, the first due first.
    fn due(&self, now: Timestamp) -> Vec<Row> {
        let mut due: Vec<Row> = self.rows.values().filter(|row| self.is_next(row, now)).copied().collect();
        due.retain(|row| row.resume_at.is_some_and(|at| at <= now));
        due.sort_by_key(|row| row.resume_at);
        due
    }

    /// It waits and is the one of its key to go on next, as far as rows due at `now` are concerned.
    fn is_next(&self, row: &Row, now: Timestamp) -> bool {
        let others = self.of_key(self.key(row));
        let mut others = others.iter().filter(|other| other.instance != row.instance);
        let before = |other: &Row| {
            other.resume_at.is_some_and(|at| at <= now)
                && (other.published_at, other.instance) < (row.published_at, row.instance)
        };
        row.state == State::Waiting
            && (row.holds_key || !others.any(|other| other.is_busy() || other.state == State::Queued || before(other)))
    }

    fn queued(&self) -> usize {
        self.rows.values().filter(|row| row.state == State::Queued).count()
    }

    fn wake(&self, row: &Row) -> Wake {
        Wake { lane: self.lane.clone(), key: self.key(row), instance: row.instance }
    }

    fn shown(&self, row: &Row) -> JobRow {
        let job = &self.jobs[&row.instance];
        JobRow {
            instance: row.instance,
            lane: job.lane.clone(),
            tenant: job.tenant.clone(),
            id: job.id.clone(),
            endpoint: job.endpoint.clone(),
            published_at: row.published_at,
            state: row.state,
            reason: row.reason.as_str().to_owned(),
            attempt: row.attempt,
            generation: row.generation,
            takeovers: row.takeovers,
            effect_possible: row.effect_possible,
            cancel_requested: row.cancel_requested,
            holds_key: row.holds_key,
            resume_at: row.resume_at,
            released_at: row.released_at,
            ended_at: row.ended_at,
            held_since: row.held_since,
            worker: row.worker,
        }
    }
}

fn kind_of(claimed: &Claimed) -> &'static str {
    match claimed {
        Claimed::Run(Granted { stored: None, .. }) => "run",
        Claimed::Run(_) => "woken",
        Claimed::InTurn => "in turn",
        Claimed::Parked => "parked",
        Claimed::Duplicate { .. } => "duplicate",
        Claimed::Stale => "stale",
        Claimed::Superseded { .. } => "superseded",
    }
}

struct Sequence<'a> {
    bench: &'a Bench,
    reference: Reference,
    random: Random,
    now: Timestamp,
    /// Claims that were made: what may be settled, and claimed again with the same token.
    claims: Vec<(DedupKey, Uuid, Uuid)>,
    seen: &'a mut BTreeSet<&'static str>,
}

impl<'a> Sequence<'a> {
    fn new(bench: &'a Bench, number: u64, seen: &'a mut BTreeSet<&'static str>) -> Self {
        let mut random = Random(number);
        let mut jobs = BTreeMap::new();
        for (n, id) in IDS.iter().enumerate() {
            for publish in 0..PUBLISHES {
                let seconds = i64::try_from(random.below(2_000)).expect("small");
                let mut job = claim(u128::from(1 + 100 * n as u64 + publish), id, at(seconds));
                job.payload = Payload { meta: "{}".into(), body: format!("{id}{publish}").into() };
                if random.chance(20) {
                    job.payload_sha256 = [9; 32];
                }
                jobs.insert(job.instance, job);
            }
        }
        let workers = vec![bench.worker];
        let reference =
            Reference { jobs, rows: BTreeMap::new(), letters: BTreeMap::new(), workers, lane: lane("bulk") };
        Self { bench, reference, random, now: at(2_000), claims: Vec::new(), seen }
    }

    async fn step(&mut self) {
        self.now = self.now.plus(Duration::from_micros(1 + self.random.below(60_000_000)));
        match self.random.below(100) {
            0..25 => self.claim_fresh().await,
            25..45 => self.claim_woken().await,
            45..65 => self.settle().await,
            65..74 => self.release().await,
            74..79 => self.release_turns().await,
            79..82 => self.sweep_queued().await,
            82..87 => self.sweep_run().await,
            87..93 => self.replay().await,
            93..97 => self.cancel().await,
            97..98 => self.discard().await,
            _ => self.purge().await,
        }
        if self.random.chance(20) {
            self.hasten().await;
        }
    }

    fn ctx(&mut self) -> ClaimContext {
        let worker = *self.random.pick(&self.reference.workers).expect("a worker");
        ClaimContext { worker, now: self.now, window: WINDOW }
    }

    fn token(&mut self) -> Uuid {
        Uuid::from_u64_pair(self.random.next(), self.random.next())
    }

    async fn claim_fresh(&mut self) {
        let ctx = self.ctx();
        let jobs: Vec<FreshClaim> = self.reference.jobs.values().cloned().collect();
        let mut batch = Vec::new();
        for _ in 0..=self.random.below(4) {
            let mut claim = self.random.pick(&jobs).expect("jobs").clone();
            claim.redelivered = self.random.chance(30);
            claim.token = self.token();
            claim.in_turn = self.random.chance(25).then_some(WaitReason::Budget);
            if let (true, Some((_, instance, token))) = (self.random.chance(15), self.random.pick(&self.claims)) {
                claim = FreshClaim { token: *token, ..self.reference.jobs[instance].clone() };
            }
            self.claims.push((claim.key, claim.instance, claim.token));
            batch.push(claim);
        }
        let answers = self.bench.store.claim_fresh(ctx, &batch).await.expect("claimed");
        for (claim, answer) in batch.iter().zip(answers) {
            let kind = CopyKind::Fresh {
                published_at: claim.published_at,
                payload_sha256: claim.payload_sha256,
                identity: claim.identity,
                redelivered: claim.redelivered,
            };
            let copy = Copy { kind, instance: claim.instance, token: claim.token };
            self.seen.insert(kind_of(&answer));
            assert_eq!(answer, self.reference.claim(&ctx, &copy, claim.key, claim.in_turn), "{claim:?}");
        }
    }

    async fn claim_woken(&mut self) {
        let ctx = self.ctx();
        let queued: Vec<Uuid> = self.of_state(State::Queued);
        let all: Vec<Uuid> = self.reference.jobs.keys().copied().collect();
        let mut batch = Vec::new();
        for _ in 0..=self.random.below(4) {
            let from = if self.random.chance(80) && !queued.is_empty() { &queued } else { &all };
            let instance = *self.random.pick(from).expect("jobs");
            let mut claim = WokenClaim { key: self.reference.jobs[&instance].key, instance, token: self.token() };
            if let (true, Some((key, instance, token))) = (self.random.chance(15), self.random.pick(&self.claims)) {
                claim = WokenClaim { key: *key, instance: *instance, token: *token };
            }
            self.claims.push((claim.key, claim.instance, claim.token));
            batch.push(claim);
        }
        let answers = self.bench.store.claim_woken(ctx, &batch).await.expect("claimed");
        for (claim, answer) in batch.iter().zip(answers) {
            let copy = Copy { kind: CopyKind::WakeUp, instance: claim.instance, token: claim.token };
            self.seen.insert(kind_of(&answer));
            assert_eq!(answer, self.reference.claim(&ctx, &copy, claim.key, None), "{claim:?}");
        }
    }

    fn of_state(&self, state: State) -> Vec<Uuid> {
        let rows = self.reference.rows.values().filter(|row| row.state == state);
        rows.map(|row| row.instance).collect()
    }

    fn next(&mut self, only_done: bool) -> Next {
        let counted = self.random.chance(80);
        match self.random.below(5) {
            _ if only_done => Next::Done,
            0 => Next::Done,
            1 => Next::Waiting { reason: WaitReason::Budget, resume_at: IN_TURN, counted },
            2 => {
                let delay = Duration::from_micros(self.random.below(90_000_000));
                Next::Waiting { reason: WaitReason::Transient, resume_at: self.now.plus(delay), counted }
            }
            _ => Next::Dead { reason: DeadReason::Failed, detail: "no".to_owned(), counted },
        }
    }

    async fn settle(&mut self) {
        let only_done = self.random.chance(40);
        let running: Vec<(DedupKey, Uuid, Uuid)> = (self.reference.rows.values())
            .filter(|row| row.state == State::Run)
            .map(|row| (self.reference.key(row), row.instance, row.token.expect("a claimed row")))
            .collect();
        let mut batch = Vec::new();
        for _ in 0..=self.random.below(3) {
            let from = if self.random.chance(75) { &running } else { &self.claims };
            let Some(&(key, instance, token)) = self.random.pick(from) else { continue };
            let next = self.next(only_done);
            let effect_possible = self.random.chance(25);
            batch.push(Settlement { key, instance, token, next, effect_possible, attempt: None });
        }
        let answers = self.bench.store.settle(self.now, &batch).await.expect("settled");
        for (settlement, answer) in batch.iter().zip(answers) {
            self.seen.insert(if answer == Settled::Lost { "lost" } else { "applied" });
            assert_eq!(answer, self.reference.settle(self.now, settlement), "{settlement:?}");
        }
    }

    async fn release(&mut self) {
        let limit = usize::try_from(self.random.below(4)).expect("small");
        let queued_max = usize::try_from(1 + self.random.below(6)).expect("small");
        let wakes =
            self.bench.store.release(&self.reference.lane, self.now, limit, queued_max).await.expect("released");
        let due = self.reference.due(self.now);
        let room = limit.min(queued_max.saturating_sub(self.reference.queued())).min(due.len());
        let resumes = |rows: &[Row]| rows.iter().map(|row| row.resume_at).collect::<Vec<_>>();
        // rows due at the same moment have no order
        let released: Vec<Row> = wakes.iter().map(|wake| self.reference.rows[&wake.instance]).collect();
        assert_eq!(resumes(&released), resumes(&due[..room]), "released {wakes:?} of {due:?}");
        for (wake, row) in wakes.iter().zip(released) {
            self.seen.insert("released");
            assert!(due.contains(&row), "{row:?} may not be released");
            assert_eq!(*wake, self.reference.wake(&row));
            self.reference.write(transition::release(&row, true, self.now).expect("due"));
        }
    }

    async fn release_turns(&mut self) {
        let jobs = 1 + u32::try_from(self.random.below(3)).expect("small");
        let queued = self.reference.queued() as u64;
        let first = self.reference.jobs.values().next().expect("jobs");
        let turn = Turn { endpoint: first.endpoint.clone(), tenant: first.tenant.clone(), jobs, queued };
        let wakes = self.bench.store.release_turns(&self.reference.lane, self.now, &[turn]).await.expect("released");
        let rows = self.reference.rows.values();
        let mut waiting: Vec<Row> = rows.filter(|row| row.resume_at == Some(IN_TURN)).copied().collect();
        waiting.sort_by_key(|row| row.published_at);
        let published = |rows: &[Row]| rows.iter().map(|row| row.published_at).collect::<Vec<_>>();
        let released: Vec<Row> = wakes.iter().map(|wake| self.reference.rows[&wake.instance]).collect();
        let expected = &waiting[..waiting.len().min(jobs as usize)];
        assert_eq!(published(&released), published(expected), "those published first go first");
        for row in released {
            self.seen.insert("had its turn");
            assert!(row.holds_key && row.held_since.is_some(), "{row:?} waits for its turn");
            let due = Row { resume_at: Some(self.now), ..row };
            self.reference.write(transition::release(&due, true, self.now).expect("due"));
        }
    }

    async fn sweep_queued(&mut self) {
        let before = self.now.minus(Duration::from_micros(self.random.below(200_000_000)));
        let limit = usize::try_from(self.random.below(4)).expect("small");
        let store = &self.bench.store;
        let wakes = store.sweep_queued(&self.reference.lane, self.now, before, limit).await.expect("swept");
        let rows = self.reference.rows.values().copied();
        let overdue: Vec<Row> = rows.filter(|row| transition::sweep_queued(row, before, self.now).is_some()).collect();
        assert_eq!(wakes.len(), limit.min(overdue.len()), "{overdue:?}");
        for wake in wakes {
            self.seen.insert("swept");
            let row = overdue.iter().find(|row| row.instance == wake.instance).expect("overdue");
            assert_eq!(wake, self.reference.wake(row));
            self.reference.write(transition::sweep_queued(row, before, self.now).expect("overdue"));
        }
    }

    async fn sweep_run(&mut self) {
        let store = &self.bench.store;
        if self.random.chance(60) {
            let dead = self.reference.workers.remove(0);
            store.deregister(dead).await.expect("gone");
        }
        if self.reference.workers.len() < 2 {
            self.reference.workers.push(store.register("host:n", "bulk", self.now).await.expect("registered"));
        }
        let taken = store.sweep_run(self.now, POISON_AFTER, 100).await.expect("swept");
        let orphans: Vec<Row> = (self.reference.rows.values())
            .filter(|row| row.worker.is_some_and(|worker| !self.reference.workers.contains(&worker)))
            .copied()
            .collect();
        assert_eq!(taken.len(), orphans.len());
        for taken in taken {
            let row = orphans.iter().find(|row| row.instance == taken.row.instance).expect("an orphan");
            self.seen.insert(if taken.row.state == State::Dead { "poison" } else { "taken over" });
            let after = transition::sweep_run(row, POISON_AFTER, self.now).expect("it runs");
            assert_eq!((taken.row, taken.key), (self.reference.shown(&after), self.reference.key(row)));
            self.reference.write(after);
        }
    }

    async fn replay(&mut self) {
        let letters: Vec<Uuid> = self.reference.letters.keys().copied().collect();
        let all: Vec<Uuid> = self.reference.jobs.keys().copied().collect();
        let from = if self.random.chance(85) && !letters.is_empty() { &letters } else { &all };
        let instance = *self.random.pick(from).expect("jobs");
        let answer = self.bench.store.replay(instance, self.now).await.expect("replayed");
        // a row that was forgotten comes back from its letter; one that a late copy brought back makes the letter void
        let letter = self.reference.letters.get(&instance);
        let kept = letter.map(|letter| {
            let forgotten = Row { token: None, ..*letter };
            self.reference.rows.get(&instance).copied().unwrap_or(forgotten)
        });
        let Some(after) = kept.and_then(|row| transition::replay(&row, self.now)) else {
            return assert_eq!(answer, Replayed::NotFound);
        };
        self.reference.letters.remove(&instance);
        let forgotten = !self.reference.rows.contains_key(&instance);
        self.seen.insert(if forgotten { "replayed without a row" } else { "replayed" });
        assert_eq!(answer, Replayed::Waiting(after.generation));
        self.reference.write(after);
    }

    async fn hasten(&mut self) {
        let all: Vec<Uuid> = self.reference.jobs.keys().copied().collect();
        let mut picked = self.of_state(State::Waiting);
        picked.extend((0..2).filter_map(|_| self.random.pick(&all).copied()));
        let line = super::controls::line("retry_now", "some jobs", 0);
        let answers = self.bench.store.hasten(&picked, self.now, &line).await.expect("answered");
        for (instance, answer) in picked.iter().zip(answers) {
            let Some(row) = self.reference.rows.get(instance) else {
                assert_eq!(answer, Hastened::NotFound);
                continue;
            };
            let (expected, after) = transition::hasten(row, self.now);
            assert_eq!(answer, expected, "{row:?}");
            if let Some(row) = after {
                self.seen.insert("hurried");
                self.reference.write(row);
            }
        }
    }

    async fn cancel(&mut self) {
        let all: Vec<Uuid> = self.reference.jobs.keys().copied().collect();
        let instance = *self.random.pick(&all).expect("jobs");
        let answer = self.bench.store.cancel(instance, self.now).await.expect("cancelled");
        let Some(row) = self.reference.rows.get(&instance) else {
            return assert_eq!(answer, CancelAnswer::NotFound);
        };
        let (expected, after) = transition::cancel(row, self.now);
        match answer {
            CancelAnswer::Cancelled => drop(self.seen.insert("cancelled")),
            CancelAnswer::Running => drop(self.seen.insert("running")),
            CancelAnswer::Ended(_) | CancelAnswer::NotFound => {}
        }
        assert_eq!(answer, expected);
        if let Some(row) = after {
            self.reference.write(row);
        }
    }

    async fn discard(&mut self) {
        let all: Vec<Uuid> = self.reference.jobs.keys().copied().collect();
        let instance = *self.random.pick(&all).expect("jobs");
        let discarded = self.bench.store.discard(instance).await.expect("discarded");
        assert_eq!(discarded, self.reference.letters.remove(&instance).is_some());
        if discarded {
            self.seen.insert("discarded");
        }
    }

    /// What goes may go; what may go and is alone goes at once.
    async fn purge(&mut self) {
        let published_before = at(i64::try_from(self.random.below(2_500)).expect("small"));
        let ended_before = self.now.minus(Duration::from_micros(self.random.below(3_000_000_000)));
        let retention = Retention { published_before, ended_before, limit: 100 };
        let purged = self.bench.store.purge(&self.reference.lane, retention).await.expect("purged");
        let left = self.visible().await;
        let gone: Vec<Row> = (self.reference.rows.values())
            .filter(|row| left.iter().all(|shown| shown.instance != row.instance))
            .copied()
            .collect();
        let by_watermark = |row: &Row| row.published_at <= published_before;
        let may_go = |row: &Row, reference: &Reference| {
            let waits = |other: &Row| other.state.is_alive() && !other.holds_key;
            row.ended_at.is_some_and(|ended_at| by_watermark(row) || ended_at <= ended_before)
                && !reference.of_key(reference.key(row)).iter().any(waits)
        };
        for row in &gone {
            self.seen.insert("purged");
            assert!(may_go(row, &self.reference), "{row:?} may not go");
        }
        for row in self.reference.rows.values().filter(|row| !gone.contains(row)) {
            let alone = self.reference.of_key(self.reference.key(row)).len() == 1;
            assert!(!alone || !may_go(row, &self.reference), "{row:?} is left");
        }
        assert_eq!(purged.by_watermark, gone.iter().filter(|row| by_watermark(row)).count() as u64);
        assert_eq!(purged.by_watermark + purged.by_cap, gone.len() as u64);
        for row in gone {
            self.reference.rows.remove(&row.instance);
        }
    }

    async fn visible(&self) -> Vec<JobRow> {
        let all = JobFilter { limit: 1_000, ..JobFilter::default() };
        let mut rows = self.bench.store.jobs(&all).await.expect("jobs");
        rows.sort_by_key(|row| row.instance);
        rows
    }

    async fn compare(&self) {
        let expected: Vec<JobRow> = self.reference.rows.values().map(|row| self.reference.shown(row)).collect();
        assert_eq!(self.visible().await, expected);

        let all = LetterFilter { limit: 1_000, ..LetterFilter::default() };
        let mut letters = self.bench.store.letters(&all).await.expect("letters");
        letters.sort_by_key(|letter| letter.instance);
        let shown: Vec<_> = (letters.iter())
            .map(|letter| {
                (letter.instance, Reason::Dead(letter.reason), letter.attempts, letter.generation, Some(letter.died_at))
            })
            .collect();
        let expected: Vec<_> = (self.reference.letters.values())
            .map(|row| (row.instance, row.reason, row.attempt, row.generation, row.ended_at))
            .collect();
        assert_eq!(shown, expected);

        let next_due = self.bench.store.next_due(&self.reference.lane).await.expect("next due");
        let rows = self.reference.rows.values();
        let expected = rows.filter(|row| self.reference.is_next(row, Timestamp::EPOCH)).filter_map(|row| row.resume_at);
        assert_eq!(next_due, expected.min());
    }
}

#[expect(clippy::print_stderr, reason = "shown only when the test fails: the seed that fails")]
async fn random_sequences(mut bench: Bench) {
    let mut seen = BTreeSet::new();
    for seed in 0..SEQUENCES {
        bench.clear().await;
        eprintln!("seed {seed}");
        let mut sequence = Sequence::new(&bench, seed, &mut seen);
        for step in 1..=STEPS {
            sequence.step().await;
            if step % LOOK_EVERY == 0 {
                sequence.compare().await;
            }
        }
    }
    assert_eq!(seen, SEEN.into_iter().collect());
}

#[tokio::test]
async fn sqlite_behaves_as_the_reference() {
    random_sequences(Bench::sqlite().await).await;
}

#[tokio::test]
async fn postgres_behaves_as_the_reference() {
    random_sequences(Bench::postgres().await).await;
}

/// What several workers at once know of each other: who runs which key, and the wake-ups in the due queue.
#[derive(Default)]
struct Shared {
    running: Mutex<HashMap<DedupKey, Uuid>>,
    wakes: Mutex<Vec<Wake>>,
}

fn locked<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// One of several workers that do everything at once to the same few keys. None of them ever sees an error.
async fn work(store: Arc<dyn Store>, worker: WorkerId, number: u64, shared: Arc<Shared>) {
    let mut random = Random(number);
    let lane = lane("bulk");
    let mut mine: Vec<(DedupKey, Uuid, Uuid)> = Vec::new();
    let running = |mine: &mut Vec<_>, key, instance, token, claimed: &Claimed| {
        if let Claimed::Run(_) = claimed {
            assert_eq!(locked(&shared.running).insert(key, instance), None, "two jobs of one key run");
            mine.push((key, instance, token));
        }
    };
    for step in 0..300_i64 {
        let now = at(2_000 + step);
        let ctx = ClaimContext { worker, now, window: WINDOW };
        match random.below(10) {
            0..3 => {
                let first = u128::from(number * 1_000_000 + 1_000 * step.unsigned_abs());
                let batch = publishes(&mut random, first);
                for (claim, claimed) in batch.iter().zip(store.claim_fresh(ctx, &batch).await.expect("claimed")) {
                    running(&mut mine, claim.key, claim.instance, claim.token, &claimed);
                }
            }
            3..5 => {
                let taken: Vec<Wake> = {
                    let mut wakes = locked(&shared.wakes);
                    let from = wakes.len().saturating_sub(4);
                    wakes.split_off(from)
                };
                let batch: Vec<WokenClaim> = (taken.iter())
                    .map(|wake| WokenClaim { key: wake.key, instance: wake.instance, token: Uuid::new_v4() })
                    .collect();
                for (claim, claimed) in batch.iter().zip(store.claim_woken(ctx, &batch).await.expect("claimed")) {
                    running(&mut mine, claim.key, claim.instance, claim.token, &claimed);
                }
            }
            5..8 => {
                let batch: Vec<Settlement> = (mine.drain(..))
                    .map(|(key, instance, token)| {
                        locked(&shared.running).remove(&key);
                        let next = match random.below(4) {
                            0 => Next::Waiting { reason: WaitReason::Transient, resume_at: now, counted: true },
                            1 => Next::Dead { reason: DeadReason::Failed, detail: "no".to_owned(), counted: true },
                            _ => Next::Done,
                        };
                        Settlement { key, instance, token, next, effect_possible: false, attempt: None }
                    })
                    .collect();
                for settled in store.settle(now, &batch).await.expect("settled") {
                    assert!(matches!(settled, Settled::Applied(_)), "nobody else settles it");
                }
            }
            8 => {
                let mut wakes = store.release(&lane, now, 10, 100).await.expect("released");
                wakes.extend(store.sweep_queued(&lane, now, now.minus(WINDOW / 60), 10).await.expect("swept"));
                locked(&shared.wakes).extend(wakes);
            }
            _ => meddle(&*store, &mut random, &lane, now).await,
        }
    }
}

/// A batch of messages for neighbouring ones of a few keys.
fn publishes(random: &mut Random, instance: u128) -> Vec<FreshClaim> {
    let first = random.below(20);
    (first..first + 1 + random.below(8))
        .map(|n| {
            let published = at(i64::try_from(random.below(3_000)).expect("small"));
            claim(instance + u128::from(n), &format!("job {}", n % 20), published)
        })
        .collect()
}

/// An operator replays and cancels, retention forgets.
async fn meddle(store: &dyn Store, random: &mut Random, lane: &LaneName, now: Timestamp) {
    let all = LetterFilter { limit: 3, ..LetterFilter::default() };
    for letter in store.letters(&all).await.expect("letters") {
        store.replay(letter.instance, now).await.expect("replayed");
    }
    let waiting = JobFilter { limit: 1, state: Some(State::Waiting), ..JobFilter::default() };
    for row in store.jobs(&waiting).await.expect("jobs") {
        store.cancel(row.instance, now).await.expect("cancelled");
    }
    let published_before = at(i64::try_from(random.below(3_000)).expect("small"));
    let retention = Retention { published_before, ended_before: Timestamp::EPOCH, limit: 10 };
    store.purge(lane, retention).await.expect("purged");
}

#[tokio::test]
async fn postgres_keeps_its_invariants_under_several_workers() {
    let bench = Bench::postgres().await;
    let shared = Arc::new(Shared::default());
    let workers = (1..=4).map(|number| tokio::spawn(work(bench.store.clone(), bench.worker, number, shared.clone())));
    for worker in workers.collect::<Vec<_>>() {
        worker.await.expect("no worker fails");
    }
    for (what, sql) in [
        ("a holder in the side table", "SELECT count(*) FROM jobs_side WHERE holds_key"),
        (
            "a key without its lock",
            "SELECT count(*) FROM jobs_side s WHERE NOT EXISTS (SELECT 1 FROM jobs j WHERE j.key = s.key)",
        ),
        ("an instance twice", "SELECT count(*) - count(DISTINCT instance) FROM jobs_all"),
        (
            "resume_at out of state waiting",
            "SELECT count(*) FROM jobs_all WHERE (resume_at IS NOT NULL) <> (state = 2)",
        ),
        (
            "released_at out of state queued",
            "SELECT count(*) FROM jobs_all WHERE (released_at IS NOT NULL) <> (state = 3)",
        ),
        ("ended_at of an alive row", "SELECT count(*) FROM jobs_all WHERE (ended_at IS NOT NULL) <> (state > 3)"),
        ("a payload that is missing or left", "SELECT count(*) FROM jobs_all WHERE (body IS NOT NULL) <> (state <= 3)"),
    ] {
        let found: i64 = sqlx::query_scalar(sql).fetch_one(bench.pool()).await.expect("counted");
        assert_eq!(found, 0, "{what}");
    }
    let rows: i64 =
        sqlx::query_scalar("SELECT count(*) FROM jobs_side").fetch_one(bench.pool()).await.expect("counted");
    assert!(rows > 0, "the side table was used");
}
