//! The decision table of the protocol as one pure function: a copy in hand, the rows of its key, and what to do.

use std::time::Duration;

use uuid::Uuid;

use super::State;
use crate::clock::Timestamp;
use crate::job::Identity;

/// The copy that a worker has in hand.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Copy {
    /// A message with its payload, or a wake-up.
    pub kind: CopyKind,
    /// The job it belongs to.
    pub instance: Uuid,
    /// The token its claimant made.
    pub token: Uuid,
}

/// Kinds of copies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CopyKind {
    /// A message as published.
    Fresh {
        /// Publish time.
        published_at: Timestamp,
        /// Hash of what makes two publishes the same job.
        payload_sha256: [u8; 32],
        /// How the instance was found.
        identity: Identity,
        /// The broker has delivered this copy before.
        redelivered: bool,
    },
    /// A hint that the job was released.
    WakeUp,
}

/// What the decision needs of a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct RowView {
    /// The job.
    pub instance: Uuid,
    /// Its state.
    pub state: State,
    /// It holds the key (at most one row of a key does).
    pub holds_key: bool,
    /// Publish time.
    pub published_at: Timestamp,
    /// Hash of what makes two publishes the same job.
    pub payload_sha256: [u8; 32],
    /// Token of the last claim.
    pub token: Option<Uuid>,
    /// A call of it may have had an effect that nobody saw.
    pub effect_possible: bool,
    /// When it ended.
    pub ended_at: Option<Timestamp>,
}

/// What to do with the copy. Every verb but `Run` and `Continue` ends in an ack.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Verb {
    /// Claim it: insert the row, or take the queued one; another row that holds the key gives it up (it has ended).
    Run,
    /// The claim was committed and only its answer was lost: go on.
    Continue,
    /// Insert a waiting row behind the one that holds the key.
    Park,
    /// The own row, released while another one became alive: back to waiting for the key.
    BackToWaiting,
    /// The own row, released after another publish of the id has, or may have, succeeded: a dead letter again.
    Superseded {
        /// That other one.
        by: Uuid,
    },
    /// In the window of another instance that is alive, done or may have had an effect.
    Duplicate {
        /// That other one.
        of: Uuid,
        /// Its state.
        state: State,
        /// The payloads differ.
        different_payload: bool,
    },
    /// The own row carries the job, or there is nothing to wake.
    Stale,
    /// A derived identity without a publish time met its own ended row and can't be that job again: decide as a new
    /// instance, published now.
    Remint,
}

/// Decides about `copy`, given the row of its own instance and all other rows of its key.
///
/// Attempt and generation are not looked at: a copy is a hint, the rows decide. `now` matters only to identities derived
/// without a publish time. After [`Verb::Remint`] decide again with the new instance: the old row is then another one.
pub fn decide(copy: &Copy, own: Option<&RowView>, others: &[RowView], now: Timestamp, window: Duration) -> Verb {
    if own.is_some_and(|own| own.state == State::Run && own.token == Some(copy.token)) {
        return Verb::Continue;
    }
    match (copy.kind, own) {
        (CopyKind::Fresh { published_at, payload_sha256, .. }, None) => {
            decide_new(published_at, &payload_sha256, others, window)
        }
        (CopyKind::Fresh { identity, redelivered, .. }, Some(own)) => {
            let same_job = own.state.is_alive()
                || identity != Identity::DerivedUntimed
                || redelivered && own.ended_at.is_some_and(|ended_at| now.since(ended_at) < window);
            if same_job { Verb::Stale } else { Verb::Remint }
        }
        (CopyKind::WakeUp, Some(own)) if own.state == State::Queued => decide_woken(own, others, window),
        (CopyKind::WakeUp, _) => Verb::Stale,
    }
}

