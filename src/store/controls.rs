//! What a store keeps of operators: pauses, and the log of what they changed.

use crate::clock::Timestamp;
use crate::job::control::{Pause, Source, Target};

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

/// A line of the audit log: somebody changed something. Texts longer than a few kilobytes are cut.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditEntry {
    /// When.
    pub at: Timestamp,
    /// Who.
    pub actor: String,
    /// From where.
    pub source: Source,
    /// What was done: `pause`, `resume`, `set_limits`, `reset_limits`, ...
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
