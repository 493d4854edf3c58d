//! Carries out operations on many, step by step: each step is one transaction, so another worker goes on where one died.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::FailureWait;
use super::upkeep::Upkeep;
use crate::broker::{Broker, Outgoing, PublishError};
use crate::clock::{self, SharedClock, Timestamp};
use crate::job::event::Event;
use crate::job::operation::{Operation, Phase};
use crate::job::{LaneName, wire};
use crate::policy::operation::{next_step_at, step_size};
use crate::store::{Claim, OPERATIONS_RUNNING_MAX, RawAnswer, RawLetter, StepWish, Stepped, Store, StoreResult};
use crate::telemetry::Telemetry;

/// How often operations are looked for that nobody works on.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// So long after its last step an operation is taken over from a worker that died.
const CLAIMED_FOR: Duration = Duration::from_secs(20);
/// The same while it publishes: longer than a broker may take for that, so that nobody publishes the same messages meanwhile.
const PUBLISHES_FOR: Duration = Duration::from_mins(2);
/// Longest time of a publish.
const PUBLISH_MAX: Duration = Duration::from_secs(90);
/// An operation whose next step is further away is left until then.
const REST_MAX: Duration = Duration::from_secs(5);

/// What operations are carried out with.
#[derive(Debug, Clone)]
pub struct Executor {
    store: Arc<dyn Store>,
    broker: Arc<dyn Broker>,
    telemetry: Telemetry,
    clock: SharedClock,
    /// One step at a time, whatever number of operations runs: the store has other work.
    turn: Arc<Semaphore>,
    /// An operation whose next step is further away is left until then.
    rests: Duration,
}

/// How the work on an operation ended here.
#[derive(Debug, Clone, PartialEq)]
pub enum Ending {
    /// It has ended.
    Ended(Operation),
    /// It goes on elsewhere, or later.
    Left(Operation),
}

impl Executor {
    /// An executor over this store; messages that never were jobs are published to this broker.
    pub fn new(store: Arc<dyn Store>, broker: Arc<dyn Broker>, telemetry: Telemetry, clock: SharedClock) -> Self {
        Self { store, broker, telemetry, clock, turn: Arc::new(Semaphore::new(1)), rests: REST_MAX }
    }

    /// The same for who has nothing else to do: it waits for the next step, however far away that is.
    #[must_use]
    pub fn patient(self) -> Self {
        Self { rests: Duration::MAX, ..self }
    }

    /// A claim from now on.
    pub fn claim(&self) -> Claim {
        Claim { token: Uuid::new_v4(), until: self.until() }
    }

    fn until(&self) -> Timestamp {
        self.clock.now().plus(CLAIMED_FOR)
    }

    /// Works on an operation that `token` has claimed, until it has ended, somebody else has it, its next step is far away,
    /// or `stop`. `seen` is told of each step.
    pub async fn carry_on(
        &self,
        mut operation: Operation,
        token: Uuid,
        stop: &CancellationToken,
        mut seen: impl FnMut(&Operation),
    ) -> Ending {
        let id = operation.begun.id;
        let mut wait = FailureWait::new();
        loop {
            if stop.is_cancelled() || !self.rests_until(operation.next_at, stop).await {
                if let Err(error) = self.store.leave_operation(id, token).await {
                    tracing::debug!(%id, %error, "the operation is not let go; somebody takes it over");
                }
                return Ending::Left(operation);
            }
            match self.step(&operation, token).await {
                Ok(Some(after)) => operation = after,
                Ok(None) => return self.ending(operation).await,
                Err(why) => {
                    tracing::warn!(%id, %why, "a step of an operation did not work, will try again");
                    tokio::select! {
                        biased;
                        () = stop.cancelled() => {}
                        () = wait.wait(&*self.clock) => {}
                    }
                    continue;
                }
            }
            wait = FailureWait::new();
            seen(&operation);
            if operation.phase != Phase::Running {
                return Ending::Ended(operation);
            }
        }
    }

    /// Waits for the next step; false = it is too far away, or the work is to stop.
    async fn rests_until(&self, next_at: Timestamp, stop: &CancellationToken) -> bool {
        let rest = next_at.since(self.clock.now());
        if rest > self.rests {
            return false;
        }
        tokio::select! {
            biased;
            () = stop.cancelled() => false,
            () = clock::sleep(&*self.clock, rest) => true,
        }
    }

    /// What became of an operation that is not ours any more.
    async fn ending(&self, last_seen: Operation) -> Ending {
        let id = last_seen.begun.id;
        match self.store.operation(id).await {
            Ok(Some(now)) if now.phase != Phase::Running => Ending::Ended(now),
            Ok(Some(now)) => Ending::Left(now),
            Ok(None) => Ending::Left(last_seen),
            Err(error) => {
                tracing::warn!(%id, %error, "the operation is not ours any more, and how far it is can't be read");
                Ending::Left(last_seen)
            }
        }
    }

