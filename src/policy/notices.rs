//! What people are told of incidents, to whom and when: once when one lasts, again while it goes on, once when it is over.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::health::{Incident, Kind, Severity};
use crate::clock::Timestamp;

/// An incident that is over before that is told to nobody: what flaps must not wake anybody.
pub const OPEN_HOLD: Duration = Duration::from_secs(30);
/// One that was gone for less is not over.
pub const CLOSE_HOLD: Duration = Duration::from_mins(1);
/// Most incidents that are known at a time; the worst are known first.
pub const INCIDENTS_MAX: usize = 200;
/// Most notices for one sink in one round.
pub const ROUND_MAX: usize = 10;
/// What a sink could not be told in this time it is not told any more.
pub const GIVE_UP_AFTER: Duration = Duration::from_hours(24);
/// A sink that fails is left alone for so long, and for twice as long after each further failure,
const RETRY_FIRST: Duration = Duration::from_secs(30);
/// at most for so long,
const RETRY_MAX: Duration = Duration::from_mins(15);
/// unless it asks for more, up to this.
const RETRY_AFTER_MAX: Duration = Duration::from_hours(1);
/// Namespace of the names of incidents and notices.
const NAMESPACE: Uuid = Uuid::from_u128(0x8c5b_2c2e_9f4e_4d0a_a1d7_6f3f_0b51_9c11);

/// Somebody who is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sink {
    /// The name, by which it is known from one start to the next.
    pub name: String,
    /// Only what is as bad as this, or worse.
    pub least: Severity,
    /// Only these kinds; empty = all.
    pub kinds: Vec<Kind>,
    /// Told again after so long while it goes on; `None` = once.
    pub repeat: Option<Duration>,
}

impl Sink {
    fn wants(&self, about: &About) -> bool {
        about.severity <= self.least && (self.kinds.is_empty() || self.kinds.contains(&about.kind))
    }
}

/// An incident as it is told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct About {
    /// Its kind.
    pub kind: Kind,
    /// How bad.
    pub severity: Severity,
    /// Its lane.
    pub lane: Option<String>,
    /// Its endpoint.
    pub endpoint: Option<String>,
    /// Its tenant.
    pub tenant: Option<String>,
    /// What is wrong, and why.
    pub message: String,
    /// The next step.
    pub step: String,
}

impl From<&Incident> for About {
    fn from(incident: &Incident) -> Self {
        let Incident { kind, severity, lane, endpoint, tenant, message, step, also: _ } = incident;
        Self {
            kind: *kind,
            severity: *severity,
            lane: lane.as_ref().map(ToString::to_string),
            endpoint: endpoint.as_ref().map(ToString::to_string),
            tenant: tenant.as_ref().map(ToString::to_string),
            message: message.clone(),
            step: step.to_string(),
        }
    }
}

impl About {
    /// Which of two are the same trouble: numbers, reasons and the tenant that has most of it may change.
    fn is_same(&self, other: &Self) -> bool {
        (self.kind, &self.lane, &self.endpoint) == (other.kind, &other.lane, &other.endpoint)
    }
}

/// What all workers know: kept in the store, written by whoever has read the version before.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Notices {
    /// Who looks and tells, until when.
    #[serde(default)]
    pub looker: Option<(Uuid, Timestamp)>,
    /// Incidents that go on, or whose end was not told to everybody.
    #[serde(default)]
    pub entries: Vec<Entry>,
    /// Sinks that fail, by name.
    #[serde(default)]
    pub failing: BTreeMap<String, Failing>,
}

/// One incident.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    /// Its name: the same in all that is told of it.
    pub id: Uuid,
    /// As it was seen last.
    pub about: About,
    /// Since when it was seen.
    pub since: Timestamp,
    /// It has lasted long enough to be told.
    pub opened: bool,
    /// Since when it is not seen any more.
    pub gone_at: Option<Timestamp>,
    /// It is over.
    pub closed: bool,
    /// What was told, by sink.
    pub told: BTreeMap<String, Told>,
}

/// What one sink was told of an incident.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Told {
    /// The worst that it was, when it was told; `None` = an attempt was made, and nobody knows what came of it.
    pub severity: Option<Severity>,
    /// When.
    pub at: Timestamp,
    /// Reminders.
    pub reminders: u32,
    /// It was told the end, or will not be.
    pub closed: bool,
}

