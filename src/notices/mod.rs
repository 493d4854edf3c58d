//! Tells people of incidents: one worker of all looks, writes down what it will say, says it, and writes down who heard.

mod text;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;
use tokio_util::sync::CancellationToken;
use url::Url;
use uuid::Uuid;

use crate::clock::{self, SharedClock, Timestamp};
use crate::dispatch::Post;
use crate::dispatch::signature::Signer;
use crate::job::EndpointName;
use crate::job::outcome::{Answer, Outcome};
use crate::observe::Look;
use crate::policy::headers;
use crate::policy::health::{Incident, Kind};
use crate::policy::notices::{Entry, Heard, Notice, Notices, Sink};
use crate::store::{Store, StoreError, StoreResult};
use crate::telemetry::{Notified, Telemetry};

/// Time between two looks. With what a look asks, that is less than one query a second.
pub const EVERY: Duration = Duration::from_secs(30);
/// Whoever looks does so alone for this long: longer than a look and all that may be sent in one round.
pub const LOOKER_FOR: Duration = Duration::from_secs(90);
/// Most time for one notice.
pub const SEND_MAX: Duration = Duration::from_secs(5);
/// Most time for a look. One that takes longer is an incident of the store.
const LOOK_MAX: Duration = Duration::from_secs(20);
/// Most characters of what a sink answered that are logged.
const ANSWER_CHARS_MAX: usize = 200;

/// How a sink wants to be told.
#[derive(Debug)]
pub enum Form {
    /// JSON, signed where there is a secret.
    Webhook(Option<Signer>),
    /// A text for Slack, and whatever takes the same.
    Slack,
}

/// Whom to tell, and how. The address is the dispatcher's.
#[derive(Debug)]
pub struct Receiver {
    /// Its name, and that of its target.
    pub name: EndpointName,
    /// What it wants to hear.
    pub sink: Sink,
    /// How.
    pub form: Form,
}

/// What telling takes.
pub struct Parts {
    /// Who looks.
    pub eyes: Arc<dyn Look>,
    /// Where it is kept what was told.
    pub store: Arc<dyn Store>,
    /// Reaches the sinks, each by its name.
    pub dispatch: Arc<dyn Post>,
    /// The sinks.
    pub receivers: Vec<Receiver>,
    /// Where people find the dashboard.
    pub public_url: Option<Url>,
    /// Takes secrets out of a sentence: it may quote an API's answer.
    pub mask: fn(&str) -> String,
    /// What is told of the telling.
    pub telemetry: Telemetry,
    /// Time.
    pub clock: SharedClock,
}

impl fmt::Debug for Parts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Parts").field("receivers", &self.receivers).finish_non_exhaustive()
    }
}

/// Looks and tells until `stop`; does nothing while another worker does.
pub async fn run(parts: Parts, stop: CancellationToken) {
    let mut teller = Teller::new(parts);
    loop {
        let round = async {
            teller.round().await;
            clock::sleep(&*teller.parts.clock, EVERY).await;
        };
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            () = round => {}
        }
    }
}

/// What was read or written last.
#[derive(Debug)]
struct Kept {
    version: i64,
    state: Notices,
    /// Something of it was told that the store does not know of.
    unsaved: bool,
}

/// One who tells, if it is his turn.
#[derive(Debug)]
pub struct Teller {
    parts: Parts,
    sinks: Vec<Sink>,
    me: Uuid,
    /// While this worker is the one that looks: it goes on from memory when the store is away, which is worth telling.
    kept: Option<Kept>,
    /// What was told from memory, and is to be handed to whoever looks now, so that its end is told too.
    orphans: Vec<Entry>,
    /// The state in the store can be read by this version.
    is_known: bool,
}

impl Teller {
    /// Somebody new, whose turn it may be.
    pub fn new(parts: Parts) -> Self {
        let sinks: Vec<Sink> = parts.receivers.iter().map(|receiver| receiver.sink.clone()).collect();
        for sink in &sinks {
            parts.telemetry.notified(&sink.name, Notified::Sent, 0);
        }
        Self { parts, sinks, me: Uuid::new_v4(), kept: None, orphans: Vec::new(), is_known: true }
    }