/// A message whose instance has no row: the strictest of what the other rows ask for.
fn decide_new(published_at: Timestamp, payload_sha256: &[u8; 32], others: &[RowView], window: Duration) -> Verb {
    let differs = |other: &RowView| other.payload_sha256 != *payload_sha256;
    let original = others
        .iter()
        .filter(|other| other.published_at.distance(published_at) < window)
        .filter(|other| other.state.is_alive() || may_have_succeeded(other))
        .min_by_key(|other| (differs(other), other.published_at, other.instance));
    match original {
        Some(original) => {
            Verb::Duplicate { of: original.instance, state: original.state, different_payload: differs(original) }
        }
        None if key_is_busy(others) => Verb::Park,
        None => Verb::Run,
    }
}

/// A wake-up that finds its row queued. Who holds the key just runs; a follower or a replay looks around first.
fn decide_woken(own: &RowView, others: &[RowView], window: Duration) -> Verb {
    if own.holds_key {
        return Verb::Run;
    }
    if key_is_busy(others) {
        return Verb::BackToWaiting;
    }
    let rival = others
        .iter()
        .filter(|other| other.published_at.distance(own.published_at) < window && may_have_succeeded(other))
        .min_by_key(|other| (other.state != State::Done, other.published_at, other.instance));
    rival.map_or(Verb::Run, |rival| Verb::Superseded { by: rival.instance })
}

/// Its effect is there, or may be.
fn may_have_succeeded(row: &RowView) -> bool {
    row.state == State::Done || row.effect_possible
}

/// A job of this key runs or will run before any follower.
fn key_is_busy(rows: &[RowView]) -> bool {
    rows.iter().any(|row| row.holds_key && row.state.is_alive())
}

#[cfg(test)]
mod tests {
    use super::*;

    const WINDOW: Duration = Duration::from_mins(10);
    const ALMOST_WINDOW: Duration = Duration::from_micros(10 * 60 * 1_000_000 - 1);
    const NOW: Timestamp = Timestamp::from_secs(1_000_000);
    const J: Uuid = Uuid::from_u128(1);
    const OTHER: Uuid = Uuid::from_u128(2);
    const MY_TOKEN: Uuid = Uuid::from_u128(100);
    const FOREIGN_TOKEN: Uuid = Uuid::from_u128(200);

    fn fresh(instance: Uuid, published_at: Timestamp) -> Copy {
        let kind =
            CopyKind::Fresh { published_at, payload_sha256: [0; 32], identity: Identity::Stamped, redelivered: false };
        Copy { kind, instance, token: MY_TOKEN }
    }

    fn wake_up(instance: Uuid) -> Copy {
        Copy { kind: CopyKind::WakeUp, instance, token: MY_TOKEN }
    }

    fn row(instance: Uuid, state: State, holds_key: bool, effect_possible: bool) -> RowView {
        RowView {
            instance,
            state,
            holds_key,
            published_at: NOW,
            payload_sha256: [0; 32],
            token: Some(FOREIGN_TOKEN),
            effect_possible,
            ended_at: (!state.is_alive()).then_some(NOW),
        }
    }

