//! What pages and the API do for people: the verbs of the operator, on names that there are, bounded in time, with who asked.

use std::time::Duration;

use axum::http::StatusCode;
use bytes::Bytes;
use uuid::Uuid;

use super::access::User;
use super::edit::Editable;
use super::{Dash, Unreadable};
use crate::clock::{self, Timestamp};
use crate::governor::operator::{self, OperatorError, Wish, jobs};
use crate::governor::{hurry, lanes};
use crate::job::budget::Account;
use crate::job::control::{Source, Speaker, Target};
use crate::job::{EndpointName, JobId, LaneName};
use crate::store::{CancelAnswer, Hastened, State, Store};

/// Longest time of one act; a publish takes most of it.
const ACT_MAX: Duration = Duration::from_secs(15);
/// Who acts where nobody is asked who he is.
const ANYBODY: &str = "anybody";

/// What somebody asks for.
#[derive(Debug)]
pub(super) enum Act {
    /// Hold a target back, for a while or until it is resumed.
    Pause(Target, Option<Duration>),
    /// Let it go on.
    Resume(Target),
    /// Set limits, for a while or until they are reset.
    SetLimits(Account, Wish, Option<Duration>),
    /// So many percent of the limits of now, for a while or until they are reset.
    Slow(Account, u32, Option<Duration>),
    /// Take back what was set, and forget what was learnt.
    Reset(Account),
    /// Let a lane make so many calls at a time in each worker, for a while or until it is reset.
    SetConcurrency(LaneName, u32, Option<Duration>),
    /// As many as are configured again.
    ResetConcurrency(LaneName),
    /// Put a dead letter back to work, or make a job due at once that waits for a time of its own.
    Retry(Uuid),
    /// End a job.
    Cancel(Uuid),
    /// Delete a dead letter.
    Discard(Uuid),
    /// Publish a job anew, with this text for its body.
    Edit(Uuid, String),
}

/// What was done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Done {
    Paused,
    Resumed,
    LimitsSet,
    LimitsReset,
    NothingToReset,
    ConcurrencySet,
    ConcurrencyReset,
    Retried,
    /// It was to wait longer.
    Hurried,
    Cancelled,
    /// It is being called, and will not be called again.
    CancelAsked,
    Discarded,
    Edited(jobs::Edited),
}

impl Done {
    /// A word for urls and programs.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Paused => "paused",
            Self::Resumed => "resumed",
            Self::LimitsSet => "limits_set",
            Self::LimitsReset => "limits_reset",
            Self::NothingToReset => "nothing_to_reset",
            Self::ConcurrencySet => "concurrency_set",
            Self::ConcurrencyReset => "concurrency_reset",
            Self::Retried => "retried",
            Self::Hurried => "due_now",
            Self::Cancelled => "cancelled",
            Self::CancelAsked => "cancel_asked",
            Self::Discarded => "discarded",
            Self::Edited(edited) if edited.replaced => "edited",
            Self::Edited(_) => "edited_beside",
        }
    }

    /// What a page says after such a word; `None` for one that is not in the set.
    pub fn sentence(word: &str) -> Option<&'static str> {
        Some(match word {
            "paused" => "Paused. Workers follow within a second; calls in flight finish.",
            "resumed" => "Resumed. Workers follow within a second.",
            "limits_set" => "The limits are set. Workers follow within a second.",
            "limits_reset" => {
                "What was set is taken back, and what was learnt is forgotten. Workers follow within a second."
            }
            "nothing_to_reset" => "Nothing was set or learnt there.",
            "concurrency_set" => "Workers follow within a second; of fewer calls those in flight finish.",
            "concurrency_reset" => "As many calls at a time as are configured, within a second.",
            "due_now" => "It is due now: a worker takes it within a second, as soon as its budgets have room.",
            "retried" => "Put back to work: it is called as soon as its budgets have room.",
            "cancelled" => "Cancelled: it will not be called.",
            "cancel_asked" => "It is being called now, and will not be called again.",
            "discarded" => "Discarded: the letter is deleted.",
            "begun" => "Begun. Workers carry it out; this page shows how far it is.",
            "ended" => "Ended. What was done stays done.",
            "edited" => "Published anew with the new body; this one is gone. What was done below leads to the new one.",
            "edited_beside" => "Published anew with the new body. This one had gone on meanwhile: both may be called.",
            _ => return None,
        })
    }
}

/// Why it was not done: what is wrong, and what to do.
#[derive(Debug)]
pub(super) struct Refused {
    pub status: StatusCode,
    pub why: String,
    pub help: String,
}

