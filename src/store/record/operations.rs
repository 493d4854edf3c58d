//! How rows of either database become operations, and what a step makes of one.

use std::time::Duration;

use sqlx::FromRow;
use uuid::Uuid;

use crate::clock::Timestamp;
use crate::job::control::Source;
use crate::job::operation::{Action, Group, NewOperation, Operation, Phase, Selection, Tally};
use crate::job::{DedupKey, EndpointName, JobId, LaneName, NameError, Tenant};
use crate::store::fault::{Answer, Fault, free_text};
use crate::store::{RawLetter, StepWish, Stepped};

/// The columns of an operation, as [`OperationRecord`] reads them.
macro_rules! operation_columns {
    () => {
        "started_at, until_at, interval_us, planned, done, skipped, failed, next_at, cursor_at, claimed_until, ended_at, id, \
         cursor_instance, action, phase, lane, endpoint, tenant, reason, not_lanes, not_endpoints, actor, source, note, problem"
    };
}
pub(in crate::store) use operation_columns;

/// An operation.
#[derive(Debug, FromRow)]
pub struct OperationRecord {
    pub started_at: i64,
    pub until_at: i64,
    pub interval_us: i64,
    pub planned: i64,
    pub done: i64,
    pub skipped: i64,
    pub failed: i64,
    pub next_at: i64,
    pub cursor_at: Option<i64>,
    pub claimed_until: Option<i64>,
    pub ended_at: Option<i64>,
    pub id: Uuid,
    pub cursor_instance: Option<Uuid>,
    pub action: String,
    pub phase: String,
    pub lane: Option<String>,
    pub endpoint: Option<String>,
    pub tenant: Option<String>,
    pub reason: Option<String>,
    pub not_lanes: String,
    pub not_endpoints: String,
    pub actor: String,
    pub source: String,
    pub note: String,
    pub problem: String,
}

impl OperationRecord {
    /// As the seam tells it.
    ///
    /// # Errors
    /// [`Fault::Unreadable`] when the row was not written by this program.
    pub fn operation(self) -> Answer<Operation> {
        let unknown = |what: &str, word: &str| Fault::Unreadable(format!("{what} {word:?} of an operation"));
        let micros = |at: i64| Timestamp::from_micros(at);
        let not_lanes: Vec<String> = serde_json::from_str(&self.not_lanes)?;
        let selection = Selection {
            lane: self.lane.as_deref().map(LaneName::new).transpose()?,
            endpoint: self.endpoint.as_deref().map(EndpointName::new).transpose()?,
            tenant: self.tenant.as_deref().map(Tenant::new).transpose()?,
            reason: self.reason,
            until: micros(self.until_at),
            not_lanes: not_lanes.iter().map(|lane| LaneName::new(lane)).collect::<Result<_, _>>()?,
            not_endpoints: serde_json::from_str(&self.not_endpoints)?,
        };
        let begun = NewOperation {
            id: self.id,
            action: Action::parse(&self.action).ok_or_else(|| unknown("action", &self.action))?,
            selection,
            planned: self.planned.unsigned_abs(),
            interval: Duration::from_micros(self.interval_us.unsigned_abs()),
            actor: self.actor,
            source: Source::parse(&self.source).ok_or_else(|| unknown("source", &self.source))?,
            note: self.note,
            started_at: micros(self.started_at),
        };
        let tally = Tally {
            done: self.done.unsigned_abs(),
            skipped: self.skipped.unsigned_abs(),
            failed: self.failed.unsigned_abs(),
        };
        Ok(Operation {
            begun,
            phase: Phase::parse(&self.phase).ok_or_else(|| unknown("phase", &self.phase))?,
            tally,
            problem: self.problem,
            next_at: micros(self.next_at),
            claimed_until: self.claimed_until.map(micros),
            ended_at: self.ended_at.map(micros),
        })
    }

    /// The last letter that was looked at.
    pub fn cursor(&self) -> Option<(i64, Uuid)> {
        self.cursor_at.zip(self.cursor_instance)
    }
}

/// Names as they are stored.
///
/// # Errors
/// Never in practice.
pub fn names(names: impl IntoIterator<Item = impl Into<String>>) -> Answer<String> {
    Ok(serde_json::to_string(&names.into_iter().map(Into::into).collect::<Vec<String>>())?)
}

/// How far a step has come.
#[derive(Debug, Default)]
pub struct Progress {
    pub done: u64,
    pub skipped: u64,
    pub failed: u64,
    pub problem: Option<String>,
    /// The last letter that was looked at.
    pub cursor: Option<(i64, Uuid)>,
    /// Nothing is left.
    pub is_last: bool,
    /// Letters that come next, and only a broker can put back to work.
    pub raw: Vec<RawLetter>,
    pub cancelled: Vec<(LaneName, u64)>,
}

