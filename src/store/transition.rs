//! The guarded updates of the protocol as pure functions: a store loads the rows of a key, decides, applies, writes back.
//!
//! Each function is one `UPDATE .. WHERE guard`: it answers the row to write, or `None` (zero rows) when the guard fails.
//! Nothing here clears `effect_possible`, and nothing but a claim makes a row hold its key.

use uuid::Uuid;

use super::decide::{Copy, CopyKind, RowView, Verb};
use super::{CancelAnswer, Hastened, IN_TURN, Next, Settled, State, WorkerId};
use crate::clock::Timestamp;
use crate::job::verdict::{DeadReason, WaitReason};

/// Why a row waits or died.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Reason {
    /// It neither waits nor is it dead.
    #[default]
    None,
    /// Why it waits.
    Wait(WaitReason),
    /// Why it died.
    Dead(DeadReason),
    /// A word of a newer version of this program; it stays as it is for as long as the row keeps it.
    Unknown,
}

impl Reason {
    /// The word to store, empty for [`Reason::None`]; `None` = leave the one that is there.
    pub const fn stored(self) -> Option<&'static str> {
        match self {
            Self::None => Some(""),
            Self::Wait(reason) => Some(reason.as_str()),
            Self::Dead(reason) => Some(reason.as_str()),
            Self::Unknown => None,
        }
    }

    /// The word of a row that this program has just decided about.
    pub fn as_str(self) -> &'static str {
        self.stored().unwrap_or("unknown")
    }

    /// The stored word's meaning.
    pub fn parse(word: &str) -> Self {
        if word.is_empty() {
            return Self::None;
        }
        let known = WaitReason::parse(word).map(Self::Wait).or_else(|| DeadReason::parse(word).map(Self::Dead));
        known.unwrap_or(Self::Unknown)
    }
}

/// Everything of a row that the protocol reads or writes; the rest (names, payload) never changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Row {
    /// The job.
    pub instance: Uuid,
    /// Its state.
    pub state: State,
    /// Why it waits or died.
    pub reason: Reason,
    /// Claims of this generation that led, or may have led, to a call.
    pub attempt: u32,
    /// 1, and one more for each replay.
    pub generation: u32,
    /// How many workers died with it, over all generations.
    pub takeovers: u32,
    /// A call of it may have had an effect that nobody saw. Never cleared.
    pub effect_possible: bool,
    /// An operator asked to cancel it while it ran.
    pub cancel_requested: bool,
    /// It holds the key; at most one row of a key does. Also true for ended rows that may have had an effect, until
    /// another job of the key is claimed.
    pub holds_key: bool,
    /// Its payload is kept: in the row, for a dead one with its letter.
    pub has_payload: bool,
    /// Token of the last claim. Survives the settle (a repeated settle finds it), but not the takeover.
    pub token: Option<Uuid>,
    /// Who runs it.
    pub worker: Option<WorkerId>,
    /// Publish time.
    pub published_at: Timestamp,
    /// Hash of what makes two publishes the same job.
    pub payload_sha256: [u8; 32],
    /// When it may be released, while it waits.
    pub resume_at: Option<Timestamp>,
    /// When its wake-up was last released, while it is queued.
    pub released_at: Option<Timestamp>,
    /// When it ended.
    pub ended_at: Option<Timestamp>,
    /// Since when budgets or blocks hold it back, before its next call.
    pub held_since: Option<Timestamp>,
}

impl Row {
    /// What [`decide`](super::decide::decide) needs of it.
    pub const fn view(&self) -> RowView {
        RowView {
            instance: self.instance,
            state: self.state,
            holds_key: self.holds_key,
            published_at: self.published_at,
            payload_sha256: self.payload_sha256,
            token: self.token,
            effect_possible: self.effect_possible,
            ended_at: self.ended_at,
        }
    }

    /// It is alive and holds its key: followers and replays wait for it.
    pub const fn is_busy(&self) -> bool {
        self.holds_key && self.state.is_alive()
    }

