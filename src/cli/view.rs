//! Rows, letters and attempts as JSON documents: times in RFC 3339, names that stay.

use serde_json::{Value, json};

use crate::clock::Timestamp;
use crate::job::operation::Operation;
use crate::store::{AttemptRecord, IN_TURN, JobRow, Letter};

/// A time, or null.
pub fn time(at: Option<Timestamp>) -> Value {
    at.filter(|at| *at != IN_TURN).map_or(Value::Null, |at| at.to_string().into())
}

/// A job.
pub fn job(row: &JobRow) -> Value {
    json!({
        "handle": row.instance, "lane": row.lane, "tenant": row.tenant, "id": row.id, "endpoint": row.endpoint,
        "state": row.state, "reason": row.reason, "attempt": row.attempt, "generation": row.generation,
        "takeovers": row.takeovers, "effect_possible": row.effect_possible, "cancel_requested": row.cancel_requested,
        "holds_key": row.holds_key, "worker": row.worker,
        "published_at": time(Some(row.published_at)), "resume_at": time(row.resume_at),
        "released_at": time(row.released_at), "ended_at": time(row.ended_at), "held_since": time(row.held_since),
    })
}

/// An entry of the journal of attempts.
pub fn attempt(record: &AttemptRecord) -> Value {
    let headers: serde_json::Map<String, Value> =
        record.rate_headers.iter().map(|(name, value)| (name.clone(), value.as_str().into())).collect();
    json!({
        "generation": record.generation, "attempt": record.attempt, "started_at": time(Some(record.started_at)),
        "duration_ms": record.duration_us / 1_000, "class": record.class, "status": record.status,
        "detail": record.detail, "retry_after_ms": record.retry_after_ms, "rate_headers": headers,
        "next": record.next, "reason": record.reason, "resume_at": time(record.resume_at),
    })
}

/// A dead letter, without its bytes.
pub fn letter(letter: &Letter) -> Value {
    json!({
        "handle": letter.instance, "lane": letter.lane, "tenant": letter.tenant, "id": letter.id,
        "endpoint": letter.endpoint, "reason": letter.reason, "detail": letter.detail,
        "published_at": time(letter.published_at), "died_at": time(Some(letter.died_at)),
        "attempts": letter.attempts, "generation": letter.generation, "copies": letter.copies, "raw": letter.raw,
        "body_bytes": letter.body_bytes,
    })
}

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
