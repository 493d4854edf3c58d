//! Acts on single dead letters: shows the plan, asks, works through them, says what became of each.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use futures_util::StreamExt as _;
use serde_json::json;
use uuid::Uuid;

use super::confirm::confirm;
use super::context::Context;
use super::dead::find;
use super::error::{CliError, Exit};
use super::out::note;
use super::text::{Table, count, counted};
use crate::governor::operator::{OperatorError, jobs};
use crate::job::control::Speaker;
use crate::job::operation::Action;
use crate::job::wire;
use crate::publish::Publisher;
use crate::store::{Letter, RawLetter, Replayed, Store};

/// Letters acted on at a time.
const CONCURRENT: usize = 4;
/// Most failures that are told one by one.
const FAILURES_SHOWN: usize = 20;

/// What is done to letters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verb {
    /// Put back to work.
    Retry,
    /// Deleted.
    Discard,
}

impl Verb {
    /// What it is called, also when it is done to many.
    pub const fn action(self) -> Action {
        match self {
            Self::Retry => Action::Retry,
            Self::Discard => Action::Discard,
        }
    }

    const fn word(self) -> &'static str {
        self.action().as_str()
    }
}

/// What became of it.
#[derive(Debug, Default)]
struct Tally {
    done: u64,
    gone: Vec<String>,
    failed: Vec<(Uuid, String)>,
}

/// The letters that were found.
struct Plan {
    letters: Vec<Letter>,
    missing: Vec<String>,
}

/// Runs it on letters that are given by handle or id.
pub async fn run(
    mut ctx: Context,
    verb: Verb,
    jobs: &[String],
    by: &Speaker,
    yes: bool,
    dry_run: bool,
) -> Result<Exit, CliError> {
    let store = ctx.store().await?;
    let plan = plan(&*store, jobs).await?;
    if plan.letters.is_empty() && !plan.missing.is_empty() {
        return Err(CliError::not_found(format!("no dead letter has the handle or id {}", plan.missing.join(", ")))
            .help("lanes dead list shows them; a job that waits goes on by itself (lanes jobs show)"));
    }
    show(verb, &plan);
    if dry_run || plan.letters.is_empty() {
        return report(&mut ctx, verb, &plan, &Tally::default(), dry_run);
    }
    confirm(yes, verb.word(), plan.letters.len() as u64, "dead letter")?;
    let mut actor = Actor { verb, by: by.clone(), store, publisher: None, tally: Tally::default() };
    actor.tally.gone.clone_from(&plan.missing);
    actor.work(&ctx, &plan.letters).await?;
    report(&mut ctx, verb, &plan, &actor.tally, false)
}

async fn plan(store: &dyn Store, jobs: &[String]) -> Result<Plan, CliError> {
    let mut plan = Plan { letters: Vec::new(), missing: Vec::new() };
    let mut known = HashSet::new();
    for job in jobs {
        match find(store, job).await? {
            Some(found) if known.insert(found.letter.instance) => plan.letters.push(found.letter),
            Some(_) => {}
            None => plan.missing.push(job.clone()),
        }
    }
    Ok(plan)
}

/// The plan, by lane, endpoint and reason.
fn show(verb: Verb, plan: &Plan) {
    note(format_args!("to {}: {}", verb.word(), counted(plan.letters.len() as u64, "dead letter")));
    let mut groups: BTreeMap<(String, String, String), u64> = BTreeMap::new();
    for letter in &plan.letters {
        let endpoint = letter.endpoint.clone().unwrap_or_default();
        *groups.entry((letter.lane.to_string(), endpoint, letter.reason.to_string())).or_default() += 1;
    }
    let mut table = Table::new(&["LANE", "ENDPOINT", "REASON", ">LETTERS"]);
    for ((lane, endpoint, reason), letters) in groups {
        table.row([lane, endpoint, reason, count(letters)]);
    }
    if !table.is_empty() {
        table.lines().iter().for_each(|line| note(format_args!("  {line}")));
    }
    for job in &plan.missing {
        note(format_args!("  {job}: no such dead letter"));
    }
}

struct Actor {
    verb: Verb,
    by: Speaker,
    store: Arc<dyn Store>,
    /// Opened when the first letter needs it.
    publisher: Option<Publisher>,
    tally: Tally,
}

/// What became of one letter.
enum Outcome {
    Done,
    Gone,
    Failed(String),
}

/// What the store said about one letter.
enum Step {
    Ended(Outcome),
    /// The bytes of a message have to be published again.
    Republish(Box<RawLetter>),
}

