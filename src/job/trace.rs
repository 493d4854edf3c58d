//! W3C trace context: what a publisher sent, and the place of one call in the same trace.

use std::fmt;

use uuid::Uuid;

use super::Job;

/// Only this version is known; a later one begins with the same fields.
const VERSION_NEVER: &str = "ff";
/// The flag that says that the trace is recorded.
const SAMPLED: u8 = 1;

/// A place in a trace. Neither id is ever 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Context {
    /// The trace.
    pub trace: u128,
    /// The span.
    pub span: u64,
    /// What is known of the trace.
    pub flags: u8,
}

impl Context {
    /// Reads a `traceparent`; `None` when it is not one, which is no reason not to call.
    pub fn parse(text: &str) -> Option<Self> {
        let mut parts = text.trim().split('-');
        let (version, trace, span, flags) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
        let is_hex = |text: &str, digits: usize| {
            text.len() == digits && text.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))
        };
        let known = is_hex(version, 2) && version != VERSION_NEVER && (version != "00" || parts.next().is_none());
        if !known || !is_hex(trace, 32) || !is_hex(span, 16) || !is_hex(flags, 2) {
            return None;
        }
        let (trace, span) = (u128::from_str_radix(trace, 16).ok()?, u64::from_str_radix(span, 16).ok()?);
        (trace != 0 && span != 0).then_some(Self { trace, span, flags: u8::from_str_radix(flags, 16).ok()? })
    }

    /// The publisher's, where it sent one that can be read.
    pub fn of_publisher(job: &Job) -> Option<Self> {
        Self::parse(job.meta.traceparent.as_deref()?)
    }

    /// That of one call of a job: in the publisher's trace; without one all calls of the job are a trace of their own. `call`
    /// is random for each call.
    pub fn of_call(job: &Job, call: Uuid) -> Self {
        let parent = Self::of_publisher(job);
        let (_, span) = call.as_u64_pair();
        Self {
            trace: parent.map_or(job.instance.as_u128().max(1), |parent| parent.trace),
            span: span.max(1),
            flags: parent.map_or(SAMPLED, |parent| parent.flags),
        }
    }

    /// Whether the trace is recorded.
    pub fn is_sampled(self) -> bool {
        self.flags & SAMPLED != 0
    }
}

impl fmt::Display for Context {
    /// As `traceparent`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "00-{:032x}-{:016x}-{:02x}", self.trace, self.span, self.flags)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    #[test]
    fn a_traceparent_is_read_and_written() {
        let read = Context::parse(SENT).expect("one");
        assert_eq!((read.to_string().as_str(), read.is_sampled()), (SENT, true));
        assert!(!Context::parse(&format!("{}00", &SENT[..53])).expect("not sampled").is_sampled());
        assert_eq!(Context::parse(&SENT.replacen("00", "cc", 1)).map(|later| later.trace), Some(read.trace));
        assert!(
            Context::parse(&format!("{}-more", SENT.replacen("00", "cc", 1))).is_some(),
            "a later version may say more"
        );
        for wrong in [
            "",
            "00",
            "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "00-00000000000000000000000000000000-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
            "00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-more",
            "00-+af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        ] {
            assert_eq!(Context::parse(wrong), None, "{wrong}");
        }
    }
}