    /// Looks once and tells what there is to tell, unless another one does. [`run`] does this each [`EVERY`].
    pub async fn round(&mut self) {
        let now = self.parts.clock.now();
        match self.take_turn(now).await {
            Ok(true) => {}
            Ok(false) => return,
            Err(error) if self.kept.is_some() => {
                tracing::warn!(%error, "what was told of incidents cannot be written down: going on from memory");
            }
            Err(error) => {
                tracing::debug!(%error, "not known whether somebody tells of incidents");
                return;
            }
        }
        let incidents = self.look().await;
        let now = self.parts.clock.now();
        let Some(kept) = &mut self.kept else { return };
        let left_out = kept.state.see(&incidents, &self.sinks, now);
        if left_out > 0 {
            tracing::warn!(left_out, "more incidents than are told of at a time: the worst are");
        }
        for sink in kept.state.give_up(&self.sinks, now) {
            tracing::error!(sink, "a notice of an incident could not be delivered for a day and is given up");
            self.parts.telemetry.notified(&sink, Notified::GivenUp, 1);
        }
        let due = kept.state.due(&self.sinks, now);
        // before anything is sent: whoever goes on after this process has to know what may have been heard
        match self.write(now).await {
            Ok(true) => {}
            // another worker was quicker, and tells
            Ok(false) => return,
            Err(error) => tracing::warn!(%error, "telling of incidents though it cannot be written down"),
        }
        if due.is_empty() {
            return;
        }
        self.tell(due).await;
        match self.write(self.parts.clock.now()).await {
            Ok(true) => {}
            Ok(false) => {
                tracing::warn!("somebody else has told of incidents meanwhile; a sink may hear something twice");
            }
            Err(error) => tracing::warn!(%error, "not written down who heard of incidents; a sink may hear it twice"),
        }
    }

    /// Reads what is known, and whether it is this worker's turn.
    async fn take_turn(&mut self, now: Timestamp) -> StoreResult<bool> {
        let row = self.parts.store.notices().await?;
        let (version, text) = row.map_or((0, String::new()), |row| (row.version, row.state));
        if self.kept.as_ref().is_some_and(|kept| kept.version == version) {
            return Ok(true); // what is kept may be newer than what could be written
        }
        let state = if version == 0 { Ok(Notices::default()) } else { serde_json::from_str(&text) };
        let state: Notices = match state {
            Ok(state) => state,
            Err(error) => {
                if std::mem::replace(&mut self.is_known, false) {
                    tracing::error!(%error, "a newer version of lanes tells of incidents: this one leaves it to it");
                }
                self.give_up_turn();
                return Ok(false);
            }
        };
        self.is_known = true;
        self.give_up_turn();
        let (mut state, orphans) = (state, std::mem::take(&mut self.orphans));
        let unsaved = !orphans.is_empty();
        let is_new = |entry: &&Entry| !state.entries.iter().any(|known| known.id == entry.id);
        let new: Vec<Entry> = orphans.iter().filter(is_new).cloned().collect();
        state.entries.extend(new);
        if state.may_look(self.me, now) {
            self.kept = Some(Kept { version, state, unsaved });
            return Ok(true);
        }
        if unsaved {
            self.orphans = orphans;
            if self.parts.store.put_notices(version, &written(&state)?, now).await? {
                self.orphans.clear();
            }
        }
        Ok(false)
    }

    /// Goes on from memory no longer; what only this memory knows of is kept to be handed over.
    fn give_up_turn(&mut self) {
        let Some(kept) = self.kept.take().filter(|kept| kept.unsaved) else { return };
        let away = |kind| matches!(kind, Kind::StoreUnreachable | Kind::BrokerUnreachable);
        self.orphans.extend(kept.state.entries.into_iter().filter(|entry| entry.opened && away(entry.about.kind)));
    }

    /// What is wrong now. No look in time is the store's fault: it bounds each of its answers.
    async fn look(&self) -> Vec<Incident> {
        match clock::within(LOOK_MAX, self.parts.eyes.look()).await {
            Ok(picture) => picture.incidents,
            Err(late) => {
                let why = format!("store and broker did not answer within {:?}", late.0);
                vec![Incident::unreachable_store(&why)]
            }
        }
    }

