//! Acts on everything that matches a filter: shows the plan, asks, starts the operation and works on it, or leaves it to workers.

use std::io::{self, IsTerminal as _};
use std::time::Duration;

use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::confirm::confirm;
use super::context::Context;
use super::error::{CliError, Exit};
use super::out::note;
use super::pause::ByArgs;
use super::signals::Signals;
use super::text::{count, counted};
use super::view;
use crate::clock::{self, Clock as _};
use crate::engine::operations::{Ending, Executor};
use crate::governor::operations::{self, Manner, Plan};
use crate::job::control::Speaker;
use crate::job::operation::{Action, Operation, Phase, Selection};
use crate::observe::words::parse_pace;
use crate::store::Store;

/// How it is carried out.
#[derive(Debug, Args)]
pub struct HowArgs {
    /// At most so many in a time (50/1s, 600/1m); else as fast as it goes. Calls keep to their budgets in any case
    #[arg(long, value_name = "N/TIME", value_parser = parse_pace)]
    pace: Option<f64>,
    /// Start it and leave it to the workers; lanes ops watch shows how far it is
    #[arg(long)]
    detach: bool,
    #[command(flatten)]
    by: ByArgs,
    /// Do not ask
    #[arg(short, long)]
    yes: bool,
    /// Only show what would be done
    #[arg(long)]
    dry_run: bool,
}

impl HowArgs {
    /// Who does it, and why.
    pub fn speaker(self) -> Speaker {
        self.by.speaker()
    }

    /// Refuses what only an operation can do.
    pub fn only_by(&self, why: &str) -> Result<(), CliError> {
        if self.pace.is_none() && !self.detach {
            return Ok(());
        }
        Err(CliError::usage(format!("--pace and --detach are for a filter: {why}")))
    }

    /// Nobody is asked.
    pub const fn is_yes(&self) -> bool {
        self.yes
    }

    /// Nothing is done.
    pub const fn is_dry(&self) -> bool {
        self.dry_run
    }
}

/// Runs it.
pub async fn run(mut ctx: Context, action: Action, selection: Selection, how: HowArgs) -> Result<Exit, CliError> {
    let store = ctx.store().await?;
    let lanes: Vec<String> = ctx.specs.lanes.iter().map(|lane| lane.name.to_string()).collect();
    let endpoints: Vec<String> = ctx.specs.endpoints.iter().map(|endpoint| endpoint.name.to_string()).collect();
    let known = |all: Vec<String>| move |name: &str| all.iter().any(|one| one == name);
    let plan = operations::plan(&*store, action, selection, known(lanes), known(endpoints)).await?;
    show(action, &plan);
    if how.dry_run || plan.eligible == 0 {
        return report(&mut ctx, action, &plan, None, how.dry_run);
    }
    confirm(how.yes, action.as_str(), plan.eligible, action.thing())?;
    // all times are the store's, whatever this machine's clock says
    let (ours, theirs) = (ctx.clock.now(), store.time().await?);
    ctx.clock.follow(ours, theirs);
    let executor =
        Executor::new(store.clone(), ctx.broker().await?, ctx.telemetry.clone(), ctx.shared_clock()).patient();
    let (claim, speaker, id) = (executor.claim(), how.by.speaker(), Uuid::new_v4());
    let manner = Manner { id, per_second: how.pace, claim: (!how.detach).then_some(claim) };
    let now = store.time().await?;
    let begun = operations::start(&*store, action, &plan, manner, &speaker, now).await?;
    if how.detach {
        note(format_args!("operation {id} is left to the workers: lanes ops watch {id}"));
        let operation = found(&*store, id).await?;
        return report(&mut ctx, action, &plan, Some(&operation), false);
    }
    // ended by a signal, workers go on: that is told
    let (stop, bar) = (CancellationToken::new(), Bar::of(begun.planned));
    let mut signals = Signals::listen()?;
    let operation = found(&*store, id).await?;
    let work = executor.carry_on(operation, claim.token, &stop, |seen| bar.show(seen));
    let mut work = std::pin::pin!(work);
    let (ending, signal) = tokio::select! {
        ending = &mut work => (ending, None),
        signal = signals.next() => {
            stop.cancel();
            (work.await, Some(signal))
        }
    };
    bar.end();
    conclude(&mut ctx, action, &plan, ending, signal).await
}

