//! Work on everything that matches a filter: what is done, to what, how fast, how far it is.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::control::Source;
use super::{EndpointName, LaneName, Tenant};
use crate::clock::Timestamp;

/// What is done to all of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// Dead letters are put back to work.
    Retry,
    /// Dead letters are deleted.
    Discard,
    /// Jobs that wait are cancelled.
    Cancel,
}

impl Action {
    /// Every action.
    pub const ALL: [Self; 3] = [Self::Retry, Self::Discard, Self::Cancel];

    /// The action as it is stored and shown.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Retry => "retry",
            Self::Discard => "discard",
            Self::Cancel => "cancel",
        }
    }

    /// The action behind a word; `None` for a word that is not in the set.
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|action| action.as_str() == word)
    }

    /// Whether it is about dead letters; else it is about jobs that wait.
    pub const fn is_of_letters(self) -> bool {
        matches!(self, Self::Retry | Self::Discard)
    }

    /// What it is about, one of them.
    pub const fn thing(self) -> &'static str {
        if self.is_of_letters() { "dead letter" } else { "waiting job" }
    }

    /// What was done to those that are done.
    pub const fn done_word(self) -> &'static str {
        match self {
            Self::Retry => "put back to work",
            Self::Discard => "discarded",
            Self::Cancel => "cancelled",
        }
    }
}

/// Which ones; all conditions must hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Selection {
    /// Only of this lane.
    pub lane: Option<LaneName>,
    /// Only of this endpoint.
    pub endpoint: Option<EndpointName>,
    /// Only of this tenant.
    pub tenant: Option<Tenant>,
    /// Only for this reason: why they died, or why they wait.
    pub reason: Option<String>,
    /// Only letters that died, or jobs that were published, at this time or before: what comes after the plan is not part
    /// of it.
    pub until: Timestamp,
    /// None of these lanes.
    pub not_lanes: Vec<LaneName>,
    /// None of these endpoints.
    pub not_endpoints: Vec<String>,
}

impl Selection {
    /// Everything there is at a time.
    pub const fn all(until: Timestamp) -> Self {
        Self {
            lane: None,
            endpoint: None,
            tenant: None,
            reason: None,
            until,
            not_lanes: Vec::new(),
            not_endpoints: Vec::new(),
        }
    }

    /// The conditions as people write them: `lane bulk, endpoint crm`; `everything` without any.
    pub fn text(&self) -> String {
        let conditions = [
            self.lane.as_ref().map(|lane| format!("lane {lane}")),
            self.endpoint.as_ref().map(|endpoint| format!("endpoint {endpoint}")),
            self.tenant.as_ref().map(|tenant| format!("tenant {tenant}")),
            self.reason.as_ref().map(|reason| format!("reason {reason}")),
        ];
        let conditions: Vec<_> = conditions.into_iter().flatten().collect();
        if conditions.is_empty() { "everything".to_owned() } else { conditions.join(", ") }
    }
}

/// Those of one lane, endpoint and reason that a selection finds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Group {
    /// Their lane.
    pub lane: LaneName,
    /// Their endpoint; `None` when it could not be read.
    pub endpoint: Option<String>,
    /// Why they died, or wait; empty for jobs that were released already.
    pub reason: String,
    /// How many.
    pub items: u64,
    /// How many of them never were jobs: their bytes are published again.
    pub raw: u64,
    /// How many of them may have had an effect already.
    pub effect_possible: u64,
}

/// An operation as it begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewOperation {
    /// Its handle: starting it twice starts it once.
    pub id: Uuid,
    /// What is done.
    pub action: Action,
    /// To which.
    pub selection: Selection,
    /// How many the plan found.
    pub planned: u64,
    /// Time between two of them; zero = as fast as it goes.
    pub interval: Duration,
    /// Who started it.
    pub actor: String,
    /// From where.
    pub source: Source,
    /// Why, for people; may be empty.
    pub note: String,
    /// When.
    pub started_at: Timestamp,
}

/// Where an operation is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// A worker works on it, or will.
    Running,
    /// All of them were looked at.
    Done,
    /// Somebody ended it before; what was done stays done.
    Cancelled,
}

impl Phase {
    /// Every phase.
    pub const ALL: [Self; 3] = [Self::Running, Self::Done, Self::Cancelled];

    /// The phase as it is stored and shown.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Done => "done",
            Self::Cancelled => "cancelled",
        }
    }

    /// The phase behind a word; `None` for a word that is not in the set.
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|phase| phase.as_str() == word)
    }
}

/// How many of them were looked at.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tally {
    /// The action worked.
    pub done: u64,
    /// There was nothing to do any more: the job had run meanwhile, or somebody else was quicker.
    pub skipped: u64,
    /// It did not work; they are as they were.
    pub failed: u64,
}

impl Tally {
    /// All that were looked at.
    pub const fn looked_at(&self) -> u64 {
        self.done + self.skipped + self.failed
    }
}

/// An operation and how far it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Operation {
    /// What it was started as.
    pub begun: NewOperation,
    /// Where it is.
    pub phase: Phase,
    /// How many were looked at.
    pub tally: Tally,
    /// Why the last one that failed did; empty when none has.
    pub problem: String,
    /// Not before this time the next ones are acted on.
    pub next_at: Timestamp,
    /// Until when somebody has said to work on it; `None` = nobody does.
    pub claimed_until: Option<Timestamp>,
    /// When it ended.
    pub ended_at: Option<Timestamp>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_read_back() {
        for action in Action::ALL {
            assert_eq!(Action::parse(action.as_str()), Some(action));
        }
        for phase in Phase::ALL {
            assert_eq!(Phase::parse(phase.as_str()), Some(phase));
        }
        assert_eq!((Action::parse("x"), Phase::parse("")), (None, None));
    }

    #[test]
    fn a_selection_says_what_it_is() {
        let all = Selection::all(Timestamp::EPOCH);
        assert_eq!(all.text(), "everything");
        let some = Selection {
            lane: Some(LaneName::new("bulk").expect("legal")),
            reason: Some("exhausted".to_owned()),
            ..all
        };
        assert_eq!(some.text(), "lane bulk, reason exhausted");
    }
}
