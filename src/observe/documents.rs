//! What is shown to programs, as JSON documents: times in RFC 3339, names that stay. The same for the command line and the API.

use serde_json::{Value, json};

use super::{Lane, Picture};
use crate::clock::Timestamp;
use crate::governor::view::{AccountState, Held, Hold, LimitState};
use crate::job::LaneName;
use crate::job::control::{Concurrency, Pause, Paused};
use crate::job::operation::Operation;
use crate::store::{AttemptRecord, AuditRow, IN_TURN, JobRow, Letter, LetterGroup, State, WorkerRow};

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

/// Letters that died of the same.
pub fn group(group: &LetterGroup) -> Value {
    json!({
        "endpoint": group.endpoint, "reason": group.reason, "tenant": group.tenant, "letters": group.letters,
        "first_at": time(Some(group.first_at)), "last_at": time(Some(group.last_at)),
    })
}

/// Why a job waits, or null.
pub fn hold(hold: Option<&Hold>) -> Value {
    hold.map_or(Value::Null, |hold| json!({ "reason": hold.reason, "until": time(hold.until), "why": hold.why }))
}

/// What may be called of an account, and what is known of it.
pub fn account(account: &AccountState) -> Value {
    let limit = |limit: &LimitState| {
        json!({
            "requests": limit.requests, "per_seconds": limit.per.as_secs_f64(), "scope": limit.scope,
            "headroom": limit.headroom, "burst": limit.burst,
        })
    };
    let set_by = account.set_by.as_ref().map(|(author, set_at, expires_at)| {
        json!({ "author": author, "set_at": time(Some(*set_at)), "expires_at": time(*expires_at) })
    });
    json!({
        "endpoint": account.endpoint, "tenant": account.tenant,
        "limits": account.limits.iter().map(limit).collect::<Vec<_>>(),
        "source": account.source, "set_by": set_by, "learnt": account.learnt,
        "pace_per_second": account.pace, "left": account.left.map(|(left, _)| left),
        "resets_at": time(account.left.and_then(|(_, reset_at)| reset_at)),
        "waiting": account.held, "state": account.state, "until": time(account.until), "detail": account.detail,
    })
}

/// A pause and what it is of.
pub fn paused(Paused { target, pause: of }: &Paused) -> Value {
    let (lane, endpoint, tenant) = target.parts();
    let mut document = pause(of);
    document["target"] = target.to_string().into();
    document["lane"] = json!(lane);
    document["endpoint"] = json!(endpoint);
    document["tenant"] = json!(tenant);
    document
}

/// A pause.
pub fn pause(pause: &Pause) -> Value {
    json!({
        "until": time(pause.until), "author": pause.author, "note": pause.note,
        "set_at": time(Some(pause.set_at)),
    })
}

/// A line of the audit log.
pub fn line(AuditRow { id, entry }: &AuditRow) -> Value {
    json!({
        "id": id, "at": time(Some(entry.at)), "actor": entry.actor, "source": entry.source.as_str(),
        "action": entry.action, "target": entry.target, "before": entry.before, "after": entry.after,
        "note": entry.note,
    })
}

/// Everything that one look shows.
pub fn status(picture: &Picture) -> Value {
    let reachable = |state: &Result<(), String>| json!({ "reachable": state.is_ok(), "error": state.as_ref().err() });
    let held = |held: &Held| {
        json!({
            "lane": held.of.lane, "endpoint": held.of.endpoint, "tenant": held.of.tenant, "jobs": held.of.jobs,
            "oldest_published_at": time(Some(held.of.oldest_published_at)),
            "reason": held.next.as_ref().map(|next| next.reason), "why": held.next.as_ref().map(|next| &next.why),
            "next_at": time(held.next.as_ref().and_then(|next| next.until)), "last_at": time(held.last_at),
        })
    };
    let lane = |(name, lane): &(LaneName, Lane)| {
        let waiting: Vec<Value> = lane
            .counts
            .iter()
            .filter(|count| count.state == State::Waiting)
            .map(|count| json!({ "reason": count.reason, "jobs": count.jobs, "next_resume_at": time(count.next_resume_at) }))
            .collect();
        json!({
            "name": name, "configured": lane.configured, "ready": lane.ready, "due_ready": lane.due,
            "unacked": lane.unacked, "running": lane.jobs(State::Run), "waiting": lane.jobs(State::Waiting),
            "waiting_by_reason": waiting, "queued": lane.jobs(State::Queued), "dead": lane.dead,
            "oldest_published_at": time(lane.oldest()), "workers": lane.workers,
            "pause": picture.pause_of(name).map(pause),
            "concurrency": concurrency(lane.concurrency, lane.said.as_ref()),
        })
    };
    let worker = |(worker, alive): &(WorkerRow, bool)| {
        json!({
            "id": worker.id, "name": worker.name, "lanes": worker.lanes.split(',').collect::<Vec<_>>(),
            "started_at": time(Some(worker.started_at)), "heartbeat_at": time(Some(worker.heartbeat_at)),
            "heartbeat_age_seconds": picture.now.since(worker.heartbeat_at).as_secs_f64(), "alive": alive,
        })
    };
    json!({
        "schema": 1, "healthy": picture.is_healthy(), "time": time(Some(picture.now)),
        "broker": reachable(&picture.broker), "store": reachable(&picture.store),
        "lanes": picture.lanes.iter().map(lane).collect::<Vec<_>>(),
        "held": picture.held.iter().map(held).collect::<Vec<_>>(),
        "paused": picture.paused.iter().map(paused).collect::<Vec<_>>(),
        "workers": picture.workers.iter().map(worker).collect::<Vec<_>>(),
        "problems": picture.incidents,
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

/// How many calls a lane makes at a time, as an operator has said.
pub fn said(said: &Concurrency) -> Value {
    json!({
        "calls": said.calls, "until": time(said.until), "author": said.author, "note": said.note,
        "set_at": time(Some(said.set_at)),
    })
}

/// Calls at a time in each worker, for programs: as configured, as they are now, and who has said so.
pub fn concurrency(configured: Option<u32>, said: Option<&Concurrency>) -> Value {
    json!({
        "configured": configured, "now": said.map(|said| said.calls).or(configured), "set": said.map(self::said),
    })
}
