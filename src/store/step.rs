//! One claim against the rows of its key: decide, mint a new identity where that is asked for, say what to write.

use uuid::Uuid;

use super::decide::{Copy, CopyKind, Verb, decide};
use super::transition::{self, ClaimWrites, Row};
use super::{ClaimContext, Claimed, FreshClaim, Granted, WokenClaim};
use crate::clock::Timestamp;
use crate::job::verdict::WaitReason;

/// A decided claim: both databases carry it out in the transaction that holds the key's rows.
#[derive(Debug)]
pub struct Step {
    /// What was decided.
    pub verb: Verb,
    /// The copy's own row as it was.
    pub before: Option<Row>,
    /// What to write.
    pub writes: ClaimWrites,
    /// Instead of running it waits for its turn.
    pub in_turn: bool,
}

/// Decides about a fresh message, given all rows of its key.
pub fn fresh(ctx: &ClaimContext, claim: &FreshClaim, rows: &[Row]) -> Step {
    let copy = |instance: Uuid, published_at: Timestamp| Copy {
        kind: CopyKind::Fresh {
            published_at,
            payload_sha256: claim.payload_sha256,
            identity: claim.identity,
            redelivered: claim.redelivered,
        },
        instance,
        token: claim.token,
    };
    let step = step(ctx, copy(claim.instance, claim.published_at), rows);
    if step.verb != Verb::Remint {
        return step.in_turn(claim.in_turn, ctx.now);
    }
    // the token finds the instance that this very claim minted before, when its answer was lost
    let minted = rows.iter().find(|row| row.token == Some(claim.token)).map_or_else(Uuid::new_v4, |row| row.instance);
    self::step(ctx, copy(minted, ctx.now), rows).in_turn(claim.in_turn, ctx.now)
}

/// Decides about a wake-up, given all rows of its key.
pub fn woken(ctx: &ClaimContext, claim: &WokenClaim, rows: &[Row]) -> Step {
    step(ctx, Copy { kind: CopyKind::WakeUp, instance: claim.instance, token: claim.token }, rows)
}

fn step(ctx: &ClaimContext, copy: Copy, rows: &[Row]) -> Step {
    let before = rows.iter().find(|row| row.instance == copy.instance).copied();
    let others: Vec<Row> = rows.iter().filter(|row| row.instance != copy.instance).copied().collect();
    let views: Vec<_> = others.iter().map(Row::view).collect();
    let verb = decide(&copy, before.as_ref().map(Row::view).as_ref(), &views, ctx.now, ctx.window);
    let writes = transition::claim(verb, &copy, before.as_ref(), &others, ctx.worker, ctx.now);
    Step { verb, before, writes, in_turn: false }
}

impl Step {
    /// A job that may run waits for its turn instead, where there is a reason for it.
    fn in_turn(self, reason: Option<WaitReason>, now: Timestamp) -> Self {
        let Some(reason) = reason.filter(|_| self.verb == Verb::Run) else { return self };
        Self { writes: transition::claim_in_turn(self.writes, self.verb, reason, now), in_turn: true, ..self }
    }

    /// Brings `rows` up to date with what is written.
    pub fn apply(&self, rows: &mut Vec<Row>) {
        for row in self.writes.displaced.iter().chain(&self.writes.own) {
            match rows.iter_mut().find(|other| other.instance == row.instance) {
                Some(other) => *other = *row,
                None => rows.push(*row),
            }
        }
    }

    /// What the claimant is told, where that needs nothing but the decision: `None` for `Superseded`. What is granted
    /// comes without the stored job.
    pub fn claimed(&self) -> Option<Claimed> {
        match self.verb {
            Verb::Run if self.in_turn => Some(Claimed::InTurn),
            Verb::Run | Verb::Continue => self.writes.own.or(self.before).map(|row| {
                Claimed::Run(Granted {
                    instance: row.instance,
                    attempt: row.attempt,
                    generation: row.generation,
                    takeovers: row.takeovers,
                    effect_possible: row.effect_possible,
                    released_at: self.before.and_then(|before| before.released_at),
                    held_since: row.held_since,
                    stored: None,
                })
            }),
            Verb::Park | Verb::BackToWaiting => Some(Claimed::Parked),
            Verb::Duplicate { of, state, different_payload } => {
                Some(Claimed::Duplicate { original: of, state, different_payload })
            }
            Verb::Stale | Verb::Remint => Some(Claimed::Stale),
            Verb::Superseded { .. } => None,
        }
    }
}

/// What the letter of a superseded job says.
pub fn superseded_by(other: Uuid) -> String {
    format!("job {other} of the same id has succeeded meanwhile, or may have")
}

/// What the letter of a job says that killed its workers.
pub fn killed(workers: u32) -> String {
    format!("{workers} workers died while they were calling it")
}