    /// A row that nobody has claimed: a follower, or the start of a claim.
    const fn new(instance: Uuid, published_at: Timestamp, payload_sha256: [u8; 32], now: Timestamp) -> Self {
        Self {
            instance,
            state: State::Waiting,
            reason: Reason::Wait(WaitReason::KeyBusy),
            attempt: 0,
            generation: 1,
            takeovers: 0,
            effect_possible: false,
            cancel_requested: false,
            holds_key: false,
            has_payload: true,
            token: None,
            worker: None,
            published_at,
            payload_sha256,
            resume_at: Some(now),
            released_at: None,
            ended_at: None,
            held_since: None,
        }
    }

    /// Waiting for its turn in a budget, since `now` unless it was held back before.
    fn in_turn(self, reason: WaitReason, now: Timestamp) -> Self {
        Self { held_since: self.held_since.or(Some(now)), ..self.waiting(reason, IN_TURN) }
    }

    /// Waiting until `resume_at`.
    const fn waiting(self, reason: WaitReason, resume_at: Timestamp) -> Self {
        Self {
            state: State::Waiting,
            reason: Reason::Wait(reason),
            resume_at: Some(resume_at),
            worker: None,
            released_at: None,
            ended_at: None,
            ..self
        }
    }

    /// Released `now`.
    const fn queued(self, now: Timestamp) -> Self {
        Self {
            state: State::Queued,
            reason: Reason::None,
            resume_at: None,
            worker: None,
            released_at: Some(now),
            ..self
        }
    }

    /// Ended. Who certainly had no effect frees the key; who never held it doesn't get it by ending.
    const fn ended(self, state: State, reason: Reason, now: Timestamp) -> Self {
        let may_have_succeeded = matches!(state, State::Done) || self.effect_possible;
        Self {
            state,
            reason,
            holds_key: self.holds_key && may_have_succeeded,
            has_payload: self.has_payload && matches!(state, State::Dead),
            worker: None,
            resume_at: None,
            released_at: None,
            ended_at: Some(now),
            ..self
        }
    }
}

/// What a claim writes, in one transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ClaimWrites {
    /// The copy's own row, to insert (none was there) or to update.
    pub own: Option<Row>,
    /// The ended row of another instance that gives up the key. Write it first.
    pub displaced: Option<Row>,
}

/// Carries out `verb`, which was decided about `copy`, its own row and the `others` of its key. Nothing is written for
/// `Duplicate`, `Stale` and `Remint`, nor for a `Continue` of the worker that the row names.
pub fn claim(
    verb: Verb,
    copy: &Copy,
    own: Option<&Row>,
    others: &[Row],
    worker: WorkerId,
    now: Timestamp,
) -> ClaimWrites {
    let unclaimed = || match (copy.kind, own) {
        (_, Some(row)) => Some(*row),
        (CopyKind::Fresh { published_at, payload_sha256, .. }, None) => {
            Some(Row::new(copy.instance, published_at, payload_sha256, now))
        }
        (CopyKind::WakeUp, None) => None,
    };
    match verb {
        Verb::Run => ClaimWrites {
            own: unclaimed().map(|row| claimed(&row, copy.token, worker)),
            displaced: others.iter().find(|other| other.holds_key).map(displaced),
        },
        Verb::Park | Verb::BackToWaiting => {
            ClaimWrites { own: unclaimed().map(|row| row.waiting(WaitReason::KeyBusy, now)), displaced: None }
        }
        Verb::Superseded { .. } => ClaimWrites {
            own: own.map(|row| row.ended(State::Dead, Reason::Dead(DeadReason::Superseded), now)),
            displaced: None,
        },
        // claimed again after its worker had to register anew: the old registration is as good as dead
        Verb::Continue => ClaimWrites {
            own: own.filter(|row| row.worker != Some(worker)).map(|row| Row { worker: Some(worker), ..*row }),
            displaced: None,
        },
        Verb::Duplicate { .. } | Verb::Stale | Verb::Remint => ClaimWrites::default(),
    }
}

