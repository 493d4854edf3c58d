//! The rules of the protocol as the model plays them: the real functions of the store, or those with one rule taken out.

use std::time::Duration;

use lanes::store::decide::{Copy, CopyKind, RowView, Verb, decide};
use lanes::store::transition::{self, ClaimWrites, Row, Settle};
use lanes::store::{Next, State};
use uuid::Uuid;

use super::world::{CLAIMANT, NOW};

/// Publish times closer than this are one job.
pub const WINDOW: Duration = Duration::from_mins(10);

/// A rule that is taken out of the design.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Without {
    /// Nothing: the design.
    Nothing,
    /// A copy that finds any row of its key is a duplicate (the naive design).
    ReadingTheRow,
    /// Settle is guarded by the instance only.
    TokenInSettle,
    /// A dead or cancelled row never blocks a duplicate.
    EffectPossible,
    /// A replay clears `effect_possible`.
    EffectPossibleOverReplay,
    /// Nobody takes a running row from a dead worker.
    SweepOfRun,
    /// Nobody releases an overdue queued row again.
    SweepOfQueued,
    /// The payload is dropped when a wake-up is claimed.
    PayloadWhileRunning,
    /// The payload leaves the row at the release: the wake-up carries it.
    PayloadWhileQueued,
    /// Out of the window of a job that is alive: duplicate.
    Followers,
    /// Only the alive row that holds the key is looked at.
    RowsBesideTheAliveHolder,
    /// Only the row that holds the key, alive or ended, is looked at.
    RowsBesideTheHolder,
    /// A replayed job doesn't look whether another one succeeded meanwhile.
    LookingBeforeReplay,
    /// A replay grabs the key although another job is alive.
    QueueingOfReplays,
    /// A replay goes on in the generation that died.
    NewGeneration,
    /// The takeover of a running job forgets that it was to be cancelled.
    CancelAtTakeover,
    /// An operator's haste makes a waiting row of whatever is alive, as it was when he looked.
    LookingBeforeHaste,
}

impl Without {
    pub fn claim(self, copy: &Copy, own: Option<&Row>, others: &[Row]) -> (Verb, ClaimWrites) {
        let mut views: Vec<RowView> = others.iter().map(Row::view).collect();
        match self {
            Self::EffectPossible => views.iter_mut().for_each(|row| row.effect_possible = false),
            Self::RowsBesideTheAliveHolder => views.retain(|row| row.holds_key && row.state.is_alive()),
            Self::RowsBesideTheHolder => views.retain(|row| row.holds_key),
            _ => {}
        }
        let verb = decide(copy, own.map(Row::view).as_ref(), &views, NOW, WINDOW);
        let any_row = own.into_iter().chain(others).next();
        let verb = match (self, verb, any_row) {
            (Self::ReadingTheRow, _, Some(row)) if copy.kind != CopyKind::WakeUp => duplicate_of(row),
            (Self::Followers, Verb::Park, Some(row)) => duplicate_of(row),
            (Self::LookingBeforeReplay, Verb::Superseded { .. }, _) => Verb::Run,
            _ => verb,
        };
        // Where a replay takes a busy key, two rows hold it: nothing is displaced there.
        let displaceable = if self == Self::QueueingOfReplays { &[] } else { others };
        let mut writes = transition::claim(verb, copy, own, displaceable, CLAIMANT, NOW);
        if let (Self::PayloadWhileRunning | Self::PayloadWhileQueued, Some(row)) = (self, &mut writes.own) {
            // Whoever doesn't run it writes back the payload that he has in hand.
            row.has_payload = copy.kind != CopyKind::WakeUp || row.state != State::Run;
        }
        (verb, writes)
    }

    pub fn settle(self, row: &Row, token: Uuid, next: &Next, effect_possible: bool) -> Settle {
        match self {
            Self::TokenInSettle if row.state.is_alive() => {
                let unguarded = Row { state: State::Run, token: Some(token), ..*row };
                transition::settle(&unguarded, token, next, effect_possible, NOW)
            }
            // Who settles has the payload in hand and puts it back.
            Self::PayloadWhileRunning | Self::PayloadWhileQueued => {
                transition::settle(&Row { has_payload: true, ..*row }, token, next, effect_possible, NOW)
            }
            _ => transition::settle(row, token, next, effect_possible, NOW),
        }
    }

    pub fn release(self, row: &Row, key_free: bool) -> Option<Row> {
        let row = transition::release(row, key_free, NOW)?;
        Some(Row { has_payload: row.has_payload && self != Self::PayloadWhileQueued, ..row })
    }

    /// A row without payload can't be brought back.
    pub fn sweep_queued(self, row: &Row) -> Option<Row> {
        let swept = self != Self::SweepOfQueued && row.has_payload;
        swept.then(|| transition::sweep_queued(row, NOW, NOW)).flatten()
    }

    pub fn sweep_run(self, row: &Row, poison_after: u32) -> Option<Row> {
        if self == Self::SweepOfRun || !row.has_payload {
            return None;
        }
        let asked = Row { cancel_requested: row.cancel_requested && self != Self::CancelAtTakeover, ..*row };
        let swept = transition::sweep_run(&asked, poison_after, NOW)?;
        Some(Row { cancel_requested: row.cancel_requested, ..swept })
    }

    pub fn hasten(self, row: &Row) -> Option<Row> {
        if self == Self::LookingBeforeHaste {
            let waiting = Row { state: State::Waiting, resume_at: Some(NOW), worker: None, released_at: None, ..*row };
            return row.state.is_alive().then_some(waiting);
        }
        transition::hasten(row, NOW).1
    }

    pub fn replay(self, row: &Row) -> Option<Row> {
        let died_in = row.generation;
        let row = row.has_payload.then(|| transition::replay(row, NOW)).flatten()?;
        Some(Row {
            generation: if self == Self::NewGeneration { died_in } else { row.generation },
            effect_possible: row.effect_possible && self != Self::EffectPossibleOverReplay,
            holds_key: self == Self::QueueingOfReplays,
            ..row
        })
    }
}

fn duplicate_of(row: &Row) -> Verb {
    Verb::Duplicate { of: row.instance, state: row.state, different_payload: false }
}