    async fn step(&self, operation: &Operation, token: Uuid) -> Result<Option<Operation>, String> {
        let turn = self.turn.acquire().await.expect("the semaphore is never closed");
        let (id, interval) = (operation.begun.id, operation.begun.interval);
        let (now, most) = (self.clock.now(), step_size(interval));
        let next_at = next_step_at(operation.next_at, now, interval, most);
        let raw_until = now.plus(PUBLISHES_FOR);
        let wish = StepWish { claim: Claim { token, until: self.until() }, now, most, next_at, raw_until };
        let stepped = self.store.step_operation(id, &wish).await.map_err(|error| error.to_string())?;
        drop(turn); // whatever follows is the broker's, and may take its time
        let Some(Stepped { operation, raw, cancelled }) = stepped else { return Ok(None) };
        for (lane, jobs) in cancelled {
            (0..jobs).for_each(|_| self.telemetry.record(&Event::Cancelled { lane: lane.clone() }));
        }
        if raw.is_empty() {
            return Ok(Some(operation));
        }
        let late = |_| format!("the broker did not answer within {PUBLISH_MAX:?}");
        let answers = clock::within(PUBLISH_MAX, self.publish(raw)).await.map_err(late)??;
        let wish = StepWish { claim: Claim { token, until: self.until() }, ..wish };
        self.store.tell_raw(id, &wish, &answers).await.map_err(|error| error.to_string())
    }

    /// Publishes messages that never were jobs again, to their lanes. An error is the broker's, which may pass: what was
    /// stored meanwhile is published once more then.
    async fn publish(&self, letters: Vec<RawLetter>) -> Result<Vec<RawAnswer>, String> {
        let mut answers = Vec::with_capacity(letters.len());
        let mut outgoing = Vec::with_capacity(letters.len());
        for RawLetter { letter, payload } in letters {
            let (instance, died_at, copies) = (letter.instance, letter.died_at, letter.copies);
            let outcome = wire::unpack_raw(&payload.meta, payload.body).map(|message| {
                outgoing.push(Outgoing { route: wire::route(&letter.lane), message });
            });
            answers.push((letter.lane, RawAnswer { instance, died_at, copies, outcome }));
        }
        // a lane that nobody has consumed yet has no queue, and was planned only because it is configured
        let lanes: BTreeSet<&LaneName> = answers.iter().map(|(lane, _)| lane).collect();
        let queues: Vec<_> = lanes.into_iter().flat_map(super::queues).collect();
        self.broker.declare(&queues).await.map_err(|error| error.to_string())?;
        let mut published = self.broker.publish(outgoing).await.into_iter();
        for (lane, answer) in answers.iter_mut().filter(|(_, answer)| answer.outcome.is_ok()) {
            match published.next() {
                Some(Ok(())) => self.telemetry.record(&Event::Published { lane: lane.clone(), source: "operation" }),
                Some(Err(PublishError::Unroutable { route })) => {
                    answer.outcome = Err(format!("no queue takes messages of lane {route:?}"));
                }
                Some(Err(error)) => return Err(error.to_string()),
                None => return Err("the broker gave no answer".to_owned()),
            }
        }
        Ok(answers.into_iter().map(|(_, answer)| answer).collect())
    }
}

/// Runs until `stop`.
pub(super) async fn run(upkeep: Arc<Upkeep>, broker: Arc<dyn Broker>, stop: CancellationToken) {
    let executor =
        Executor::new(Arc::clone(&upkeep.store), broker, upkeep.telemetry.clone(), Arc::clone(&upkeep.clock));
    let mut running = JoinSet::new();
    loop {
        while running.len() < OPERATIONS_RUNNING_MAX {
            match claimed(&executor).await {
                Ok(Some((operation, token))) => {
                    let (executor, stop) = (executor.clone(), stop.clone());
                    running.spawn(async move {
                        told(&executor.carry_on(operation, token, &stop, |_| {}).await);
                    });
                }
                Ok(None) => break,
                Err(error) => {
                    tracing::warn!(%error, "operations are not looked for this time");
                    break;
                }
            }
        }
        tokio::select! {
            biased;
            () = stop.cancelled() => break,
            Some(ended) = running.join_next() => {
                if let Err(error) = ended {
                    tracing::error!(%error, "the work on an operation failed; it is taken over");
                }
            }
            () = clock::sleep(&*upkeep.clock, LOOK_EVERY) => {}
        }
    }
    // each makes at most the step it is in
    while running.join_next().await.is_some() {}
}

async fn claimed(executor: &Executor) -> StoreResult<Option<(Operation, Uuid)>> {
    let claim = executor.claim();
    let operation = executor.store.claim_operation(claim, executor.clock.now()).await?;
    Ok(operation.map(|operation| (operation, claim.token)))
}

fn told(ending: &Ending) {
    let Ending::Ended(operation) = ending else { return };
    let (begun, tally) = (&operation.begun, operation.tally);
    tracing::info!(
        id = %begun.id, action = begun.action.as_str(), selection = %begun.selection.text(), by = %begun.actor,
        phase = operation.phase.as_str(), done = tally.done, skipped = tally.skipped, failed = tally.failed,
        "an operation has ended"
    );
}