/// What a claim writes whose job can't be called soon: it waits for its turn from the start, as if it had been claimed and
/// settled so. What was decided otherwise stays.
pub fn claim_in_turn(writes: ClaimWrites, verb: Verb, reason: WaitReason, now: Timestamp) -> ClaimWrites {
    let parked = |row: Row| Row { attempt: row.attempt.saturating_sub(1), ..row.in_turn(reason, now) };
    match verb {
        Verb::Run => ClaimWrites { own: writes.own.map(parked), ..writes },
        _ => writes,
    }
}

/// Claimed: the next attempt begins, and the row holds its key.
fn claimed(row: &Row, token: Uuid, worker: WorkerId) -> Row {
    Row {
        state: State::Run,
        reason: Reason::None,
        attempt: row.attempt + 1,
        holds_key: true,
        token: Some(token),
        worker: Some(worker),
        resume_at: None,
        released_at: None,
        ..*row
    }
}

/// An ended holder whose key another job takes.
fn displaced(row: &Row) -> Row {
    debug_assert!(!row.state.is_alive(), "decide never lets a job run beside an alive holder");
    Row { holds_key: false, ..*row }
}

/// What a settlement does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Settle {
    /// Write this row.
    Write(Row),
    /// The same settlement was committed before and only its answer was lost: write nothing, no journal, no letter.
    Already(State),
    /// Somebody else owns the job.
    Lost,
}

impl Settle {
    /// What the caller is told.
    pub const fn answer(&self) -> Settled {
        match self {
            Self::Write(Row { state, .. }) | Self::Already(state) => Settled::Applied(*state),
            Self::Lost => Settled::Lost,
        }
    }
}

/// Settles the claim made with `token`. A job that was asked to be cancelled ends instead of waiting.
pub fn settle(row: &Row, token: Uuid, next: &Next, effect_possible: bool, now: Timestamp) -> Settle {
    if row.token != Some(token) {
        return Settle::Lost;
    }
    if row.state != State::Run {
        return Settle::Already(row.state);
    }
    let counted = match *next {
        Next::Done => true,
        Next::Waiting { counted, .. } | Next::Dead { counted, .. } => counted,
    };
    let row = Row {
        attempt: if counted { row.attempt } else { row.attempt.saturating_sub(1) },
        effect_possible: row.effect_possible || effect_possible,
        // the next call begins anew; of one that was the last it stays to be seen
        held_since: row.held_since.filter(|_| !counted || matches!(next, Next::Done)),
        ..*row
    };
    Settle::Write(match *next {
        Next::Done => row.ended(State::Done, Reason::None, now),
        Next::Waiting { .. } if row.cancel_requested => row.ended(State::Cancelled, Reason::None, now),
        Next::Waiting { reason, resume_at: IN_TURN, .. } => row.in_turn(reason, now),
        Next::Waiting { reason, resume_at, .. } => row.waiting(reason, resume_at),
        Next::Dead { reason, .. } => row.ended(State::Dead, Reason::Dead(reason), now),
    })
}

/// Releases a waiting row that is due. A row that doesn't hold its key needs `key_free`: no alive row holds it.
/// Commit first, then publish the wake-up.
pub fn release(row: &Row, key_free: bool, now: Timestamp) -> Option<Row> {
    let due = row.state == State::Waiting && row.resume_at.is_none_or(|at| at <= now);
    (due && (row.holds_key || key_free)).then(|| row.queued(now))
}

/// Releases a queued row again whose wake-up has not been claimed since before `released_before`.
pub fn sweep_queued(row: &Row, released_before: Timestamp, now: Timestamp) -> Option<Row> {
    let overdue = row.state == State::Queued && row.released_at.is_none_or(|at| at < released_before);
    overdue.then(|| row.queued(now))
}

