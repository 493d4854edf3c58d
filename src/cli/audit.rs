//! `lanes audit`: who changed what while workers ran, when, from where, and how it was before.

use clap::Args;

use super::context::Context;
use super::error::{CliError, Exit};
use super::out::note;
use super::text::{Table, ago, shorten};
use super::view;
use crate::store::{AuditFilter, AuditRow, LIST_MAX};

/// Most characters of a free text in a table.
const CELL_MAX: usize = 60;

/// Arguments of `lanes audit`.
#[derive(Debug, Args)]
pub struct AuditArgs {
    /// Only what this one did
    #[arg(long = "by", value_name = "WHO")]
    actor: Option<String>,
    /// Only this action: pause, resume, set_limits, reset_limits, set_concurrency, reset_concurrency, cancel, retry, retry_now,
    /// discard, edit
    #[arg(long)]
    action: Option<String>,
    /// Only what was done to this: "lane bulk", "endpoint crm", "tenant acme", "tenant acme at crm", "job <handle>"
    #[arg(long)]
    target: Option<String>,
    /// Only what is before this line (its id, as --json shows it): how to go on after a list
    #[arg(long, value_name = "ID")]
    before: Option<i64>,
    /// Most lines to list
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u64).range(1..=LIST_MAX as u64))]
    limit: u64,
}

/// Runs it.
pub async fn run(mut ctx: Context, args: AuditArgs) -> Result<Exit, CliError> {
    let store = ctx.store().await?;
    let limit = usize::try_from(args.limit).unwrap_or(LIST_MAX);
    let AuditArgs { actor, action, target, before, .. } = args;
    let rows = store.audit(&AuditFilter { actor, action, target, before }, limit).await?;
    let now = store.time().await?;
    if ctx.out.is_json() {
        ctx.out.document(&rows.iter().map(view::line).collect())?;
    } else if rows.is_empty() {
        note("nobody has changed anything like that");
    } else {
        let mut table = Table::new(&["WHEN", "WHO", "FROM", "ACTION", "TARGET", "BEFORE", "AFTER", "NOTE"]);
        for AuditRow { entry, .. } in &rows {
            let texts = [&entry.action, &entry.target, &entry.before, &entry.after, &entry.note];
            let first = [ago(entry.at, now), shorten(&entry.actor, CELL_MAX), entry.source.as_str().to_owned()];
            table.row(first.into_iter().chain(texts.map(|text| shorten(text, CELL_MAX))));
        }
        ctx.out.table(&table)?;
        if let Some(last) = rows.last().filter(|_| rows.len() == limit) {
            note(format_args!("only the newest {limit} are shown; go on with --before {}", last.id));
        }
    }
    ctx.out.flush()?;
    Ok(Exit::Ok)
}
