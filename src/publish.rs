//! The write flow: a new job becomes a message, the broker confirms it, and only then it counts as published.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use uuid::Uuid;

use crate::broker::{Broker, Outgoing, PublishError};
use crate::clock::{self, SharedClock, Timestamp};
use crate::job::event::Event;
use crate::job::{Identity, Job, JobId, LaneName, wire};
use crate::message::Message;
use crate::telemetry::Telemetry;

pub use crate::job::NewJob;

/// How long a publish whose outcome is unknown is repeated with the same instance. Retention of ended rows counts on it
/// (`RETENTION_SLACK`): a copy that came later could meet a row that is already forgotten.
pub const PUBLISH_DEADLINE: Duration = Duration::from_mins(1);
/// First wait between two tries; doubles up to [`RETRY_WAIT_MAX`].
const RETRY_WAIT_MIN: Duration = Duration::from_millis(100);
/// Longest wait between two tries.
const RETRY_WAIT_MAX: Duration = Duration::from_secs(5);

/// A confirmed publish.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Published {
    /// The job's handle.
    pub instance: Uuid,
    /// Its deduplication id.
    pub id: JobId,
}

/// Publishes jobs. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Publisher {
    broker: Arc<dyn Broker>,
    telemetry: Telemetry,
    clock: SharedClock,
    source: &'static str,
    /// The last publish time that was given: each job has one of its own, so that jobs go in publish order.
    stamped: Arc<AtomicI64>,
}

impl Publisher {
    /// A publisher to `broker`; `source` is the label of its metric (a closed set: `cli`, `library`, `demo`, `dash`).
    pub fn new(broker: Arc<dyn Broker>, telemetry: Telemetry, clock: SharedClock, source: &'static str) -> Self {
        Self { broker, telemetry, clock, source, stamped: Arc::default() }
    }

    /// Publishes one job and waits for the confirm.
    ///
    /// # Errors
    /// As [`Self::publish`].
    pub async fn publish_one(&self, job: NewJob) -> Result<Published, PublishError> {
        let mut answers = self.publish(vec![job]).await;
        answers.pop().unwrap_or_else(|| Err(PublishError::Unconfirmed("the broker gave no answer".to_owned())))
    }

    /// Publishes jobs, many in flight; answers in order. A message that was refused or whose confirm is missing is sent
    /// again with the same instance for [`PUBLISH_DEADLINE`]; deduplication absorbs what was stored twice.
    ///
    /// # Errors
    /// Per job. After `Unconfirmed` it is not known whether the job is stored; publishing the same id again is safe.
    pub async fn publish(&self, jobs: Vec<NewJob>) -> Vec<Result<Published, PublishError>> {
        let started = self.clock.now();
        let jobs: Vec<Job> = jobs.into_iter().map(|job| stamp(job, self.next_time(started))).collect();
        let mut answers: Vec<Option<Result<(), PublishError>>> = vec![None; jobs.len()];
        let mut wait = RETRY_WAIT_MIN;
        loop {
            let open: Vec<usize> = (0..jobs.len()).filter(|&at| is_open(answers[at].as_ref())).collect();
            let outgoing = open.iter().map(|&at| outgoing(&jobs[at])).collect();
            for (at, answer) in open.into_iter().zip(self.broker.publish(outgoing).await) {
                answers[at] = Some(answer);
            }
            let late = self.clock.now().since(started) + wait > PUBLISH_DEADLINE;
            if late || answers.iter().all(|answer| !is_open(answer.as_ref())) {
                break;
            }
            clock::sleep(&*self.clock, wait).await;
            wait = (wait * 2).min(RETRY_WAIT_MAX);
        }
        jobs.into_iter().zip(answers).map(|(job, answer)| self.conclude(job, answer)).collect()
    }

    /// Publishes a message to `lane` again as it is: a dead letter that never was a job.
    ///
    /// # Errors
    /// As [`Self::publish`]; it is tried once.
    pub async fn republish(&self, lane: &LaneName, message: Message) -> Result<(), PublishError> {
        let mut answers = self.broker.publish(vec![Outgoing { route: wire::route(lane), message }]).await;
        answers.pop().unwrap_or_else(|| Err(PublishError::Unconfirmed("the broker gave no answer".to_owned())))?;
        self.telemetry.record(&Event::Published { lane: lane.clone(), source: self.source });
        Ok(())
    }

    /// `now`, or the first moment after the last one that was given.
    fn next_time(&self, now: Timestamp) -> Timestamp {
        let next = |last: i64| Some(now.as_micros().max(last.saturating_add(1)));
        let last = self.stamped.fetch_update(Ordering::Relaxed, Ordering::Relaxed, next);
        last.ok().and_then(next).map_or(now, Timestamp::from_micros)
    }

    fn conclude(&self, job: Job, answer: Option<Result<(), PublishError>>) -> Result<Published, PublishError> {
        answer.unwrap_or_else(|| Err(PublishError::Unconfirmed("never sent".to_owned())))?;
        self.telemetry.record(&Event::Published { lane: job.lane, source: self.source });
        Ok(Published { instance: job.instance, id: job.id })
    }
}

/// Not yet stored, and sending again may help. A broker that cannot be reached is the caller's to wait for.
fn is_open(answer: Option<&Result<(), PublishError>>) -> bool {
    matches!(answer, None | Some(Err(PublishError::Nacked(_) | PublishError::Unconfirmed(_))))
}

fn outgoing(job: &Job) -> Outgoing {
    Outgoing { route: wire::route(&job.lane), message: wire::encode(job) }
}

fn stamp(new: NewJob, now: Timestamp) -> Job {
    let instance = instance_at(now);
    let id = new.id.unwrap_or_else(|| JobId::new(&instance.to_string()).expect("a uuid is a legal id"));
    Job {
        instance,
        identity: Identity::Stamped,
        lane: new.lane,
        tenant: new.tenant,
        id,
        endpoint: new.endpoint,
        published_at: now,
        meta: new.meta,
        body: new.body,
    }
}

/// A new instance: uuid version 7, so that handles sort by publish time.
fn instance_at(now: Timestamp) -> Uuid {
    let micros = u64::try_from(now.as_micros()).unwrap_or(0);
    let nanos = u32::try_from(micros % 1_000_000).unwrap_or(0) * 1_000;
    Uuid::new_v7(uuid::Timestamp::from_unix(uuid::NoContext, micros / 1_000_000, nanos))
}