/// Takes a running row from a worker that is dead (the caller's condition): queued again, its call may have had an effect.
/// It ends instead when an operator asked to cancel it, or as poison when it reaches `poison_after` takeovers.
pub fn sweep_run(row: &Row, poison_after: u32, now: Timestamp) -> Option<Row> {
    if row.state != State::Run {
        return None;
    }
    let row = Row { token: None, effect_possible: true, takeovers: row.takeovers + 1, ..*row };
    Some(if row.cancel_requested {
        row.ended(State::Cancelled, Reason::None, now)
    } else if row.takeovers >= poison_after {
        row.ended(State::Dead, Reason::Dead(DeadReason::Poison), now)
    } else {
        row.queued(now)
    })
}

/// Puts a dead letter back to work, behind whoever holds the key. Takeovers stay: a poisonous job gets one more worker.
pub fn replay(row: &Row, now: Timestamp) -> Option<Row> {
    let again = Row {
        generation: row.generation + 1,
        attempt: 0,
        holds_key: false,
        cancel_requested: false,
        ..row.waiting(WaitReason::Replay, now)
    };
    (row.state == State::Dead).then_some(again)
}

/// What hurrying leads to, of a row in this state, for this reason, until this time. One in its turn has no time of its own,
/// and followers are due as soon as their key is free.
pub fn hastened(state: State, reason: Reason, resume_at: Option<Timestamp>, now: Timestamp) -> Hastened {
    match (state, reason, resume_at) {
        (State::Waiting, _, Some(IN_TURN)) => Hastened::InTurn,
        (State::Waiting, Reason::Wait(WaitReason::KeyBusy), _) => Hastened::KeyBusy,
        (State::Waiting, _, Some(at)) if at > now => Hastened::Hurried,
        (State::Waiting | State::Queued, ..) => Hastened::Due,
        (State::Run, ..) => Hastened::Running,
        (State::Done | State::Dead | State::Cancelled, ..) => Hastened::Ended(state),
    }
}

/// Makes a row due that waits for a time of its own.
pub fn hasten(row: &Row, now: Timestamp) -> (Hastened, Option<Row>) {
    let answer = hastened(row.state, row.reason, row.resume_at, now);
    (answer, (answer == Hastened::Hurried).then_some(Row { resume_at: Some(now), ..*row }))
}

