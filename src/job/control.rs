//! What an operator says while workers run: what is paused, how many calls a lane makes; until when, by whom and why.

use std::fmt;

use super::budget::Account;
use super::{EndpointName, LaneName, Tenant};
use crate::clock::Timestamp;

/// Longest name of an author, in characters; what is longer is cut.
pub const AUTHOR_CHARS_MAX: usize = 100;
/// Longest note, in characters; what is longer is cut.
pub const NOTE_CHARS_MAX: usize = 500;

/// Most calls at a time that a lane can have in one worker.
pub const CONCURRENCY_MAX: u32 = 10_000;

/// What a pause holds back.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Target {
    /// A lane: nothing of it is claimed, called or released.
    Lane(LaneName),
    /// All calls to an endpoint.
    Endpoint(EndpointName),
    /// All calls of a tenant, to whatever endpoint.
    Tenant(Tenant),
    /// The calls of a tenant to one endpoint.
    TenantAt(EndpointName, Tenant),
}

impl Target {
    /// Its parts: those that it does not have are `None`.
    pub fn parts(&self) -> (Option<&LaneName>, Option<&EndpointName>, Option<&Tenant>) {
        match self {
            Self::Lane(lane) => (Some(lane), None, None),
            Self::Endpoint(endpoint) => (None, Some(endpoint), None),
            Self::Tenant(tenant) => (None, None, Some(tenant)),
            Self::TenantAt(endpoint, tenant) => (None, Some(endpoint), Some(tenant)),
        }
    }

    /// The target that has these parts; `None` when there is none like that.
    pub fn of_parts(lane: Option<LaneName>, endpoint: Option<EndpointName>, tenant: Option<Tenant>) -> Option<Self> {
        match (lane, endpoint, tenant) {
            (Some(lane), None, None) => Some(Self::Lane(lane)),
            (None, Some(endpoint), None) => Some(Self::Endpoint(endpoint)),
            (None, None, Some(tenant)) => Some(Self::Tenant(tenant)),
            (None, Some(endpoint), Some(tenant)) => Some(Self::TenantAt(endpoint, tenant)),
            _ => None,
        }
    }
}

impl From<Account> for Target {
    fn from(account: Account) -> Self {
        match account.tenant {
            Some(tenant) => Self::TenantAt(account.endpoint, tenant),
            None => Self::Endpoint(account.endpoint),
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Lane(lane) => write!(f, "lane {lane}"),
            Self::Endpoint(endpoint) => write!(f, "endpoint {endpoint}"),
            Self::Tenant(tenant) => write!(f, "tenant {tenant}"),
            Self::TenantAt(endpoint, tenant) => write!(f, "tenant {tenant} at {endpoint}"),
        }
    }
}

/// That something is paused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pause {
    /// It ends by itself then; `None` = it lasts until it is resumed.
    pub until: Option<Timestamp>,
    /// Who said so.
    pub author: String,
    /// Why, for people; may be empty.
    pub note: String,
    /// Since when.
    pub set_at: Timestamp,
}

impl Pause {
    /// Whether it holds anything back at that time: one that has ended is none.
    pub fn lasts(&self, now: Timestamp) -> bool {
        self.until.is_none_or(|until| until > now)
    }
}

/// A pause and what it holds back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Paused {
    /// What.
    pub target: Target,
    /// Until when, by whom, why.
    pub pause: Pause,
}

/// How many calls a lane makes at a time in each worker, as an operator has said instead of the configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Concurrency {
    /// Most calls in flight, per worker: 1 to [`CONCURRENCY_MAX`].
    pub calls: u32,
    /// It ends by itself then; `None` = it lasts until it is reset.
    pub until: Option<Timestamp>,
    /// Who said so.
    pub author: String,
    /// Why, for people; may be empty.
    pub note: String,
    /// Since when.
    pub set_at: Timestamp,
}

impl Concurrency {
    /// Whether it counts at that time: since its end the configured number does.
    pub fn lasts(&self, now: Timestamp) -> bool {
        self.until.is_none_or(|until| until > now)
    }
}

/// Where an operator spoke.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Source {
    /// The command line.
    Cli,
    /// A page of the dashboard.
    Page,
    /// A program, over HTTP.
    Api,
}

impl Source {
    /// Every source.
    pub const ALL: [Self; 3] = [Self::Cli, Self::Page, Self::Api];

    /// The source as it is stored and shown.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Cli => "cli",
            Self::Page => "page",
            Self::Api => "api",
        }
    }

    /// The source behind a word; `None` for a word that is not in the set.
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|source| source.as_str() == word)
    }
}

/// Who says something, from where, and why. Made with bounded texts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Speaker {
    /// Who.
    pub author: String,
    /// From where.
    pub source: Source,
    /// Why, for people; may be empty.
    pub note: String,
}

impl Speaker {
    /// Somebody who gives no reason.
    pub fn new(author: &str, source: Source) -> Self {
        Self { author: author.chars().take(AUTHOR_CHARS_MAX).collect(), source, note: String::new() }
    }

    /// The same with a reason.
    #[must_use]
    pub fn because(self, note: &str) -> Self {
        Self { note: note.chars().take(NOTE_CHARS_MAX).collect(), ..self }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_is_its_parts_and_says_what_it_is() {
        let (lane, endpoint) = (LaneName::new("bulk").expect("legal"), EndpointName::new("crm").expect("legal"));
        let tenant = Tenant::new("acme").expect("legal");
        let all = [
            (Target::Lane(lane), "lane bulk"),
            (Target::Endpoint(endpoint.clone()), "endpoint crm"),
            (Target::Tenant(tenant.clone()), "tenant acme"),
            (Target::TenantAt(endpoint, tenant), "tenant acme at crm"),
        ];
        for (target, text) in all {
            let (lane, endpoint, tenant) = target.parts();
            assert_eq!(Target::of_parts(lane.cloned(), endpoint.cloned(), tenant.cloned()), Some(target.clone()));
            assert_eq!(target.to_string(), text);
        }
        assert_eq!(Target::of_parts(None, None, None), None);
        for source in Source::ALL {
            assert_eq!(Source::parse(source.as_str()), Some(source));
        }
    }

    #[test]
    fn texts_are_bounded() {
        let speaker = Speaker::new(&"a".repeat(1_000), Source::Cli).because(&"\u{e9}".repeat(1_000));
        assert_eq!((speaker.author.chars().count(), speaker.note.chars().count()), (AUTHOR_CHARS_MAX, NOTE_CHARS_MAX));
    }
}
