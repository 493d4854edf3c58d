//! Rows, letters and attempts as JSON documents: what every program is shown, and bytes for people who asked for them.

use serde_json::{Value, json};

use crate::job::operation::Operation;
pub use crate::observe::documents::{account, attempt, hold, job, letter, line, pause, status, time};

/// An operation on many.
pub fn operation(operation: &Operation) -> Value {
    let (begun, tally) = (&operation.begun, operation.tally);
    let selection = &begun.selection;
    json!({
        "handle": begun.id, "action": begun.action, "phase": operation.phase,
        "selection": {
            "lane": selection.lane, "endpoint": selection.endpoint, "tenant": selection.tenant,
            "reason": selection.reason, "until": time(Some(selection.until)), "not_lanes": selection.not_lanes,
            "not_endpoints": selection.not_endpoints,
        },
        "planned": begun.planned, "done": tally.done, "skipped": tally.skipped, "failed": tally.failed,
        "problem": operation.problem, "interval_ms": begun.interval.as_secs_f64() * 1e3, "actor": begun.actor,
        "source": begun.source.as_str(), "note": begun.note, "started_at": time(Some(begun.started_at)),
        "next_at": time(Some(operation.next_at)), "ended_at": time(operation.ended_at),
    })
}

/// Bytes for JSON: text where they are text, hexadecimal otherwise.
pub fn body(bytes: &[u8]) -> Value {
    match std::str::from_utf8(bytes) {
        Ok(text) => json!({ "text": text }),
        Err(_) => json!({ "hex": hex(bytes) }),
    }
}

/// Hexadecimal text.
pub fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        let _ = write!(text, "{byte:02x}"); // writing to a String cannot fail
        text
    })
}