/// A sink that fails.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failing {
    /// How often in a row.
    pub times: u32,
    /// When it is tried again.
    pub until: Timestamp,
}

/// What a notice says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// Something is wrong.
    Opened,
    /// It still is, or has become worse.
    Reminder,
    /// It is over.
    Closed,
}

impl Status {
    /// As a word.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Opened => "opened",
            Self::Reminder => "reminder",
            Self::Closed => "closed",
        }
    }
}

/// Something to tell one sink.
#[derive(Debug, Clone, PartialEq)]
pub struct Notice {
    /// Whom.
    pub sink: String,
    /// What.
    pub status: Status,
    /// Its own name: the same when it is sent again because nobody knows whether it arrived.
    pub id: Uuid,
    /// The incident's name.
    pub incident: Uuid,
    /// The incident.
    pub about: About,
    /// Since when.
    pub opened_at: Timestamp,
    /// When it ended.
    pub closed_at: Option<Timestamp>,
}

/// What came of a notice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Heard {
    /// The sink has taken it.
    Yes,
    /// It has not, or nobody knows; it may have asked for a pause.
    No {
        /// The least wait it asked for.
        retry_after: Option<Duration>,
    },
}

impl Notices {
    /// Whether `me` may look: it does so already, or nobody else does.
    pub fn may_look(&self, me: Uuid, now: Timestamp) -> bool {
        self.looker.is_none_or(|(who, until)| who == me || until <= now)
    }

    /// Takes in what is wrong now. Entries that are settled with every sink are forgotten; answers how many incidents
    /// were left out because too many are known.
    pub fn see(&mut self, incidents: &[Incident], sinks: &[Sink], now: Timestamp) -> usize {
        let mut seen: Vec<About> = Vec::new();
        for about in incidents.iter().map(About::from) {
            if !seen.iter().any(|known| known.is_same(&about)) {
                seen.push(about);
            }
        }
        for entry in self.entries.iter_mut().filter(|entry| !entry.closed) {
            if let Some(at) = seen.iter().position(|about| about.is_same(&entry.about)) {
                entry.about = seen.swap_remove(at);
                entry.gone_at = None;
                entry.opened |= now.since(entry.since) >= OPEN_HOLD;
            } else {
                let gone_at = *entry.gone_at.get_or_insert(now);
                // one that was never told is over at once
                entry.closed = !entry.opened || now.since(gone_at) >= CLOSE_HOLD;
            }
        }
        self.entries.retain(|entry| !entry.closed || (entry.opened && !entry.is_settled(sinks)));
        let room = INCIDENTS_MAX.saturating_sub(self.entries.len());
        let left_out = seen.len().saturating_sub(room);
        seen.sort_by_key(|about| about.severity);
        self.entries.extend(seen.into_iter().take(room).map(|about| Entry::new(about, now)));
        self.failing.retain(|name, _| sinks.iter().any(|sink| sink.name == *name));
        left_out
    }

    /// What is to be sent now, the worst first. What this answers is noted as tried: write it down before it is sent, so
    /// that whoever has to go on after this process knows of it.
    pub fn due(&mut self, sinks: &[Sink], now: Timestamp) -> Vec<Notice> {
        let mut due = Vec::new();
        for sink in sinks {
            if self.failing.get(&sink.name).is_some_and(|failing| failing.until > now) {
                continue;
            }
            let mut entries: Vec<&mut Entry> = self.entries.iter_mut().filter(|entry| entry.opened).collect();
            entries.sort_by_key(|entry| (entry.about.severity, entry.since));
            let notices = entries.into_iter().filter_map(|entry| entry.due(sink, now)).take(ROUND_MAX);
            due.extend(notices);
        }
        due
    }

    /// What nobody could be told in time is given up; answers the sinks' names, one for each notice.
    pub fn give_up(&mut self, sinks: &[Sink], now: Timestamp) -> Vec<String> {
        let mut given_up = Vec::new();
        for entry in self.entries.iter_mut().filter(|entry| entry.opened) {
            for sink in sinks {
                let Some(status) = entry.status_for(sink, now).filter(|_| entry.is_late(sink, now)) else { continue };
                let (id, severity) = (sink.name.clone(), entry.about.severity);
                entry.note(&id, status, severity, now);
                given_up.push(id);
            }
        }
        given_up
    }