    /// Writes down what is known, and that this worker goes on looking; false = another one does.
    async fn write(&mut self, now: Timestamp) -> StoreResult<bool> {
        let Some(kept) = &mut self.kept else { return Ok(false) };
        kept.state.looker = Some((self.me, now.plus(LOOKER_FOR)));
        let text = written(&kept.state)?;
        let answer = self.parts.store.put_notices(kept.version, &text, now).await;
        match answer {
            Ok(true) => (kept.version, kept.unsaved) = (kept.version + 1, false),
            Ok(false) => self.give_up_turn(),
            Err(_) => kept.unsaved = true,
        }
        answer
    }

    /// Sends: to all sinks at the same time, to each of them one after the other, until it fails.
    async fn tell(&mut self, due: Vec<Notice>) {
        let mine = |receiver: &&Receiver| due.iter().any(|notice| notice.sink == receiver.sink.name);
        let sends = self.parts.receivers.iter().filter(mine).map(|receiver| {
            let own: Vec<&Notice> = due.iter().filter(|notice| notice.sink == receiver.sink.name).collect();
            self.tell_one(receiver, own)
        });
        let heard: Vec<_> = join_all(sends).await.into_iter().flatten().collect();
        let now = self.parts.clock.now();
        let Some(kept) = &mut self.kept else { return };
        for (notice, heard) in heard {
            kept.state.heard(notice, heard, now);
        }
    }

    async fn tell_one<'a>(&self, receiver: &Receiver, notices: Vec<&'a Notice>) -> Vec<(&'a Notice, Heard)> {
        let mut heard = Vec::with_capacity(notices.len());
        for notice in notices {
            let outcome = self.send(receiver, notice).await;
            let took = taken(&outcome);
            let sink = &receiver.sink.name;
            heard.push((notice, took.unwrap_or(Heard::Yes)));
            let (kind, status) = (notice.about.kind.as_str(), notice.status.as_str());
            if took.is_some() {
                let why = why(&outcome);
                self.parts.telemetry.notified(sink, Notified::Failed, 1);
                tracing::warn!(sink, kind, status, why, "a sink did not take a notice; it is tried again");
                break;
            }
            self.parts.telemetry.notified(sink, Notified::Sent, 1);
            tracing::info!(sink, kind, status, incident = %notice.incident, "told of an incident");
        }
        heard
    }

    async fn send(&self, receiver: &Receiver, notice: &Notice) -> Outcome {
        let now = self.parts.clock.now();
        let mut notice = notice.clone();
        notice.about.message = (self.parts.mask)(&notice.about.message);
        let document = match receiver.form {
            Form::Webhook(_) => text::webhook(&notice, self.parts.public_url.as_ref(), now),
            Form::Slack => text::slack(&notice, self.parts.public_url.as_ref()),
        };
        let body = Bytes::from(document.to_string());
        let headers = match &receiver.form {
            Form::Webhook(Some(signer)) => signer.headers(&format!("msg_{}", notice.id.simple()), now, &body),
            _ => Vec::new(),
        };
        self.parts.dispatch.post(&receiver.name, headers, body).await
    }
}

/// The state as the store keeps it.
fn written(state: &Notices) -> StoreResult<String> {
    serde_json::to_string(state)
        .map_err(|error| StoreError::Rejected { address: "notices".to_owned(), why: error.to_string() })
}

/// `None` = it was taken.
fn taken(outcome: &Outcome) -> Option<Heard> {
    let Answer::Http(http) = &outcome.answer else { return Some(Heard::No { retry_after: None }) };
    if (200..300).contains(&http.status) {
        return None;
    }
    Some(Heard::No { retry_after: headers::retry_after(http, outcome.ended_at) })
}

/// Why it was not taken; never the address, which may be a secret.
fn why(outcome: &Outcome) -> String {
    let text = match &outcome.answer {
        Answer::Http(http) => format!("status {}: {}", http.status, String::from_utf8_lossy(&http.body)),
        Answer::NotSent(why) | Answer::NoAnswer(why) | Answer::Impossible(why) => why.clone(),
        Answer::Handler(answer) => format!("{answer:?}"),
    };
    text.chars().filter(|c| !c.is_control()).take(ANSWER_CHARS_MAX).collect()
}