async fn conclude(
    ctx: &mut Context,
    action: Action,
    plan: &Plan,
    ending: Ending,
    signal: Option<Exit>,
) -> Result<Exit, CliError> {
    match (ending, signal) {
        (Ending::Ended(operation), _) => report(ctx, action, plan, Some(&operation), false),
        (Ending::Left(operation), Some(signal)) => {
            let id = operation.begun.id;
            note(format_args!("workers go on with it: lanes ops watch {id}; end it: lanes ops cancel {id}"));
            report(ctx, action, plan, Some(&operation), false)?;
            Ok(signal)
        }
        (Ending::Left(operation), None) => {
            let store = ctx.store().await?;
            note("a worker goes on with it");
            let operation = watch(ctx, &*store, operation).await?;
            report(ctx, action, plan, Some(&operation), false)
        }
    }
}

/// Watches an operation that somebody else works on, until it has ended.
pub async fn watch(ctx: &Context, store: &dyn Store, mut operation: Operation) -> Result<Operation, CliError> {
    const EVERY: Duration = Duration::from_millis(500);
    let id = operation.begun.id;
    let bar = Bar::of(operation.begun.planned);
    let mut signals = Signals::listen()?;
    while operation.phase == Phase::Running {
        bar.show(&operation);
        tokio::select! {
            _ = signals.next() => {
                bar.end();
                note(format_args!("it goes on: lanes ops watch {id}; end it: lanes ops cancel {id}"));
                return Ok(operation);
            }
            () = clock::sleep(&ctx.clock, EVERY) => {}
        }
        operation = found(store, id).await?;
    }
    bar.end();
    Ok(operation)
}

/// Progress on stderr, where somebody looks at it.
struct Bar(Option<ProgressBar>);

impl Bar {
    fn of(planned: u64) -> Self {
        let style = ProgressStyle::with_template("{wide_bar} {percent}% {msg} {eta} left");
        let style = style.unwrap_or_else(|_| ProgressStyle::default_bar());
        Self(io::stderr().is_terminal().then(|| ProgressBar::new(planned).with_style(style)))
    }

    fn show(&self, operation: &Operation) {
        if let Some(bar) = &self.0 {
            bar.set_position(operation.tally.looked_at());
            bar.set_message(standing(operation));
        }
    }

    fn end(&self) {
        if let Some(bar) = &self.0 {
            bar.finish_and_clear();
        }
    }
}

/// An operation that has to be there.
pub async fn found(store: &dyn Store, id: Uuid) -> Result<Operation, CliError> {
    let missing = || CliError::not_found(format!("no operation has the handle {id}")).help("lanes ops list shows them");
    store.operation(id).await?.ok_or_else(missing)
}

/// How far it is, in one sentence.
pub fn standing(operation: &Operation) -> String {
    let tally = operation.tally;
    let more =
        |what: &str, number: u64| if number == 0 { String::new() } else { format!(", {what}: {}", count(number)) };
    let (skipped, failed) = (more("passed over", tally.skipped), more("failed", tally.failed));
    format!("{}: {}{skipped}{failed}", operation.begun.action.done_word(), count(tally.done))
}

fn show(action: Action, plan: &Plan) {
    let things = counted(plan.matched, action.thing());
    note(format_args!("to {}: {things} of {}", action.as_str(), plan.selection.text()));
    for (items, why) in &plan.left {
        note(format_args!("  left alone: {}, {why}", count(*items)));
    }
    plan.warnings.iter().for_each(|warning| note(format_args!("  {warning}")));
}

fn report(
    ctx: &mut Context,
    action: Action,
    plan: &Plan,
    operation: Option<&Operation>,
    dry_run: bool,
) -> Result<Exit, CliError> {
    if ctx.out.is_json() {
        ctx.out.document(&document(action, plan, operation, dry_run))?;
    } else if let Some(operation) = operation {
        if !operation.problem.is_empty() {
            note(format_args!("the last one that failed: {}", operation.problem));
        }
        ctx.out.line(standing(operation))?;
    } else if !dry_run {
        ctx.out.line(format_args!("{}: 0", action.done_word()))?;
    }
    ctx.out.flush()?;
    let tally = operation.map(|operation| operation.tally).unwrap_or_default();
    Ok(match (tally.failed, tally.done) {
        (0, _) => Exit::Ok,
        (_, 0) => Exit::Failed,
        _ => Exit::Partial,
    })
}

fn document(action: Action, plan: &Plan, operation: Option<&Operation>, dry_run: bool) -> Value {
    let left: Vec<_> = plan.left.iter().map(|(items, why)| json!({ "items": items, "why": why })).collect();
    let tally = operation.map(|operation| operation.tally).unwrap_or_default();
    json!({
        "schema": 2, "action": action.as_str(), "dry_run": dry_run, "matched": plan.matched, "planned": plan.eligible,
        "left": left, "warnings": plan.warnings, "done": tally.done, "skipped": tally.skipped, "failed": tally.failed,
        "operation": operation.map(view::operation),
    })
}