    /// Notes what came of a notice.
    pub fn heard(&mut self, notice: &Notice, heard: Heard, now: Timestamp) {
        match heard {
            Heard::Yes => {
                self.failing.remove(&notice.sink);
                if let Some(entry) = self.entries.iter_mut().find(|entry| entry.id == notice.incident) {
                    entry.note(&notice.sink, notice.status, notice.about.severity, now);
                }
            }
            Heard::No { retry_after } => {
                let times = self.failing.get(&notice.sink).map_or(0, |failing| failing.times).saturating_add(1);
                let doubled = RETRY_FIRST.saturating_mul(1 << (times - 1).min(10)).min(RETRY_MAX);
                let wait = doubled.max(retry_after.unwrap_or_default().min(RETRY_AFTER_MAX));
                self.failing.insert(notice.sink.clone(), Failing { times, until: now.plus(wait) });
            }
        }
    }
}

impl Entry {
    fn new(about: About, now: Timestamp) -> Self {
        let text = format!("{}\0{:?}\0{:?}\0{}", about.kind.as_str(), about.lane, about.endpoint, now.as_micros());
        let id = Uuid::new_v5(&NAMESPACE, text.as_bytes());
        Self { id, about, since: now, opened: false, gone_at: None, closed: false, told: BTreeMap::new() }
    }

    /// What `sink` is still to be told.
    fn status_for(&self, sink: &Sink, now: Timestamp) -> Option<Status> {
        let told = self.told.get(&sink.name);
        if self.gone_at.is_some() && !self.closed {
            return None; // it may be over, or come again
        }
        match (told, self.closed) {
            // the end of something that it never heard of is no news
            (None, true) => None,
            (None, false) => sink.wants(&self.about).then_some(Status::Opened),
            (Some(told), true) => (!told.closed).then_some(Status::Closed),
            (Some(Told { severity: None, .. }), false) => Some(Status::Opened),
            (Some(Told { severity: Some(known), at, .. }), false) => {
                let again = sink.repeat.is_some_and(|repeat| now.since(*at) >= repeat);
                let worse = self.about.severity < *known;
                (again || worse).then_some(Status::Reminder)
            }
        }
    }

    fn due(&mut self, sink: &Sink, now: Timestamp) -> Option<Notice> {
        let status = self.status_for(sink, now)?;
        let new = Told { severity: None, at: now, reminders: 0, closed: false };
        let told = self.told.entry(sink.name.clone()).or_insert(new);
        let text = format!("{}\0{}\0{}", sink.name, status.as_str(), told.reminders);
        Some(Notice {
            sink: sink.name.clone(),
            status,
            id: Uuid::new_v5(&self.id, text.as_bytes()),
            incident: self.id,
            about: self.about.clone(),
            opened_at: self.since,
            closed_at: self.gone_at.filter(|_| self.closed),
        })
    }

    fn note(&mut self, sink: &str, status: Status, severity: Severity, now: Timestamp) {
        let new = Told { severity: None, at: now, reminders: 0, closed: false };
        let told = self.told.entry(sink.to_owned()).or_insert(new);
        told.at = now;
        told.severity = Some(told.severity.map_or(severity, |worst| worst.min(severity)));
        told.closed |= status == Status::Closed;
        told.reminders += u32::from(status == Status::Reminder);
    }

    /// Whether the sink was to be told so long ago that it is not news any more.
    fn is_late(&self, sink: &Sink, now: Timestamp) -> bool {
        let since = match (self.closed, self.gone_at, self.told.get(&sink.name)) {
            (true, Some(gone_at), _) => gone_at,
            (false, _, Some(told)) if told.severity.is_none() => told.at,
            _ => return false,
        };
        now.since(since) >= GIVE_UP_AFTER
    }

    /// Whether every sink that heard of it has heard of its end.
    fn is_settled(&self, sinks: &[Sink]) -> bool {
        sinks.iter().filter_map(|sink| self.told.get(&sink.name)).all(|told| told.closed)
    }
}

#[cfg(test)]
mod tests;
