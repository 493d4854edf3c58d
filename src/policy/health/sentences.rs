//! Incidents in words: what is wrong, why, and what to begin with.

use std::time::Duration;

use super::{
    Blocked, EndpointReading, Incident, Kind, LaneReading, REALTIME_WAIT_GOAL, STORE_FAILS_FOR, Severity, SilentWorker,
    Step, share,
};
use crate::clock::Timestamp;
use crate::job::control::Target;

/// A lane holds up another one from this share of an endpoint's calls on.
const HOLDS_FROM: f64 = 0.5;
/// What is advised to be held back is so for that time.
const PAUSE: Duration = Duration::from_mins(15);
/// A tenant that is advised to be slowed down makes that share of its calls, in percent, for that time.
const SLOW: (u32, Duration) = (50, Duration::from_hours(1));

fn incident(kind: Kind, severity: Severity, message: String, step: Step) -> Incident {
    Incident { kind, severity, lane: None, endpoint: None, tenant: None, message, step, also: Vec::new() }
}

pub(super) fn unreachable(kind: Kind, why: &str) -> Incident {
    incident(kind, Severity::Critical, why.to_owned(), Step::CheckConfig)
}

pub(super) fn store_errors(count: u64) -> Incident {
    let (count, within) = (number(count), time(STORE_FAILS_FOR));
    let message =
        format!("{count} operations of the store failed in the last {within}, and some before; calls slow down.");
    incident(Kind::StoreErrors, Severity::Critical, message, Step::Status)
}

pub(super) fn no_worker(lane: &LaneReading) -> Incident {
    let (name, work) = (&lane.name, jobs(lane.work));
    let advice = if lane.configured {
        format!("start one: lanes worker --lane {name}")
    } else {
        "the lane is not configured here".to_owned()
    };
    let message = format!("lane {name} has {work} and no live worker; {advice}");
    let step = Step::StartWorker(name.clone());
    Incident { lane: Some(name.clone()), ..incident(Kind::NoWorker, Severity::Critical, message, step) }
}

pub(super) fn realtime_waits(lane: &LaneReading, endpoints: &[EndpointReading], lanes: &[LaneReading]) -> Incident {
    let name = &lane.name;
    let wait = time(lane.wait_p95.unwrap_or_default());
    let mut message = format!("{name} waits {wait} (p95, goal {}).", time(REALTIME_WAIT_GOAL));
    let (mut step, mut also) = (Step::Jobs(name.clone()), Vec::new());
    let holds = |endpoint: &EndpointReading| {
        let (other, part) = endpoint.lanes.iter().find(|(other, _)| other != name)?;
        (*part >= HOLDS_FROM).then(|| (endpoint.name.clone(), other.clone(), *part))
    };
    if let Some((endpoint, other, part)) = endpoints.iter().find_map(holds) {
        let ready = lanes.iter().find(|lane| lane.name == other).map_or(0, |lane| lane.work);
        message =
            format!("{message} {other} makes {} of the calls of {endpoint} ({} wait).", percent(part), jobs(ready));
        also.push(Step::Limits(Some(endpoint), None));
        step = Step::Pause(Target::Lane(other), PAUSE);
    } else if let Some(why) = &lane.held_by {
        message = format!("{message} Its jobs wait because {why}.");
        step = Step::Limits(None, None);
    }
    Incident { lane: Some(name.clone()), also, ..incident(Kind::RealtimeWaits, Severity::Critical, message, step) }
}

pub(super) fn stuck(lane: &LaneReading) -> Incident {
    let name = &lane.name;
    let why = lane.held_by.as_deref().unwrap_or("its slots are full of calls that do not end");
    let message = format!("{name} has called nothing for 15 min ({} could run): {why}.", number(lane.ready));
    let step = Step::Jobs(name.clone());
    Incident { lane: Some(name.clone()), ..incident(Kind::LaneStuck, Severity::Warning, message, step) }
}

pub(super) fn worker_died(lane: &LaneReading) -> Incident {
    let (name, taken) = (&lane.name, jobs(lane.taken_over));
    let message = format!("{name}: a worker died with {taken} in its hands; others have taken over.");
    let step = Step::Jobs(name.clone());
    Incident { lane: Some(name.clone()), ..incident(Kind::WorkerDied, Severity::Warning, message, step) }
}

pub(super) fn backlog_ages(lane: &LaneReading, age: Duration) -> Incident {
    let name = &lane.name;
    let mut message = format!("{name}: its oldest job is {} old and gets older.", time(age));
    if let Some(why) = &lane.held_by {
        message = format!("{message} Most of them wait because {why}.");
    }
    let step = Step::Foresee;
    Incident { lane: Some(name.clone()), ..incident(Kind::BacklogAges, Severity::Warning, message, step) }
}

pub(super) fn paused_long(lane: &LaneReading, since: Duration) -> Incident {
    let name = &lane.name;
    let message = format!("{name} has been paused for {}: forgotten?", time(since));
    let step = Step::Resume(Target::Lane(name.clone()));
    Incident { lane: Some(name.clone()), ..incident(Kind::LanePausedLong, Severity::Info, message, step) }
}

pub(super) fn exhaustion(lane: &LaneReading, severity: Severity) -> Incident {
    let name = &lane.name;
    let of = format!("{} of {}", number(lane.exhausted), number(lane.ended));
    let part = percent(share(lane.exhausted, lane.ended));
    let mut message = format!("{name}: {part} of jobs ran out of retries in the last hour ({of}).");
    if let Some((endpoint, count)) = &lane.exhausted_most {
        message = format!("{message} Most of them at {endpoint} ({}).", number(*count));
    }
    let step = Step::Letters(name.clone());
    let endpoint = lane.exhausted_most.as_ref().map(|(endpoint, _)| endpoint.clone());
    let also = vec![Step::Pause(Target::Lane(name.clone()), PAUSE)];
    let incident = incident(Kind::Exhaustion, severity, message, step);
    Incident { lane: Some(name.clone()), endpoint, also, ..incident }
}

