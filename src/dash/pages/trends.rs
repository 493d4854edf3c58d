//! What the history shows: retries beside yesterday, how long jobs take over a week, a lane by the minute, an endpoint over a day.

use maud::{Markup, html};

use super::charts::{Chart, Curve, Form, Unit, number, spark, tiny_bars};
use super::limits;
use super::parts::{empty, endpoint, lane, table, took};
use crate::dash::live::Snapshot;
use crate::job::LaneName;
use crate::job::history::{ATTEMPT_BUCKET_MAX, Measure};
use crate::observe::Picture;
use crate::observe::trail::Line;
use crate::observe::words::{count, counted};
use crate::policy::health::{REALTIME_WAIT_GOAL, is_realtime, share};

/// Most endpoints of the list.
const ENDPOINTS_MAX: usize = 50;
/// Pieces of a quarter of an hour in a day.
const DAY: u16 = 96;
/// The outcomes of jobs, in the order in which they are stacked.
const OUTCOMES: [(&str, &str, Measure); 3] = [
    ("succeeded", "c1", Measure::Succeeded),
    ("out of retries", "c2", Measure::Exhausted),
    ("ended otherwise", "c3", Measure::Ended),
];

/// Bars of the last five minutes of a lane, and how many jobs ended.
pub(super) fn five_minutes(picture: &Picture, name: &LaneName) -> Markup {
    let curves =
        OUTCOMES.map(|(_, class, measure)| (class, picture.trails.lately.counts(1, &[measure], Some(name.as_str()))));
    let ended: f64 = curves.iter().flat_map(|(_, line)| line.values.iter().flatten()).sum();
    html! {
        span.bar-cell {
            (tiny_bars(&format!("Jobs of {name} that ended, by ten seconds"), &curves, Unit::Count))
            span.number { (number(ended)) }
        }
    }
}

/// Two days as today and yesterday, the same stretches above each other.
fn days(line: Line) -> [(&'static str, &'static str, Line); 2] {
    let half = line.values.len() / 2;
    let today = line.clone().last(half);
    let yesterday = Line { start: today.start, ..line.first(half) };
    [("yesterday", "before", yesterday), ("today", "c1", today)]
}

fn curves(lines: impl IntoIterator<Item = (&'static str, &'static str, Line)>) -> Vec<Curve<'static>> {
    lines.into_iter().map(|(name, class, line)| Curve { name, class, line }).collect()
}

