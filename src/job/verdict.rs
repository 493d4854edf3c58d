//! What is decided about a job after a call, and the closed sets of reasons for waiting and dying.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::clock::Timestamp;

/// A closed set of words, each with its meaning.
macro_rules! words {
    ($(#[$doc:meta])* $name:ident { $($(#[$vdoc:meta])* $variant:ident = $word:literal,)* }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(rename_all = "snake_case")]
        pub enum $name { $($(#[$vdoc])* $variant,)* }

        impl $name {
            /// Every word of the set.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// The word as it is stored, shown and used as a label.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $word,)* }
            }

            /// The word's meaning; `None` for a word that is not in the set.
            pub fn parse(word: &str) -> Option<Self> {
                match word { $($word => Some(Self::$variant),)* _ => None }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }
    };
}
pub(super) use words;

words! {
    /// Why a job waits.
    WaitReason {
        /// After a 429.
        RateLimited = "rate_limited",
        /// After another failure that may pass.
        Transient = "transient",
        /// Its own `not_before` is still ahead.
        NotBefore = "not_before",
        /// Another instance of its key is alive; it runs when the key is free.
        KeyBusy = "key_busy",
        /// The worker stopped before the call; it goes on at once elsewhere.
        Interrupted = "interrupted",
        /// It was running when a worker died; such jobs run one at a time.
        Suspect = "suspect",
        /// An operator asked for it again.
        Replay = "replay",
        /// No tokens in its budget.
        Budget = "budget",
        /// Its key is blocked by a Retry-After.
        Cooldown = "cooldown",
        /// Its endpoint is failing.
        Circuit = "circuit",
        /// As many calls are in flight as there may be.
        Concurrency = "concurrency",
        /// An operator has paused its lane, its endpoint or its tenant.
        Paused = "paused",
        /// Behind the head of its ordering key.
        Ordering = "ordering",
    }
}

words! {
    /// Why a job became a dead letter.
    DeadReason {
        /// All allowed attempts failed.
        Exhausted = "exhausted",
        /// The endpoint refused it for good.
        Failed = "failed",
        /// Its time to live passed before it could be called.
        Expired = "expired",
        /// It killed its worker too often.
        Poison = "poison",
        /// It may have had its effect and must not be repeated.
        Ambiguous = "ambiguous",
        /// A replay found that another publish of its id has, or may have, succeeded.
        Superseded = "superseded",
        /// The message could not be read.
        Undecodable = "undecodable",
        /// It names an endpoint that is not configured, or none.
        UnknownEndpoint = "unknown_endpoint",
        /// It is larger than lanes accepts.
        TooLarge = "too_large",
        /// Its id is in use, in the window, by a job with another payload.
        DuplicateIdDifferentPayload = "duplicate_id_different_payload",
        /// The broker gave it up (delivery limit).
        BrokerDeadLettered = "broker_dead_lettered",
    }
}

/// What the facts of a call mean.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Class {
    /// It worked.
    Ok,
    /// The API is limiting us.
    RateLimited,
    /// It failed in a way that may pass; the endpoint answered.
    Transient,
    /// It will never work.
    Permanent,
    /// It was sent, no answer came: it may have had its effect.
    Unknown,
    /// It was never sent.
    NotSent,
}

impl Class {
    /// Every class.
    pub const ALL: [Self; 6] =
        [Self::Ok, Self::RateLimited, Self::Transient, Self::Permanent, Self::Unknown, Self::NotSent];

    /// The class as a label.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::RateLimited => "rate_limited",
            Self::Transient => "transient",
            Self::Permanent => "permanent",
            Self::Unknown => "unknown",
            Self::NotSent => "not_sent",
        }
    }
}

/// What happens to the job after its call.
#[derive(Debug, Clone, PartialEq)]
pub enum Verdict {
    /// It ends: succeeded.
    Done,
    /// It is called again, not before `at`.
    Retry {
        /// The earliest time of the next call.
        at: Timestamp,
        /// The wait that was chosen.
        delay: Duration,
        /// `RateLimited` or `Transient`.
        reason: WaitReason,
        /// What the server asked for was longer than `max_retry_after` and was cut.
        capped: bool,
    },
    /// It ends: dead letter.
    Dead {
        /// Why.
        reason: DeadReason,
        /// For a person.
        detail: String,
    },
}