    /// The table: a row J of the key, and the verbs for a fresh copy of J, a wake-up of J, a fresh copy of another
    /// instance in the window, and one out of the window.
    #[test]
    fn every_cell_of_the_table() {
        use State::{Cancelled, Dead, Done, Queued, Run, Waiting};
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        enum Cell {
            Run,
            Park,
            Dup,
            Stale,
        }
        use Cell::{Dup, Park, Run as Go, Stale};
        const YES: bool = true;
        const NO: bool = false;
        // (state, holds the key, effect possible)
        let table = [
            (None, [Go, Stale, Go, Go]),
            (Some((Run, YES, NO)), [Stale, Stale, Dup, Park]),
            (Some((Run, YES, YES)), [Stale, Stale, Dup, Park]),
            (Some((Waiting, YES, NO)), [Stale, Stale, Dup, Park]),
            (Some((Waiting, YES, YES)), [Stale, Stale, Dup, Park]),
            (Some((Waiting, NO, NO)), [Stale, Stale, Dup, Go]),
            (Some((Waiting, NO, YES)), [Stale, Stale, Dup, Go]),
            (Some((Queued, YES, NO)), [Stale, Go, Dup, Park]),
            (Some((Queued, YES, YES)), [Stale, Go, Dup, Park]),
            (Some((Queued, NO, NO)), [Stale, Go, Dup, Go]),
            (Some((Queued, NO, YES)), [Stale, Go, Dup, Go]),
            (Some((Done, YES, NO)), [Stale, Stale, Dup, Go]),
            (Some((Done, YES, YES)), [Stale, Stale, Dup, Go]),
            (Some((Done, NO, NO)), [Stale, Stale, Dup, Go]),
            (Some((Dead, NO, NO)), [Stale, Stale, Go, Go]),
            (Some((Dead, YES, YES)), [Stale, Stale, Dup, Go]),
            (Some((Dead, NO, YES)), [Stale, Stale, Dup, Go]),
            (Some((Cancelled, NO, NO)), [Stale, Stale, Go, Go]),
            (Some((Cancelled, YES, YES)), [Stale, Stale, Dup, Go]),
            (Some((Cancelled, NO, YES)), [Stale, Stale, Dup, Go]),
        ];
        for (shape, cells) in table {
            let j = shape.map(|(state, holds_key, effect)| row(J, state, holds_key, effect));
            let others: Vec<RowView> = j.into_iter().collect();
            let far = NOW.plus(WINDOW);
            let verbs = [
                decide(&fresh(J, NOW), j.as_ref(), &[], NOW, WINDOW),
                decide(&wake_up(J), j.as_ref(), &[], NOW, WINDOW),
                decide(&fresh(OTHER, NOW), None, &others, NOW, WINDOW),
                decide(&fresh(OTHER, far), None, &others, NOW, WINDOW),
            ];
            let expected = cells.map(|cell| match cell {
                Go => Verb::Run,
                Park => Verb::Park,
                Stale => Verb::Stale,
                Dup => Verb::Duplicate { of: J, state: shape.map_or(Run, |s| s.0), different_payload: false },
            });
            assert_eq!(verbs, expected, "row {shape:?}");
        }
    }

    #[test]
    fn a_released_follower_or_replay_looks_at_the_other_rows() {
        use State::{Cancelled, Dead, Done, Queued, Run, Waiting};
        let superseded = Verb::Superseded { by: OTHER };
        // (the other row's state, holds the key, effect possible) -> in the window, out of the window
        let table = [
            ((Run, true, false), Verb::BackToWaiting, Verb::BackToWaiting),
            ((Waiting, true, false), Verb::BackToWaiting, Verb::BackToWaiting),
            ((Queued, true, true), Verb::BackToWaiting, Verb::BackToWaiting),
            ((Waiting, false, false), Verb::Run, Verb::Run),
            ((Queued, false, false), Verb::Run, Verb::Run),
            ((Waiting, false, true), superseded, Verb::Run),
            ((Done, true, false), superseded, Verb::Run),
            ((Done, false, false), superseded, Verb::Run),
            ((Dead, true, true), superseded, Verb::Run),
            ((Dead, false, false), Verb::Run, Verb::Run),
            ((Cancelled, true, true), superseded, Verb::Run),
            ((Cancelled, false, false), Verb::Run, Verb::Run),
        ];
        let own = row(J, Queued, false, false);
        for ((state, holds_key, effect), near, far) in table {
            let mut other = row(OTHER, state, holds_key, effect);
            assert_eq!(decide(&wake_up(J), Some(&own), &[other], NOW, WINDOW), near, "{state:?} in the window");
            other.published_at = NOW.minus(WINDOW);
            assert_eq!(decide(&wake_up(J), Some(&own), &[other], NOW, WINDOW), far, "{state:?} out of the window");
        }
        let holder = row(J, Queued, true, false);
        let done = row(OTHER, Done, false, false);
        assert_eq!(decide(&wake_up(J), Some(&holder), &[done], NOW, WINDOW), Verb::Run, "who holds the key runs");
    }

