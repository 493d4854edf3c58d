//! `lanes ops`: operations on many, how far they are, and how to end one.

use clap::Subcommand;
use serde_json::json;
use uuid::Uuid;

use super::context::Context;
use super::error::{CliError, Exit};
use super::operation::{found, standing, watch};
use super::out::note;
use super::pause::ByArgs;
use super::text::{Table, ago, counted, until};
use super::view;
use crate::clock::Timestamp;
use crate::governor::operations;
use crate::job::operation::{Operation, Phase};

/// Operations that are listed unless more are asked for.
const LIST_DEFAULT: u64 = 20;
/// Most operations that can be listed.
const LIST_MAX: u64 = 1_000;

/// Subcommands of `lanes ops`.
#[derive(Debug, Subcommand)]
pub enum OpsCommand {
    /// List operations, the newest first
    List {
        /// Most operations to list
        #[arg(long, default_value_t = LIST_DEFAULT, value_parser = clap::value_parser!(u64).range(1..=LIST_MAX))]
        limit: u64,
    },
    /// Show one: what it does, how far it is, who started it and why
    Show {
        /// Its handle
        operation: Uuid,
    },
    /// Watch one until it has ended
    Watch {
        /// Its handle
        operation: Uuid,
    },
    /// End one before it is done; what was done stays done
    Cancel {
        /// Its handle
        operation: Uuid,
        #[command(flatten)]
        by: ByArgs,
    },
}

/// Runs it.
pub async fn run(ctx: Context, command: OpsCommand) -> Result<Exit, CliError> {
    match command {
        OpsCommand::List { limit } => list(ctx, limit).await,
        OpsCommand::Show { operation } => show(ctx, operation).await,
        OpsCommand::Watch { operation } => watched(ctx, operation).await,
        OpsCommand::Cancel { operation, by } => cancel(ctx, operation, by).await,
    }
}

async fn list(mut ctx: Context, limit: u64) -> Result<Exit, CliError> {
    let store = ctx.store().await?;
    let operations = store.operations(usize::try_from(limit).unwrap_or(usize::MAX)).await?;
    let now = store.time().await?;
    if ctx.out.is_json() {
        ctx.out.document(&operations.iter().map(view::operation).collect())?;
    } else if operations.is_empty() {
        note("nobody has started any: lanes dead retry, lanes dead discard and lanes jobs cancel with a filter do");
    } else {
        let mut table = Table::new(&["HANDLE", "STARTED", "BY", "WHAT", "OF", "STATE", ">DONE", ">PLANNED"]);
        for operation in &operations {
            let begun = &operation.begun;
            table.row([
                begun.id.to_string(),
                ago(begun.started_at, now),
                begun.actor.clone(),
                begun.action.as_str().to_owned(),
                begun.selection.text(),
                operation.phase.as_str().to_owned(),
                operation.tally.done.to_string(),
                begun.planned.to_string(),
            ]);
        }
        ctx.out.table(&table)?;
    }
    ctx.out.flush()?;
    Ok(Exit::Ok)
}

async fn show(mut ctx: Context, id: Uuid) -> Result<Exit, CliError> {
    let store = ctx.store().await?;
    let operation = found(&*store, id).await?;
    let now = store.time().await?;
    if ctx.out.is_json() {
        ctx.out.document(&view::operation(&operation))?;
    } else {
        for line in lines(&operation, now) {
            ctx.out.line(super::text::clean(&line))?;
        }
    }
    ctx.out.flush()?;
    Ok(Exit::Ok)
}

fn lines(operation: &Operation, now: Timestamp) -> Vec<String> {
    let begun = &operation.begun;
    let things = counted(begun.planned, begun.action.thing());
    let mut lines = vec![
        format!("operation  {}", begun.id),
        format!("what       {} {things} of {}", begun.action.as_str(), begun.selection.text()),
        format!("started    {} by {} ({})", ago(begun.started_at, now), begun.actor, begun.source.as_str()),
        format!("state      {}", state_text(operation, now)),
        format!("so far     {}", standing(operation)),
    ];
    if !begun.interval.is_zero() {
        lines.push(format!("pace       {:.1} a second at most", 1.0 / begun.interval.as_secs_f64()));
    }
    if !begun.note.is_empty() {
        lines.push(format!("why        {}", begun.note));
    }
    if !operation.problem.is_empty() {
        lines.push(format!("problem    {}", operation.problem));
    }
    lines
}

/// Where it is, for people.
fn state_text(operation: &Operation, now: Timestamp) -> String {
    match (operation.phase, operation.ended_at, operation.claimed_until) {
        (Phase::Running, _, None) if operation.next_at > now => format!("goes on {}", until(operation.next_at, now)),
        (Phase::Running, _, Some(claimed)) if claimed > now => "running".to_owned(),
        (Phase::Running, ..) => "waits for a worker".to_owned(),
        (phase, Some(ended), _) => format!("{} {}", phase.as_str(), ago(ended, now)),
        (phase, None, _) => phase.as_str().to_owned(),
    }
}

async fn watched(mut ctx: Context, id: Uuid) -> Result<Exit, CliError> {
    let store = ctx.store().await?;
    let operation = found(&*store, id).await?;
    let operation = watch(&ctx, &*store, operation).await?;
    if ctx.out.is_json() {
        ctx.out.document(&view::operation(&operation))?;
    } else {
        ctx.out.line(format_args!("{}: {}", operation.phase.as_str(), standing(&operation)))?;
    }
    ctx.out.flush()?;
    Ok(Exit::Ok)
}

async fn cancel(mut ctx: Context, id: Uuid, by: ByArgs) -> Result<Exit, CliError> {
    let store = ctx.store().await?;
    let operation = found(&*store, id).await?;
    let now = store.time().await?;
    if !operations::cancel(&*store, &operation, &by.speaker(), now).await? {
        return Err(CliError::failed(format!("operation {id} had ended already: {}", operation.phase.as_str())));
    }
    let after = found(&*store, id).await?;
    if ctx.out.is_json() {
        ctx.out.document(&json!({ "result": "cancelled", "operation": view::operation(&after) }))?;
    } else {
        ctx.out.line(format_args!("cancelled; {}", standing(&after)))?;
    }
    ctx.out.flush()?;
    Ok(Exit::Ok)
}