pub(super) fn dead_letters(lane: &LaneReading) -> Incident {
    let name = &lane.name;
    let message =
        format!("{name}: {} dead letters, +{} in the last hour.", number(lane.letters), number(lane.letters_new));
    let step = Step::Letters(name.clone());
    Incident { lane: Some(name.clone()), ..incident(Kind::DeadLetters, Severity::Warning, message, step) }
}

pub(super) fn duration_rising(lane: &LaneReading) -> Incident {
    let (name, now, before) = (&lane.name, lane.duration.mean, lane.duration_before.mean);
    let factor = now.as_secs_f64() / before.as_secs_f64().max(1e-6);
    let message =
        format!("{name} takes {factor:.1}x as long as three days ago (mean {} -> {}).", time(before), time(now));
    let step = Step::Foresee;
    Incident { lane: Some(name.clone()), ..incident(Kind::DurationRising, Severity::Info, message, step) }
}

pub(super) fn spike(endpoint: &EndpointReading, a_minute: f64) -> Incident {
    let name = &endpoint.name;
    let usual = if endpoint.limited_usual >= 0.1 {
        format!("{:.0}x its daily average", a_minute / endpoint.limited_usual)
    } else {
        "it had none for a day".to_owned()
    };
    let mut message = format!("{name}: {a_minute:.0} 429s/min, {usual}.");
    let tenant = endpoint.limited_most.as_ref().map(|(tenant, _)| tenant.clone());
    let mut also = Vec::new();
    if let Some((tenant, part)) = &endpoint.limited_most {
        message = format!("{message} {} from tenant {tenant}.", percent(*part));
        also.push(Step::Slow(name.clone(), tenant.clone(), SLOW.0, SLOW.1));
        also.push(Step::Pause(Target::TenantAt(name.clone(), tenant.clone()), PAUSE));
    }
    let step = Step::Limits(Some(name.clone()), tenant.clone());
    let endpoint = Some(name.clone());
    Incident { endpoint, tenant, also, ..incident(Kind::RateLimitSpike, Severity::Warning, message, step) }
}

pub(super) fn saturated(endpoint: &EndpointReading, part: f64) -> Incident {
    let name = &endpoint.name;
    let message =
        format!("{name}: {} of its calls get a 429, for 15 min: its pace is above what it allows.", percent(part));
    let step = Step::Limits(Some(name.clone()), None);
    Incident { endpoint: Some(name.clone()), ..incident(Kind::RateLimitSaturated, Severity::Warning, message, step) }
}

pub(super) fn circuit_open(endpoint: &EndpointReading, blocked: &Blocked, now: Timestamp) -> Incident {
    let (name, since) = (&endpoint.name, time(now.since(blocked.since)));
    let step = Step::Limits(Some(name.clone()), blocked.tenant.clone());
    let whose = match &blocked.tenant {
        Some(tenant) => format!("tenant {tenant} at {name}"),
        None => name.to_string(),
    };
    let why = if blocked.why.is_empty() { String::new() } else { format!(": {}", blocked.why) };
    let message = format!("{whose} has not been called freely for {since}{why}. Its jobs wait and lose no attempt.");
    let (endpoint, tenant) = (Some(name.clone()), blocked.tenant.clone());
    Incident { endpoint, tenant, ..incident(Kind::CircuitOpen, Severity::Warning, message, step) }
}

pub(super) fn backoff_rising(endpoint: &EndpointReading) -> Incident {
    let (name, now, before) = (&endpoint.name, time(endpoint.backoff.mean), time(endpoint.backoff_before.mean));
    let (late, when) =
        (percent(endpoint.late), if endpoint.is_same_hour { "yesterday at this hour" } else { "the day before" });
    let message =
        format!("Average backoff at {name} is {now}, {before} {when}. {late} of retries are attempt 4 or later.");
    let step = Step::Limits(Some(name.clone()), None);
    Incident { endpoint: Some(name.clone()), ..incident(Kind::BackoffRising, Severity::Warning, message, step) }
}

pub(super) fn silent(worker: &SilentWorker, now: Timestamp) -> Incident {
    let (name, silence) = (&worker.name, time(now.since(worker.heard_at)));
    let message = if worker.over_at > now {
        format!("worker {name} is silent for {silence}; its jobs return at {}.", worker.over_at)
    } else {
        format!("worker {name} is silent for {silence}; its jobs return as soon as another worker looks.")
    };
    incident(Kind::WorkerSilent, Severity::Warning, message, Step::Status)
}

fn jobs(count: u64) -> String {
    if count == 1 { "1 job".to_owned() } else { format!("{} jobs", number(count)) }
}

/// A number with its thousands told apart.
fn number(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A share in percent: with a decimal where it is small.
fn percent(part: f64) -> String {
    let percent = part * 100.0;
    if percent < 10.0 { format!("{percent:.1} %") } else { format!("{percent:.0} %") }
}

/// A time as people say it.
fn time(duration: Duration) -> String {
    let seconds = duration.as_secs_f64();
    match seconds {
        s if s < 1.0 => format!("{:.0} ms", s * 1e3),
        s if s < 10.0 => format!("{s:.1} s"),
        s if s < 120.0 => format!("{s:.0} s"),
        s if s < 7_200.0 => format!("{:.0} min", s / 60.0),
        s => format!("{:.0} h", s / 3_600.0),
    }
}