/// Cancels a job that is not running; asks a running one not to be called again.
pub fn cancel(row: &Row, now: Timestamp) -> (CancelAnswer, Option<Row>) {
    match row.state {
        State::Waiting | State::Queued => {
            (CancelAnswer::Cancelled, Some(row.ended(State::Cancelled, Reason::None, now)))
        }
        State::Run => (CancelAnswer::Running, Some(Row { cancel_requested: true, ..*row })),
        State::Done | State::Dead | State::Cancelled => (CancelAnswer::Ended(row.state), None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::job::Identity;

    const NOW: Timestamp = Timestamp::from_secs(1_000);
    const LATER: Timestamp = Timestamp::from_secs(2_000);
    const J: Uuid = Uuid::from_u128(1);
    const OTHER: Uuid = Uuid::from_u128(2);
    const TOKEN: Uuid = Uuid::from_u128(100);
    const WORKER: WorkerId = WorkerId(7);
    const RETRY: Next = Next::Waiting { reason: WaitReason::RateLimited, resume_at: LATER, counted: true };
    const BURY: Next = Next::Dead { reason: DeadReason::Exhausted, detail: String::new(), counted: true };

    fn copy(kind: CopyKind) -> Copy {
        Copy { kind, instance: J, token: TOKEN }
    }

    fn fresh() -> Copy {
        copy(CopyKind::Fresh {
            published_at: NOW,
            payload_sha256: [9; 32],
            identity: Identity::Stamped,
            redelivered: false,
        })
    }

    fn running() -> Row {
        claim(Verb::Run, &fresh(), None, &[], WORKER, NOW).own.expect("a fresh copy runs")
    }

    fn settled(row: &Row, next: &Next, effect: bool) -> Row {
        match settle(row, TOKEN, next, effect, NOW) {
            Settle::Write(row) => row,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_fresh_claim_makes_a_row_that_holds_its_key_and_payload() {
        let row = running();
        assert_eq!((row.state, row.attempt, row.generation, row.takeovers), (State::Run, 1, 1, 0));
        assert_eq!((row.token, row.worker, row.resume_at), (Some(TOKEN), Some(WORKER), None));
        assert!(row.holds_key && row.has_payload && !row.effect_possible);
        assert_eq!((row.published_at, row.payload_sha256), (NOW, [9; 32]));
    }

    #[test]
    fn a_follower_waits_without_key_and_runs_later_with_it() {
        let holder = Row { instance: OTHER, ..running() };
        let parked = claim(Verb::Park, &fresh(), None, &[holder], WORKER, NOW);
        let row = parked.own.expect("a follower row");
        assert_eq!((row.state, row.reason), (State::Waiting, Reason::Wait(WaitReason::KeyBusy)));
        assert_eq!((row.attempt, row.holds_key, row.has_payload, parked.displaced), (0, false, true, None));

        assert_eq!(release(&row, false, NOW), None, "the key is busy");
        let row = release(&row, true, NOW).expect("due");
        let back = claim(Verb::BackToWaiting, &copy(CopyKind::WakeUp), Some(&row), &[holder], WORKER, LATER);
        let waiting = back.own.expect("back to waiting");
        assert_eq!((waiting.state, waiting.resume_at, waiting.released_at), (State::Waiting, Some(LATER), None));

        let done = settled(&holder, &Next::Done, false);
        let run = claim(Verb::Run, &copy(CopyKind::WakeUp), Some(&row), &[done], WORKER, LATER);
        assert_eq!(run.own.map(|row| (row.state, row.attempt, row.holds_key)), Some((State::Run, 1, true)));
        assert_eq!(run.displaced, Some(Row { holds_key: false, ..done }), "at most one row holds the key");
    }

    #[test]
    fn a_superseded_row_is_a_letter_that_never_takes_the_key() {
        let row = Row { state: State::Queued, holds_key: false, effect_possible: true, ..running() };
        let verb = Verb::Superseded { by: OTHER };
        let dead = claim(verb, &copy(CopyKind::WakeUp), Some(&row), &[], WORKER, NOW).own.expect("a letter");
        assert_eq!((dead.state, dead.reason), (State::Dead, Reason::Dead(DeadReason::Superseded)));
        assert!(!dead.holds_key && dead.has_payload);
        assert_eq!(dead.ended_at, Some(NOW));
    }

    #[test]
    fn verbs_without_a_write_write_nothing() {
        let row = running();
        let duplicate = Verb::Duplicate { of: OTHER, state: State::Done, different_payload: false };
        for verb in [Verb::Continue, Verb::Stale, Verb::Remint, duplicate] {
            assert_eq!(claim(verb, &fresh(), Some(&row), &[], WORKER, NOW), ClaimWrites::default(), "{verb:?}");
        }
        let other = WorkerId(8);
        let moved = claim(Verb::Continue, &fresh(), Some(&row), &[], other, NOW);
        assert_eq!(moved.own, Some(Row { worker: Some(other), ..row }), "registered anew in between");
        let nothing = claim(Verb::Run, &copy(CopyKind::WakeUp), None, &[], WORKER, NOW);
        assert_eq!(nothing.own, None, "a wake-up never makes a job");
    }

    /// (next, effect possible) -> state, reason, holds the key, payload kept.
    #[test]
    fn settling_leads_where_it_says() {
        let row = running();
        let table = [
            (&Next::Done, false, State::Done, Reason::None, true, false),
            (&Next::Done, true, State::Done, Reason::None, true, false),
            (&RETRY, false, State::Waiting, Reason::Wait(WaitReason::RateLimited), true, true),
            (&RETRY, true, State::Waiting, Reason::Wait(WaitReason::RateLimited), true, true),
            (&BURY, false, State::Dead, Reason::Dead(DeadReason::Exhausted), false, true),
            (&BURY, true, State::Dead, Reason::Dead(DeadReason::Exhausted), true, true),
        ];
        for (next, effect, state, reason, holds_key, has_payload) in table {
            let after = settled(&row, next, effect);
            let facts = (after.state, after.reason, after.holds_key, after.has_payload, after.effect_possible);
            assert_eq!(facts, (state, reason, holds_key, has_payload, effect), "{next:?} {effect}");
            assert_eq!((after.worker, after.attempt), (None, 1));
            assert_eq!(after.ended_at.is_some(), !state.is_alive());
            assert_eq!(after.resume_at, (state == State::Waiting).then_some(LATER));
        }
        let doubted = Row { effect_possible: true, ..row };
        assert!(settled(&doubted, &BURY, false).effect_possible, "sticky");
    }

    #[test]
    fn a_repeated_settle_is_recognised_and_a_late_one_is_lost() {
        let row = running();
        let done = settled(&row, &Next::Done, false);
        let again = settle(&done, TOKEN, &Next::Done, false, LATER);
        assert_eq!((again, again.answer()), (Settle::Already(State::Done), Settled::Applied(State::Done)));

        let taken = sweep_run(&row, 3, NOW).expect("run");
        assert_eq!(settle(&taken, TOKEN, &Next::Done, false, NOW), Settle::Lost, "the sweeper clears the token");
        let claimed_again = Row { token: Some(Uuid::from_u128(101)), ..row };
        assert_eq!(settle(&claimed_again, TOKEN, &Next::Done, false, NOW).answer(), Settled::Lost);
    }

    #[test]
    fn no_call_no_attempt() {
        let row = running();
        let paused = Next::Waiting { reason: WaitReason::Paused, resume_at: LATER, counted: false };
        assert_eq!(settled(&row, &paused, false).attempt, 0);
        let expired = Next::Dead { reason: DeadReason::Expired, detail: String::new(), counted: false };
        assert_eq!(settled(&row, &expired, false).attempt, 0);
    }

    #[test]
    fn releasing_waits_for_its_time_and_sweeping_for_the_grace() {
        let waiting = settled(&running(), &RETRY, false);
        assert_eq!(release(&waiting, true, NOW), None, "not due");
        let queued = release(&waiting, false, LATER).expect("due, and it holds its key");
        assert_eq!((queued.state, queued.released_at, queued.resume_at), (State::Queued, Some(LATER), None));
        assert_eq!(release(&queued, true, LATER), None, "somebody else did it");

        assert_eq!(sweep_queued(&queued, LATER, LATER), None, "in its grace");
        let again = sweep_queued(&queued, LATER.plus(std::time::Duration::from_micros(1)), Timestamp::MAX);
        assert_eq!(again.expect("overdue").released_at, Some(Timestamp::MAX));
        assert_eq!(sweep_queued(&waiting, Timestamp::MAX, LATER), None);
    }

    #[test]
    fn a_takeover_doubts_counts_and_ends_as_poison() {
        let row = running();
        let once = sweep_run(&row, 2, NOW).expect("run");
        assert_eq!((once.state, once.takeovers, once.token, once.worker), (State::Queued, 1, None, None));
        assert!(once.effect_possible && once.holds_key);
        assert_eq!(once.attempt, 1, "its call may have been made");
        assert_eq!(sweep_run(&once, 2, NOW), None);

        let again = claim(Verb::Run, &copy(CopyKind::WakeUp), Some(&once), &[], WORKER, NOW).own.expect("claimed");
        let poison = sweep_run(&again, 2, NOW).expect("run");
        assert_eq!((poison.state, poison.reason), (State::Dead, Reason::Dead(DeadReason::Poison)));
        assert!(poison.holds_key && poison.has_payload);
    }

    #[test]
    fn a_replay_begins_a_generation_without_the_key_and_keeps_the_doubt() {
        let dead = settled(&running(), &BURY, true);
        let row = replay(&dead, LATER).expect("dead");
        assert_eq!((row.state, row.reason), (State::Waiting, Reason::Wait(WaitReason::Replay)));
        assert_eq!((row.generation, row.attempt, row.resume_at, row.ended_at), (2, 0, Some(LATER), None));
        assert!(row.effect_possible && !row.holds_key);
        assert_eq!(replay(&row, LATER), None, "already replayed");
    }

    #[test]
    fn cancelling_ends_what_waits_and_stops_what_runs_from_being_called_again() {
        let running = running();
        let waiting = settled(&running, &RETRY, false);
        let queued = release(&waiting, true, LATER).expect("due");
        for row in [waiting, queued] {
            let (answer, after) = cancel(&row, NOW);
            let after = after.expect("cancelled");
            assert_eq!((answer, after.state, after.holds_key), (CancelAnswer::Cancelled, State::Cancelled, false));
            assert!(!after.has_payload && after.released_at.is_none() && after.resume_at.is_none());
        }
        let (answer, asked) = cancel(&running, NOW);
        let asked = asked.expect("asked");
        assert_eq!((answer, asked.state), (CancelAnswer::Running, State::Run));
        assert_eq!(settled(&asked, &RETRY, true).state, State::Cancelled);
        assert!(settled(&asked, &RETRY, true).holds_key, "it may have had its effect");
        assert_eq!(settled(&asked, &Next::Done, false).state, State::Done, "too late");
        assert_eq!(sweep_run(&asked, 3, NOW).map(|row| row.state), Some(State::Cancelled));
        let letter = settled(&asked, &BURY, false);
        assert!(!replay(&letter, NOW).expect("dead").cancel_requested, "the operator changed his mind");
        assert_eq!(cancel(&letter, NOW), (CancelAnswer::Ended(State::Dead), None));
    }

    #[test]
    fn only_what_waits_for_a_time_of_its_own_can_be_hurried() {
        let waiting = settled(&running(), &RETRY, false);
        let (answer, after) = hasten(&waiting, NOW);
        let after = after.expect("hurried");
        assert_eq!(
            (answer, after),
            (Hastened::Hurried, Row { resume_at: Some(NOW), ..waiting }),
            "nothing else changes"
        );
        assert_eq!(hasten(&after, NOW), (Hastened::Due, None), "twice is once");
        assert!(release(&after, false, NOW).is_some());
        let in_turn = settled(
            &running(),
            &Next::Waiting { reason: WaitReason::Budget, resume_at: IN_TURN, counted: false },
            false,
        );
        assert_eq!(hasten(&in_turn, NOW), (Hastened::InTurn, None));
        let follower =
            Row { reason: Reason::Wait(WaitReason::KeyBusy), resume_at: Some(LATER), holds_key: false, ..waiting };
        assert_eq!(hasten(&follower, NOW), (Hastened::KeyBusy, None));
        let queued = release(&waiting, true, LATER).expect("due");
        assert_eq!(hasten(&queued, NOW), (Hastened::Due, None));
        assert_eq!(hasten(&running(), NOW), (Hastened::Running, None));
        for state in [State::Done, State::Dead, State::Cancelled] {
            assert_eq!(hasten(&Row { state, ..waiting }, NOW), (Hastened::Ended(state), None));
        }
    }

    #[test]
    fn reasons_survive_their_words() {
        let waits = WaitReason::ALL.iter().map(|reason| Reason::Wait(*reason));
        let deaths = DeadReason::ALL.iter().map(|reason| Reason::Dead(*reason));
        for reason in waits.chain(deaths).chain([Reason::None]) {
            assert_eq!(Reason::parse(reason.as_str()), reason);
        }
        assert_eq!(Reason::parse("bored"), Reason::Unknown);
    }
}