/// The charts of the overview.
pub(in crate::dash) fn overview(seen: &Snapshot) -> Markup {
    let picture = &seen.picture;
    html! {
        div.columns.even {
            section aria-labelledby="retries" { h2 #retries { "Retries" } (retries(picture)) }
            section aria-labelledby="trends" { h2 #trends { "How long jobs take, over 7 days" } (trends(picture)) }
        }
    }
}

fn retries(picture: &Picture) -> Markup {
    let day = &picture.trails.day;
    let (now, before) = picture.past.backoff();
    let (exhausted, ended) = picture.past.exhausted();
    html! {
        p.lead {
            @if now.count == 0 { "No retry in the last half hour." }
            @else { "Average backoff " b { (took(now.mean)) } }
            @if before.count > 0 { span.quiet { ", yesterday at this hour " (took(before.mean)) } }
            @if ended > 0 { span.quiet { " · " (Unit::Share.shown(1.0 - share(exhausted, ended))) " of the jobs that ended in the last hour did not run out of retries" } }
        }
        (Chart {
            title: "Average backoff of retries, 24 hours",
            unit: Unit::Seconds,
            form: Form::Lines,
            curves: curves(days(day.mean(2, Measure::Retries, None))),
            goal: None,
        }.show())
        (attempts(picture))
    }
}

/// Retries of a day by the attempt that failed.
fn attempts(picture: &Picture) -> Markup {
    let found = picture.trails.day.buckets(Measure::Retries, DAY);
    let found: Vec<(u8, u64)> = found.into_iter().filter(|(attempt, _)| *attempt > 0).collect();
    let all: u64 = found.iter().map(|(_, retries)| retries).sum();
    let row = |(attempt, retries): &(u8, u64)| {
        let part = share(*retries, all);
        let later = if *attempt == ATTEMPT_BUCKET_MAX { " or later" } else { "" };
        html! {
            td { (attempt) (later) }
            td.number { (count(*retries)) }
            td { meter aria-label={ "Share of retries after attempt " (attempt) } min="0" max="1" value=(format!("{part:.3}")) { } " " (Unit::Share.shown(part)) }
        }
    };
    let rows: Vec<Markup> = found.iter().map(row).collect();
    if rows.is_empty() {
        return html! {};
    }
    table("Retries of 24 hours by the attempt that failed", &["After attempt", ">Retries", "Share"], &rows)
}

fn trends(picture: &Picture) -> Markup {
    let row = |name: &LaneName| {
        let line = picture.trails.week.mean(1, Measure::Duration, Some(name.as_str()));
        let (now, before) = picture.past.durations(name);
        let factor = now.mean.as_secs_f64() / before.mean.as_secs_f64().max(1e-6);
        html! {
            td { (lane(name)) }
            td { (tiny_bars(&format!("Mean time of jobs of {name}, by six hours"), &[("c1", line)], Unit::Seconds)) }
            td.number { @if now.count > 0 { (took(now.mean)) } @else { span.quiet { "–" } } }
            td.number { @if before.count > 0 { (took(before.mean)) } @else { span.quiet { "–" } } }
            td.number { @if now.count > 0 && before.count > 0 { (number(factor)) "x" } @else { span.quiet { "–" } } }
        }
    };
    let rows: Vec<Markup> = picture.lanes.iter().map(|(name, _)| row(name)).collect();
    if rows.is_empty() {
        return empty("No lane is configured.");
    }
    html! {
        (table("Mean time from publish to end", &["Lane", "7 days", ">Last 24 h", ">3 days ago", ">Change"], &rows))
        p.quiet { "From publish to the end of the job, its waits and retries included." }
    }
}

/// The charts of one lane.
pub(in crate::dash) fn of_lane(seen: &Snapshot, name: &LaneName) -> Markup {
    let (hour, subject) = (&seen.picture.trails.hour, name.as_str());
    let ends = OUTCOMES.map(|(outcome, class, measure)| (outcome, class, hour.counts(1, &[measure], Some(subject))));
    let waits = [("p50", "c3", 0.5), ("p95", "c1", 0.95), ("p99", "c2", 0.99)];
    html! {
        div.columns.even {
            section aria-labelledby="throughput" {
                h2 #throughput { "Throughput" }
                (Chart { title: "Jobs that ended, by minute", unit: Unit::Count, form: Form::Bars, curves: curves(ends), goal: None }.show())
            }
            section aria-labelledby="waits" {
                h2 #waits { "Waits" }
                (Chart {
                    title: "How long jobs waited for their call, by minute",
                    unit: Unit::Seconds,
                    form: Form::Lines,
                    curves: curves(waits.map(|(share, class, part)| (share, class, hour.waits(1, subject, part)))),
                    goal: is_realtime(name).then(|| (REALTIME_WAIT_GOAL.as_secs_f64(), "goal for p95")),
                }.show())
            }
        }
    }
}

/// The charts of the limits page: of one endpoint, or all of them in a list.
pub(in crate::dash) fn of_limits(seen: &Snapshot, wish: &limits::Wish) -> Markup {
    match wish.endpoint() {
        Some(name) => of_endpoint(&seen.picture, name),
        None => endpoints(&seen.picture),
    }
}

fn of_endpoint(picture: &Picture, name: &str) -> Markup {
    let day = &picture.trails.day;
    let today = |line: Line| line.last(usize::from(DAY));
    let calls = today(day.line(1, |window| {
        let (all, limited) = (window.total(Measure::Calls, Some(name)), window.total(Measure::RateLimited, Some(name)));
        Some(as_f64(all.count.saturating_sub(limited.count)))
    }));
    let limited = today(day.counts(1, &[Measure::RateLimited], Some(name)));
    html! {
        div.columns.even {
            section aria-labelledby="calls" {
                h2 #calls { "Calls, 24 hours" }
                (Chart {
                    title: "Calls, by quarter of an hour",
                    unit: Unit::Count,
                    form: Form::Bars,
                    curves: curves([("not limited", "c1", calls), ("429", "c2", limited)]),
                    goal: None,
                }.show())
            }
            section aria-labelledby="took" {
                h2 #took { "How long calls took, 24 hours" }
                (Chart {
                    title: "Mean time of a call",
                    unit: Unit::Seconds,
                    form: Form::Lines,
                    curves: curves(days(day.mean(1, Measure::Took, Some(name)))),
                    goal: None,
                }.show())
            }
        }
    }
}

fn endpoints(picture: &Picture) -> Markup {
    let day = &picture.trails.day;
    let today = |line: Line| line.last(usize::from(DAY));
    let sum = |line: &Line| line.values.iter().flatten().sum::<f64>();
    let row = |name: &str| {
        let calls = today(day.counts(1, &[Measure::Calls], Some(name)));
        let limited = today(day.counts(1, &[Measure::RateLimited], Some(name)));
        let times = today(day.mean(1, Measure::Took, Some(name)));
        html! {
            td { @match crate::job::EndpointName::new(name) { Ok(name) => (endpoint(&name)), Err(_) => (name) } }
            td.number { (number(sum(&calls))) }
            td { (spark(&format!("Calls of {name}"), &calls, Unit::Count, None)) }
            td.number { (number(sum(&limited))) }
            td { (spark(&format!("429s of {name}"), &limited, Unit::Count, None)) }
            td.number { @match times.latest() { Some(time) => (Unit::Seconds.shown(time)), None => span.quiet { "–" } } }
            td { (spark(&format!("Mean time of a call of {name}"), &times, Unit::Seconds, None)) }
        }
    };
    let known = day.subjects(Measure::Calls);
    let rows: Vec<Markup> = known.iter().take(ENDPOINTS_MAX).map(|name| row(name)).collect();
    html! {
        section aria-labelledby="day" {
            h2 #day { "Endpoints, 24 hours" }
            @if rows.is_empty() { (empty("No call was counted in the last two days.")) }
            @else { (table("Endpoints, 24 hours", &["Endpoint", ">Calls", "Calls, 24 h", ">429s", "429s, 24 h", ">Took", "Took, 24 h"], &rows)) }
            @if known.len() > ENDPOINTS_MAX { p.quiet { (counted((known.len() - ENDPOINTS_MAX) as u64, "endpoint")) " more: filter by endpoint." } }
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "numbers for people")]
fn as_f64(number: u64) -> f64 {
    number as f64
}