impl Actor {
    async fn work(&mut self, ctx: &Context, letters: &[Letter]) -> Result<(), CliError> {
        let (store, verb, by) = (Arc::clone(&self.store), self.verb, self.by.clone());
        let mut steps = futures_util::stream::iter(letters.iter().map(|letter| letter.instance))
            .map(|handle| {
                let (store, by) = (Arc::clone(&store), &by);
                async move { (handle, one(&*store, verb, handle, by).await) }
            })
            .buffered(CONCURRENT);
        while let Some((handle, step)) = steps.next().await {
            let outcome = match step {
                Step::Ended(outcome) => outcome,
                Step::Republish(letter) => self.republish(ctx, *letter).await?,
            };
            match outcome {
                Outcome::Done => self.tally.done += 1,
                Outcome::Gone => self.tally.gone.push(handle.to_string()),
                Outcome::Failed(why) => self.tally.failed.push((handle, why)),
            }
        }
        Ok(())
    }

    /// A message that never was a job: the same bytes to the same lane, and only then the letter goes.
    async fn republish(&mut self, ctx: &Context, found: RawLetter) -> Result<Outcome, CliError> {
        let RawLetter { letter, payload } = found;
        let message = match wire::unpack_raw(&payload.meta, payload.body) {
            Ok(message) => message,
            Err(why) => return Ok(Outcome::Failed(why)),
        };
        let publisher = match &self.publisher {
            Some(publisher) => publisher,
            None => self.publisher.insert(ctx.publisher().await?),
        };
        if let Err(error) = publisher.republish(&letter.lane, message).await {
            return Ok(Outcome::Failed(error.to_string()));
        }
        let now = self.store.time().await?;
        Ok(match jobs::republished(&*self.store, &letter, &self.by, now).await {
            Ok(()) => Outcome::Done,
            Err(error) => Outcome::Failed(format!("published again, but the letter could not be deleted: {error}")),
        })
    }
}

async fn one(store: &dyn Store, verb: Verb, handle: Uuid, by: &Speaker) -> Step {
    let answer = match verb {
        Verb::Discard => discard(store, handle, by).await,
        Verb::Retry => replay(store, handle, by).await,
    };
    answer.unwrap_or_else(|error| Step::Ended(Outcome::Failed(error.to_string())))
}

async fn discard(store: &dyn Store, handle: Uuid, by: &Speaker) -> Result<Step, OperatorError> {
    let now = store.time().await?;
    Ok(Step::Ended(match jobs::discard(store, handle, by, now).await {
        Err(OperatorError::NotFound(_)) => Outcome::Gone,
        answer => answer.map(|()| Outcome::Done)?,
    }))
}

async fn replay(store: &dyn Store, handle: Uuid, by: &Speaker) -> Result<Step, OperatorError> {
    let now = store.time().await?;
    Ok(match jobs::replay(store, handle, by, now).await? {
        Replayed::Waiting(_) => Step::Ended(Outcome::Done),
        Replayed::Raw(letter) => Step::Republish(letter),
        Replayed::NotFound => Step::Ended(Outcome::Gone),
    })
}

fn report(ctx: &mut Context, verb: Verb, plan: &Plan, tally: &Tally, dry_run: bool) -> Result<Exit, CliError> {
    if ctx.out.is_json() {
        let failed: Vec<_> =
            tally.failed.iter().map(|(handle, why)| json!({ "handle": handle, "error": why })).collect();
        ctx.out.document(&json!({
            "schema": 1, "action": verb.word(), "dry_run": dry_run, "planned": plan.letters.len(),
            "done": tally.done, "not_found": tally.gone, "failed": failed,
        }))?;
    } else if !dry_run {
        for (handle, why) in tally.failed.iter().take(FAILURES_SHOWN) {
            note(format_args!("{handle}: {why}"));
        }
        let did = if verb == Verb::Retry { "put back to work" } else { "discarded" };
        let more = |what: &str, number: usize| if number == 0 { String::new() } else { format!(", {what}: {number}") };
        let (gone, failed) = (more("not found", tally.gone.len()), more("failed", tally.failed.len()));
        ctx.out.line(format_args!("{did}: {}{gone}{failed}", count(tally.done)))?;
    }
    ctx.out.flush()?;
    let whole = tally.failed.is_empty() && tally.gone.is_empty();
    Ok(match () {
        () if whole => Exit::Ok,
        () if tally.done > 0 => Exit::Partial,
        () if tally.failed.is_empty() => Exit::NotFound,
        () => Exit::Failed,
    })
}
