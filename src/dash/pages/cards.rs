//! The five cards of the overview: what customers feel comes first, each beside what is usual or allowed.

use maud::{Markup, html};

use super::charts::{Unit, number, spark};
use super::parts::took;
use crate::job::LaneName;
use crate::job::history::Measure;
use crate::observe::words::{count, duration};
use crate::observe::{Lane, Picture};
use crate::policy::health::{EXHAUSTED_MAX, Kind, REALTIME_WAIT_GOAL, is_realtime, share};

/// From so many times the usual on it is said.
const UNUSUAL: f64 = 1.5;
/// Fewer 429s a minute than this, on average, are none.
const RARE: f64 = 0.05;
/// Minutes of one point where single minutes say little.
const FIVE: u16 = 5;

/// A card; the kind of incident that makes it red.
struct Card {
    name: String,
    value: String,
    note: String,
    drawing: Markup,
    incident: Kind,
}

/// The cards.
pub(super) fn show(picture: &Picture) -> Markup {
    let cards = [waits(picture), limited(picture), exhausted(picture), letters(picture), oldest(picture)];
    html! {
        ul.cards { @for card in cards.into_iter().map(|card| if picture.store.is_ok() { card } else { unknown(card) }) { (one(&card, picture)) } }
    }
}

fn one(card: &Card, picture: &Picture) -> Markup {
    let bad = picture.incidents.iter().any(|incident| incident.kind == card.incident);
    html! {
        li class={ "card" @if bad { " bad" } } {
            p.name { (card.name) }
            p.value { (card.value) }
            p.note { @if bad { span.mark aria-hidden="true" { "! " } } (card.note) }
            (card.drawing)
        }
    }
}

/// Nothing is known while the store does not answer.
fn unknown(card: Card) -> Card {
    Card { value: "?".to_owned(), note: "the store does not answer".to_owned(), drawing: html! {}, ..card }
}

/// The lane whose jobs somebody waits for, or the first one.
fn watched(picture: &Picture) -> Option<&LaneName> {
    let lanes = || picture.lanes.iter().map(|(name, _)| name);
    lanes().find(|name| is_realtime(name)).or_else(|| lanes().next())
}

fn waits(picture: &Picture) -> Card {
    let incident = Kind::RealtimeWaits;
    let Some(lane) = watched(picture) else {
        let (name, value) = ("Wait p95".to_owned(), "–".to_owned());
        return Card { name, value, note: "no lane is configured".to_owned(), drawing: html! {}, incident };
    };
    let goal = is_realtime(lane).then_some(REALTIME_WAIT_GOAL);
    let wait = picture.past.wait(lane, 0.95);
    let note = match (wait, goal) {
        (None, _) => "no call in 5 min".to_owned(),
        (Some(_), Some(goal)) => format!("goal {}", took(goal)),
        (Some(_), None) => "in the last 5 min".to_owned(),
    };
    let name = format!("{lane} wait p95");
    let waits = picture.trails.hour.waits(1, lane.as_str(), 0.95);
    let drawing = spark(&name, &waits, Unit::Seconds, goal.map(|goal| goal.as_secs_f64()));
    Card { name, value: wait.map_or("–".to_owned(), took), note, drawing, incident }
}

fn limited(picture: &Picture) -> Card {
    let (now, usual) = picture.past.limited();
    let note = match now / usual {
        _ if now < RARE && usual < RARE => "none, as usual".to_owned(),
        _ if usual < RARE => "usually none".to_owned(),
        times if times >= UNUSUAL => format!("{}x usual", number(if times < 10.0 { times } else { times.round() })),
        _ if now < RARE => format!("usually {}", number(usual)),
        _ => "as usual".to_owned(),
    };
    let line = picture.trails.hour.counts(1, &[Measure::RateLimited], None);
    let drawing = spark("429s a minute", &line, Unit::PerMinute, None);
    Card { name: "429s / min".to_owned(), value: number(now), note, drawing, incident: Kind::RateLimitSpike }
}

fn exhausted(picture: &Picture) -> Card {
    let (exhausted, ended) = picture.past.exhausted();
    let note =
        if ended == 0 { "no job ended".to_owned() } else { format!("{} of {} jobs", count(exhausted), count(ended)) };
    let line = picture.trails.hour.line(FIVE, |window| {
        let of = |measure| window.total(measure, None).count;
        let (part, rest) = (of(Measure::Exhausted), of(Measure::Succeeded) + of(Measure::Ended));
        (part + rest > 0).then(|| share(part, part + rest))
    });
    Card {
        name: "Exhausted, 1 h".to_owned(),
        value: if ended == 0 { "–".to_owned() } else { Unit::Share.shown(share(exhausted, ended)) },
        note,
        drawing: spark("Share of jobs that ran out of retries", &line, Unit::Share, Some(EXHAUSTED_MAX)),
        incident: Kind::Exhaustion,
    }
}

fn letters(picture: &Picture) -> Card {
    let dead: u64 = picture.lanes.iter().map(|(_, lane)| lane.dead).sum();
    let died = picture.past.died();
    let note =
        if died == 0 { "none in the last hour".to_owned() } else { format!("+{} in the last hour", count(died)) };
    let line = picture.trails.hour.counts(1, &[Measure::Died], None);
    let drawing = spark("New dead letters a minute", &line, Unit::PerMinute, None);
    Card { name: "Dead letters".to_owned(), value: count(dead), note, drawing, incident: Kind::DeadLetters }
}

fn oldest(picture: &Picture) -> Card {
    let oldest = picture.lanes.iter().filter_map(|(name, lane)| Some((lane.oldest()?, name))).min_by_key(|(at, _)| *at);
    let ready: u64 = picture.lanes.iter().map(|(_, lane)| lane.ready + lane.due).sum();
    let waiting: u64 = picture.lanes.iter().map(|(_, lane)| waiting(lane)).sum();
    let ready = if picture.broker.is_ok() { count(ready) } else { "?".to_owned() };
    Card {
        name: "Oldest waiting".to_owned(),
        value: oldest.map_or("–".to_owned(), |(at, _)| duration(picture.now.since(at))),
        note: oldest.map_or("nothing waits".to_owned(), |(_, name)| format!("in {name}")),
        drawing: html! { p.note.last { (ready) " ready, " (count(waiting)) " waiting" } },
        incident: Kind::LaneStuck,
    }
}

/// Rows that wait for anything.
fn waiting(lane: &Lane) -> u64 {
    lane.jobs(crate::store::State::Waiting)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Timestamp;

    #[test]
    fn nothing_seen_and_no_store_are_told_apart() {
        let mut picture = Picture::unseen(Timestamp::from_secs(1_000));
        let lane = LaneName::new("realtime").expect("a name");
        picture.lanes.push((lane, Lane::default()));
        let shown = show(&picture).into_string();
        assert_eq!(shown.matches("class=\"value\"").count(), 5, "{shown}");
        for part in ["realtime wait p95", "no call in 5 min", "none, as usual", "no job ended", "nothing waits"] {
            assert!(shown.contains(part), "{part}: {shown}");
        }
        picture.store = Err("gone".to_owned());
        let shown = show(&picture).into_string();
        assert_eq!(shown.matches("the store does not answer").count(), 5, "{shown}");
        assert!(!shown.contains("as usual"), "{shown}");
    }
}