    #[test]
    fn the_window_is_open_at_its_end_and_symmetric() {
        for (published_at, is_duplicate) in [
            (NOW.plus(ALMOST_WINDOW), true),
            (NOW.minus(ALMOST_WINDOW), true),
            (NOW.plus(WINDOW), false),
            (NOW.minus(WINDOW), false),
        ] {
            let verb = decide(&fresh(OTHER, published_at), None, &[row(J, State::Done, true, false)], NOW, WINDOW);
            assert_eq!(matches!(verb, Verb::Duplicate { .. }), is_duplicate, "published at {published_at}");
        }
        let verb = decide(&fresh(OTHER, NOW), None, &[row(J, State::Done, true, false)], NOW, Duration::ZERO);
        assert_eq!(verb, Verb::Run, "a window of zero deduplicates nothing");
    }

    #[test]
    fn my_own_claim_continues_whatever_the_copy() {
        let mut own = row(J, State::Run, true, false);
        own.token = Some(MY_TOKEN);
        for copy in [fresh(J, NOW), wake_up(J)] {
            assert_eq!(decide(&copy, Some(&own), &[], NOW, WINDOW), Verb::Continue);
        }
        for state in [State::Waiting, State::Done, State::Dead, State::Cancelled] {
            own.state = state;
            assert_eq!(decide(&wake_up(J), Some(&own), &[], NOW, WINDOW), Verb::Stale, "settled: {state:?}");
        }
    }

    #[test]
    fn several_rows_the_strictest_wins() {
        let third = Uuid::from_u128(3);
        let mut busy = row(J, State::Run, true, false);
        busy.published_at = NOW.minus(WINDOW);
        let done = row(third, State::Done, false, false);
        let duplicate = Verb::Duplicate { of: third, state: State::Done, different_payload: false };
        for rows in [[busy, done], [done, busy]] {
            assert_eq!(decide(&fresh(OTHER, NOW), None, &rows, NOW, WINDOW), duplicate);
        }
        let free = row(third, State::Dead, false, false);
        assert_eq!(decide(&fresh(OTHER, NOW), None, &[free, busy], NOW, WINDOW), Verb::Park);
    }

    #[test]
    fn an_original_with_the_same_payload_is_preferred() {
        let third = Uuid::from_u128(3);
        let mut corrected = row(J, State::Done, false, false);
        corrected.payload_sha256 = [7; 32];
        let same = row(third, State::Queued, true, false);
        assert_eq!(
            decide(&fresh(OTHER, NOW), None, &[corrected, same], NOW, WINDOW),
            Verb::Duplicate { of: third, state: State::Queued, different_payload: false }
        );
        assert_eq!(
            decide(&fresh(OTHER, NOW), None, &[corrected], NOW, WINDOW),
            Verb::Duplicate { of: J, state: State::Done, different_payload: true }
        );
    }

    #[test]
    fn an_untimed_identity_counts_only_for_redeliveries_within_the_window() {
        let untimed = |redelivered| Copy {
            kind: CopyKind::Fresh {
                published_at: NOW,
                payload_sha256: [0; 32],
                identity: Identity::DerivedUntimed,
                redelivered,
            },
            instance: J,
            token: MY_TOKEN,
        };
        let ended = |ago| RowView { ended_at: Some(NOW.minus(ago)), ..row(J, State::Done, true, false) };
        assert_eq!(decide(&untimed(true), Some(&ended(ALMOST_WINDOW)), &[], NOW, WINDOW), Verb::Stale);
        assert_eq!(decide(&untimed(true), Some(&ended(WINDOW)), &[], NOW, WINDOW), Verb::Remint);
        assert_eq!(decide(&untimed(false), Some(&ended(ALMOST_WINDOW)), &[], NOW, WINDOW), Verb::Remint);
        let alive = row(J, State::Waiting, true, false);
        assert_eq!(decide(&untimed(false), Some(&alive), &[], NOW, WINDOW), Verb::Stale, "the row carries it");
        let timed = fresh(J, NOW);
        assert_eq!(decide(&timed, Some(&ended(WINDOW)), &[], NOW, WINDOW), Verb::Stale, "an exact identity");
    }
}