impl Refused {
    pub fn new(status: StatusCode, why: impl Into<String>, help: impl Into<String>) -> Self {
        Self { status, why: why.into(), help: help.into() }
    }

    /// What was asked for makes no sense.
    pub fn wrong(why: impl Into<String>) -> Self {
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, why, "Nothing was changed: correct it and ask again.")
    }

    /// There is no such thing.
    pub fn unknown(why: impl Into<String>, help: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, why, help)
    }
}

impl From<OperatorError> for Refused {
    fn from(error: OperatorError) -> Self {
        match error {
            OperatorError::Wrong(why) => Self::wrong(why),
            OperatorError::NotFound(why) => {
                Self::unknown(why, "Look at the list again: somebody may have been quicker.")
            }
            OperatorError::Publish(why) => {
                let help = "The old job is untouched. Asking again is safe: it makes one new job.";
                Self::new(StatusCode::SERVICE_UNAVAILABLE, why, help)
            }
            OperatorError::Store(error) => Unreadable(error.to_string()).into(),
        }
    }
}

impl From<Unreadable> for Refused {
    fn from(Unreadable(why): Unreadable) -> Self {
        let help = "It may or may not be done: look before you ask again.";
        Self::new(StatusCode::SERVICE_UNAVAILABLE, why, help)
    }
}

/// Who asks, as the log names him.
pub(super) fn speaker(user: &User, source: Source, note: &str) -> Speaker {
    let name = if user.name.is_empty() { ANYBODY } else { &user.name };
    Speaker::new(name, source).because(note.trim())
}

impl Dash {
    /// Does it, and says what was done.
    pub async fn act(&self, act: Act, by: &Speaker) -> Result<Done, Refused> {
        self.check(&act)?;
        let late = |_| Unreadable(format!("store or broker did not answer within {ACT_MAX:?}"));
        let done = clock::within(ACT_MAX, self.carry_out(act, by)).await;
        self.live.change();
        let done = done.map_err(late)??;
        tracing::info!(actor = %by.author, source = by.source.as_str(), done = done.word(), "an operator acted");
        Ok(done)
    }

    /// Refuses names that there are not: a pause of a lane that is only misspelt would hold nothing.
    fn check(&self, act: &Act) -> Result<(), Refused> {
        match act {
            Act::Pause(Target::Lane(lane), _) | Act::SetConcurrency(lane, ..) => self.knows_lane(lane),
            Act::Pause(Target::Endpoint(endpoint) | Target::TenantAt(endpoint, _), _) => self.knows_endpoint(endpoint),
            Act::SetLimits(account, ..) | Act::Slow(account, ..) => {
                self.knows_endpoint(&account.endpoint)?;
                let owner = self.source.scope().budgets.owner(&account.endpoint);
                if *owner == account.endpoint {
                    return Ok(());
                }
                Err(Refused::wrong(format!("{} shares the budgets of {owner}: set its limits there", account.endpoint)))
            }
            Act::Reset(account) => self.knows_endpoint(&account.endpoint),
            // what is not configured any more may still be paused, and jobs are looked up
            _ => Ok(()),
        }
    }

    /// Whether a lane of that name is configured.
    pub fn knows_lane(&self, lane: &LaneName) -> Result<(), Refused> {
        let lanes = &self.source.scope().lanes;
        if lanes.contains(lane) {
            return Ok(());
        }
        let known: Vec<&str> = lanes.iter().map(LaneName::as_str).collect();
        Err(Refused::unknown(format!("no lane {lane} is configured"), format!("Configured are: {}.", known.join(", "))))
    }

    /// Whether an endpoint of that name is configured.
    pub fn knows_endpoint(&self, endpoint: &EndpointName) -> Result<(), Refused> {
        let endpoints = &self.source.scope().budgets.endpoints;
        if endpoints.contains_key(endpoint) {
            return Ok(());
        }
        let mut known: Vec<&str> = endpoints.keys().map(EndpointName::as_str).collect();
        known.sort_unstable();
        let help = format!("Configured are: {}.", known.join(", "));
        Err(Refused::unknown(format!("no endpoint {endpoint} is configured"), help))
    }

