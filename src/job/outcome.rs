//! The facts of one call, as they were seen, before anybody decides what they mean.

use std::time::Duration;

use bytes::Bytes;

use crate::clock::Timestamp;

/// Most bytes of an answer's body that are kept for body rules and for people.
pub const ANSWER_BODY_BYTES_MAX: usize = 64 * 1024;
/// Most headers of an answer that are kept.
pub const ANSWER_HEADERS_MAX: usize = 64;

/// What happened to one call.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// When the call began.
    pub started_at: Timestamp,
    /// When its last byte, or its failure, was seen.
    pub ended_at: Timestamp,
    /// What came back.
    pub answer: Answer,
}

impl Outcome {
    /// How long the call took.
    pub fn duration(&self) -> Duration {
        self.ended_at.since(self.started_at)
    }

    /// The HTTP status, when there was one.
    pub fn status(&self) -> Option<u16> {
        match &self.answer {
            Answer::Http(http) => Some(http.status),
            _ => None,
        }
    }
}

/// What came back from a call.
#[derive(Debug, Clone)]
pub enum Answer {
    /// An HTTP answer, whatever its status.
    Http(HttpAnswer),
    /// The request never left: refused connection, unknown host, forbidden address, TLS failure.
    NotSent(String),
    /// The request left, no complete answer came: timeout, connection closed. It may have had its effect.
    NoAnswer(String),
    /// The call can't be made as the job asks, now or later (method not allowed, bad header, unknown endpoint).
    Impossible(String),
    /// What the user's own handler said (library use).
    Handler(HandlerAnswer),
}

/// An HTTP answer, reduced to what may be looked at.
#[derive(Debug, Clone, Default)]
pub struct HttpAnswer {
    /// The status code.
    pub status: u16,
    /// Rate and retry headers, names in lower case, values as sent (bounded, allow-listed: never cookies or credentials).
    pub headers: Vec<(String, String)>,
    /// The first [`ANSWER_BODY_BYTES_MAX`] bytes of the body; empty for 2xx unless a body rule needs it.
    pub body: Bytes,
}

impl HttpAnswer {
    /// The first header of that lower-case name.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_str())
    }
}

/// What a user's own handler can answer. The names say what lanes will do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HandlerAnswer {
    /// It worked.
    Done,
    /// The API is limiting us; call again no earlier than after `retry_after`.
    RateLimited {
        /// The least wait the API asked for.
        retry_after: Option<Duration>,
    },
    /// It failed in a way that may pass; the text is shown to people.
    Retry(String),
    /// It will never work; the text is shown to people.
    Failed(String),
    /// The handler panicked.
    Panicked(String),
}
