//! What a store keeps of operators: pauses, how many calls lanes make at a time, and the log of what they changed.

use crate::clock::Timestamp;
use crate::job::LaneName;
use crate::job::control::{Concurrency, Pause, Source, Target};

/// A pause, as it was written. One that has ended by itself stays for a while.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ControlRow {
    /// What is paused.
    pub target: Target,
    /// Higher with each write.
    pub version: i64,
    /// Until when, by whom, why.
    pub pause: Pause,
}

/// What is to hold of a target from now on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ControlWrite {
    /// Which.
    pub target: Target,
    /// The version it was made from; 0 = there was none.
    pub seen: i64,
    /// The version it makes: higher than any before, also of a row that was forgotten.
    pub version: i64,
    /// The pause; `None` = it is resumed.
    pub pause: Option<Pause>,
}

/// How many calls a lane makes at a time, as it was written. What has ended by itself stays for a while.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConcurrencyRow {
    /// The lane.
    pub lane: LaneName,
    /// Higher with each write.
    pub version: i64,
    /// How many, until when, by whom, why.
    pub concurrency: Concurrency,
}

/// How many calls a lane is to make at a time from now on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConcurrencyWrite {
    /// The lane.
    pub lane: LaneName,
    /// The version it was made from; 0 = there was none.
    pub seen: i64,
    /// The version it makes: higher than any before, also of a row that was forgotten.
    pub version: i64,
    /// How many; `None` = as configured.
    pub concurrency: Option<Concurrency>,
}

/// A line of the audit log: somebody changed something. Texts longer than a few kilobytes are cut.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditEntry {
    /// When.
    pub at: Timestamp,
    /// Who.
    pub actor: String,
    /// From where.
    pub source: Source,
    /// What was done: `pause`, `resume`, `set_limits`, `set_concurrency`, `retry_now`, ...
    pub action: String,
    /// To what: `lane bulk`, `tenant acme at crm`, ...
    pub target: String,
    /// How it was before, for people.
    pub before: String,
    /// How it is since, for people.
    pub after: String,
    /// Why; may be empty.
    pub note: String,
}

impl AuditEntry {
    /// The same line of so many jobs, where they are several.
    #[must_use]
    pub fn of_jobs(&self, jobs: usize) -> Self {
        match jobs {
            0 | 1 => self.clone(),
            _ => Self { after: format!("{}: {jobs} jobs", self.after), ..self.clone() },
        }
    }
}

/// A line of the audit log, as it was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditRow {
    /// Its place in the log: higher is later.
    pub id: i64,
    /// What it says.
    pub entry: AuditEntry,
}

/// Which lines of the audit log to list; all conditions must hold.
#[derive(Debug, Clone, Default)]
pub struct AuditFilter {
    /// Only those of this actor.
    pub actor: Option<String>,
    /// Only this action.
    pub action: Option<String>,
    /// Only this target.
    pub target: Option<String>,
    /// Only those before this place ([`AuditRow::id`]): how to go on after the last line of a list.
    pub before: Option<i64>,
}