    async fn carry_out(&self, act: Act, by: &Speaker) -> Result<Done, Refused> {
        let (store, outlet) = (self.source.store().await.map_err(Unreadable)?, &*self.outlet);
        let store = &*store;
        let now = store.time().await.map_err(OperatorError::from)?;
        Ok(match act {
            Act::Pause(target, lasts) => {
                operator::pause(store, &target, operator::end_of(lasts, now)?, by, now).await?;
                Done::Paused
            }
            Act::Resume(target) => {
                let ended = operator::resume(store, &target, by, now).await.map_err(OperatorError::from)?;
                let gone = || Refused::unknown(format!("{target} is not paused"), "Nothing has to be done.");
                ended.map(|_| Done::Resumed).ok_or_else(gone)?
            }
            Act::SetLimits(account, wish, lasts) => {
                let ends = operator::end_of(lasts, now)?;
                operator::set_limits(store, &account, &wish, by, now, ends).await?;
                Done::LimitsSet
            }
            Act::Slow(account, percent, lasts) => {
                let (ends, budgets) = (operator::end_of(lasts, now)?, &self.source.scope().budgets);
                operator::slow(store, budgets, &account, percent, by, now, ends).await?;
                Done::LimitsSet
            }
            Act::Reset(account) => {
                let something = operator::reset(store, &account, by, now).await.map_err(OperatorError::from)?;
                if something { Done::LimitsReset } else { Done::NothingToReset }
            }
            Act::SetConcurrency(lane, calls, lasts) => {
                lanes::set_concurrency(store, &lane, calls, operator::end_of(lasts, now)?, by, now).await?;
                Done::ConcurrencySet
            }
            Act::ResetConcurrency(lane) => {
                let ended = lanes::reset_concurrency(store, &lane, by, now).await.map_err(OperatorError::from)?;
                let gone =
                    || Refused::unknown(format!("nothing else is set of lane {lane}"), "Nothing has to be done.");
                ended.map(|_| Done::ConcurrencyReset).ok_or_else(gone)?
            }
            Act::Retry(job) => {
                if let Some(hurried) = hurry(store, job, by, now).await? {
                    return Ok(hurried);
                }
                jobs::retry(store, outlet, job, by, now).await?;
                Done::Retried
            }
            Act::Cancel(job) => match jobs::cancel(store, job, by, now).await.map_err(OperatorError::from)? {
                CancelAnswer::Cancelled => Done::Cancelled,
                CancelAnswer::Running => Done::CancelAsked,
                CancelAnswer::Ended(state) => return Err(ended(state)),
                CancelAnswer::NotFound => {
                    let help =
                        "A job that no worker has taken yet is only in its lane's queue: cancel it once it is listed.";
                    return Err(Refused::unknown(format!("no job has the handle {job}"), help));
                }
            },
            Act::Discard(job) => {
                jobs::discard(store, job, by, now).await?;
                Done::Discarded
            }
            Act::Edit(job, text) => {
                let body = |body: &[u8]| -> Result<Bytes, String> { Editable::new(body)?.read(&text) };
                Done::Edited(jobs::edit(store, outlet, job, body, by, now).await?)
            }
        })
    }
}

/// Makes a job due at once that waits; `None` = it does not: what is retried is its letter.
async fn hurry(store: &dyn Store, job: Uuid, by: &Speaker, now: Timestamp) -> Result<Option<Done>, Refused> {
    let row = store.job(job).await.map_err(OperatorError::from)?.filter(|row| row.state == State::Waiting);
    let Some(row) = row else { return Ok(None) };
    let stays = |why: &str, help: &str| Err(Refused::new(StatusCode::CONFLICT, why, help));
    match hurry::one(store, &row, by, now).await.map_err(OperatorError::from)? {
        Hastened::Hurried | Hastened::Due => Ok(Some(Done::Hurried)),
        Hastened::InTurn => stays(
            "it waits for its turn, which no haste changes",
            "Its page says what it waits for: raise the limit, or resume what is paused.",
        ),
        Hastened::KeyBusy => stays("another job of its id has not ended yet", "It goes on by itself then."),
        Hastened::Running => stays("it is being called now", "Nothing has to be done."),
        Hastened::Ended(state) => Err(ended(state)),
        Hastened::NotFound => Ok(None),
    }
}

fn ended(state: State) -> Refused {
    let help = "Nothing was changed: what has ended is not called any more.";
    Refused::new(StatusCode::CONFLICT, format!("it had already ended: {}", state.as_str()), help)
}

/// The handle of a path.
pub(super) fn handle(text: &str) -> Result<Uuid, Refused> {
    let help = "Handles are UUIDs: publishing answers them, and lists show them.";
    Uuid::parse_str(text).map_err(|_| Refused::unknown("that is no handle", help))
}

/// The new job, where one was made.
pub(super) fn made(done: &Done) -> Option<(&Uuid, &JobId)> {
    match done {
        Done::Edited(edited) => Some((&edited.handle, &edited.id)),
        _ => None,
    }
}