impl Progress {
    /// One that did not work.
    pub fn fail(&mut self, why: &str) {
        self.failed += 1;
        self.problem = Some(free_text(why));
    }

    /// One more of this lane was cancelled.
    pub fn count_cancelled(&mut self, lane: &str) -> Answer<()> {
        match self.cancelled.iter_mut().find(|(known, _)| known.as_str() == lane) {
            Some((_, jobs)) => *jobs += 1,
            None => self.cancelled.push((LaneName::new(lane)?, 1)),
        }
        Ok(())
    }

    /// Letters that only a broker can put back to work. If none of them can be read, they are passed over.
    pub fn of_raw(places: &[PlaceRecord], raw: Vec<RawLetter>) -> Self {
        let mut progress = Self { raw, ..Self::default() };
        if progress.raw.is_empty() {
            progress.cursor = places.last().map(|place| (place.died_at, place.instance));
            for place in places {
                progress.fail(&format!("letter {} can't be read", place.instance));
            }
        }
        progress
    }

    /// The operation after this step. A step that found only letters to publish has acted on none yet.
    pub fn apply(self, mut operation: Operation, wish: &StepWish) -> Stepped {
        let tally = &mut operation.tally;
        tally.done += self.done;
        tally.skipped += self.skipped;
        tally.failed += self.failed;
        operation.problem = self.problem.unwrap_or(operation.problem);
        operation.claimed_until = Some(if self.raw.is_empty() { wish.claim.until } else { wish.raw_until });
        if self.raw.is_empty() {
            operation.next_at = wish.next_at;
        }
        if self.is_last {
            operation.phase = Phase::Done;
            operation.ended_at = Some(wish.now);
            operation.claimed_until = None;
        }
        Stepped { operation, raw: self.raw, cancelled: self.cancelled }
    }
}

/// A letter in the order in which operations go through them.
#[derive(Debug, FromRow)]
pub struct PlaceRecord {
    pub died_at: i64,
    pub body_bytes: i64,
    pub raw: bool,
    pub instance: Uuid,
    pub lane: String,
    pub tenant: Option<String>,
    pub id: Option<String>,
}

/// The key of a letter's job, or what it lacks.
///
/// # Errors
/// As a sentence.
pub fn key_of(place: &PlaceRecord) -> Result<DedupKey, String> {
    let (Some(tenant), Some(id)) = (&place.tenant, &place.id) else {
        return Err(format!("letter {} lacks what its job had", place.instance));
    };
    let unreadable = |error: NameError| format!("letter {}: {error}", place.instance);
    let lane = LaneName::new(&place.lane).map_err(unreadable)?;
    let tenant = Tenant::new(tenant).map_err(unreadable)?;
    Ok(DedupKey::of(&lane, &tenant, &JobId::new(id).map_err(unreadable)?))
}

/// Those that are acted on in this step, of those that come next: up to the first one that only a broker can put back to
/// work; or, if that is the first, how many of its kind follow each other, by number and bytes.
pub fn run_of(places: &[PlaceRecord], splits_raw: bool, raw_max: usize, bytes_max: usize) -> (bool, usize) {
    let is_raw = splits_raw && places.first().is_some_and(|place| place.raw);
    let run = places.iter().take_while(|place| (splits_raw && place.raw) == is_raw);
    if !is_raw {
        return (false, run.count());
    }
    let mut bytes = 0_usize;
    let fit = run.take(raw_max).take_while(|place| {
        let first = bytes == 0;
        bytes = bytes.saturating_add(usize::try_from(place.body_bytes).unwrap_or(0).max(1));
        first || bytes <= bytes_max
    });
    (true, fit.count())
}

/// Those of one lane, endpoint and reason.
#[derive(Debug, FromRow)]
pub struct PlanRecord {
    pub lane: String,
    pub endpoint: Option<String>,
    pub reason: String,
    pub items: i64,
    pub raw: i64,
    pub effect_possible: i64,
}

impl PlanRecord {
    /// As the seam tells it.
    ///
    /// # Errors
    /// [`Fault::Unreadable`] when the rows were not written by this program.
    pub fn group(self) -> Answer<Group> {
        Ok(Group {
            lane: LaneName::new(&self.lane)?,
            endpoint: self.endpoint,
            reason: self.reason,
            items: self.items.unsigned_abs(),
            raw: self.raw.unsigned_abs(),
            effect_possible: self.effect_possible.unsigned_abs(),
        })
    }
}
