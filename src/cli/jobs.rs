//! `lanes jobs`: what is known of jobs, why they wait and until when, and what was tried.

use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{Args, Subcommand};
use serde_json::json;
use uuid::Uuid;

use super::confirm::confirm;
use super::context::Context;
use super::edit::{self, EditArgs};
use super::error::{CliError, Exit};
use super::operation::{self, HowArgs};
use super::out::note;
use super::retry::{self, RetryArgs};
use super::text::{Table, ago, clean, counted, duration, shorten, until};
use super::view;
use crate::app;
use crate::clock::Timestamp;
use crate::governor::operator;
use crate::governor::view::{Hold, hold_of};
use crate::job::operation::{Action, Selection};
use crate::job::{EndpointName, LaneName, Tenant};
use crate::observe::words;
use crate::store::{AttemptRecord, CancelAnswer, JobFilter, JobRow, LIST_MAX, State, Store, StoreResult};

/// Most characters of a free text in a table.
const CELL_MAX: usize = 60;

/// Subcommands of `lanes jobs`.
#[derive(Debug, Subcommand)]
pub enum JobsCommand {
    /// List jobs, the newest publish first
    List(ListArgs),
    /// Show one job: where it is, why it waits and until when, every failed attempt
    Show {
        /// The handle that publishing answered, or the job's id
        job: String,
    },
    /// End jobs that have not ended; one that is being called is not called again
    Cancel {
        /// Handles, or ids (the newest job of it that has not ended)
        #[arg(required_unless_present_any = ["lane", "tenant", "endpoint", "reason"])]
        jobs: Vec<String>,
        #[command(flatten)]
        filter: WaitingArgs,
        #[command(flatten)]
        how: HowArgs,
    },
    /// Retry jobs now: what waits for a time of its own is due at once, dead jobs go back to work
    ///
    /// Jobs that wait for their turn in a budget, behind a block, a pause or another job of their id stay, and it is said why.
    /// Dead letters by filter: lanes dead retry.
    Retry(RetryArgs),
    /// Publish a job that waits or is dead anew with another body; the old one goes
    Edit(EditArgs),
}

/// All that wait and match; those that are being called are left alone.
#[derive(Debug, Args)]
pub struct WaitingArgs {
    /// All that wait in this lane
    #[arg(long, value_parser = LaneName::new, conflicts_with = "jobs")]
    lane: Option<LaneName>,
    /// All that wait of this tenant
    #[arg(long, value_parser = Tenant::new, conflicts_with = "jobs")]
    tenant: Option<Tenant>,
    /// All that wait for this endpoint
    #[arg(long, value_parser = EndpointName::new, conflicts_with = "jobs")]
    endpoint: Option<EndpointName>,
    /// All that wait for this reason (rate_limited, transient, budget, ...)
    #[arg(long, conflicts_with = "jobs")]
    reason: Option<String>,
}

/// Which jobs to list.
#[derive(Debug, Args)]
pub struct ListArgs {
    /// Only this lane
    #[arg(long, value_parser = LaneName::new)]
    lane: Option<LaneName>,
    /// Only this tenant
    #[arg(long, value_parser = Tenant::new)]
    tenant: Option<Tenant>,
    /// Only this endpoint
    #[arg(long, value_parser = EndpointName::new)]
    endpoint: Option<EndpointName>,
    /// Only this state
    #[arg(long, value_parser = state_parser())]
    state: Option<State>,
    /// Only this reason (rate_limited, transient, exhausted, ...)
    #[arg(long)]
    reason: Option<String>,
    /// Only this id
    #[arg(long)]
    id: Option<String>,
    /// Most jobs to list
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u64).range(1..=LIST_MAX as u64))]
    limit: u64,
}

fn state_parser() -> impl TypedValueParser<Value = State> {
    PossibleValuesParser::new(State::ALL.map(State::as_str)).map(|word| {
        State::ALL.into_iter().find(|state| state.as_str() == word).expect("only words of the set get here")
    })
}

/// Runs it.
pub async fn run(ctx: Context, command: JobsCommand) -> Result<Exit, CliError> {
    match command {
        JobsCommand::List(args) => list(ctx, args).await,
        JobsCommand::Show { job } => show(ctx, &job).await,
        JobsCommand::Cancel { jobs, filter, how } if jobs.is_empty() => cancel_waiting(ctx, filter, how).await,
        JobsCommand::Cancel { jobs, how, .. } => cancel(ctx, &jobs, how).await,
        JobsCommand::Retry(args) => retry::run(ctx, args).await,
        JobsCommand::Edit(args) => edit::run(ctx, args).await,
    }
}

async fn list(mut ctx: Context, args: ListArgs) -> Result<Exit, CliError> {
    let store = ctx.store().await?;
    let limit = usize::try_from(args.limit).unwrap_or(LIST_MAX);
    let ListArgs { lane, tenant, endpoint, state, reason, id, .. } = args;
    let rows = store.jobs(&JobFilter { lane, tenant, endpoint, state, reason, id, after: None, limit }).await?;
    let now = store.time().await?;
    if ctx.out.is_json() {
        ctx.out.document(&rows.iter().map(view::job).collect())?;
    } else if rows.is_empty() {
        note("no such jobs; one that no worker has taken yet is only in its lane's queue (lanes status)");
    } else {
        ctx.out.table(&table(&rows, now))?;
        if rows.len() == limit {
            note(format_args!("only the newest {limit} are shown; filter, or raise --limit"));
        }
    }
    ctx.out.flush()?;
    Ok(Exit::Ok)
}

fn table(rows: &[JobRow], now: Timestamp) -> Table {
    let mut table = Table::new(&[
        "HANDLE",
        "LANE",
        "TENANT",
        "ID",
        "ENDPOINT",
        "STATE",
        "REASON",
        ">ATTEMPT",
        "RESUMES",
        "PUBLISHED",
    ]);
    for row in rows {
        table.row([
            row.instance.to_string(),
            row.lane.to_string(),
            shorten(row.tenant.as_str(), CELL_MAX),
            shorten(row.id.as_str(), CELL_MAX),
            row.endpoint.to_string(),
            row.state.as_str().to_owned(),
            row.reason.clone(),
            row.attempt.to_string(),
            row.resume_at.map(|at| until(at, now)).unwrap_or_default(),
            ago(row.published_at, now),
        ]);
    }
    table
}

async fn show(mut ctx: Context, job: &str) -> Result<Exit, CliError> {
    let store = ctx.store().await?;
    let row = find(&*store, job).await?;
    let now = store.time().await?;
    let attempts = store.attempts(row.instance).await?;
    let letter = store.letter(row.instance).await?;
    let governor = app::open_governor(&ctx.specs, &*store, now).await?;
    let hold = hold_of(&governor, &*store, &row, now).await?;
    if ctx.out.is_json() {
        let mut document = view::job(&row);
        document["schema"] = 1.into();
        document["hold"] = view::hold(hold.as_ref());
        document["attempts"] = attempts.iter().map(view::attempt).collect();
        document["letter"] = letter.map_or(json!(null), |found| view::letter(&found.letter));
        ctx.out.document(&document)?;
        ctx.out.flush()?;
        return Ok(Exit::Ok);
    }
    let fields = [
        ("handle", row.instance.to_string()),
        ("id", row.id.to_string()),
        ("lane", row.lane.to_string()),
        ("tenant", row.tenant.to_string()),
        ("endpoint", row.endpoint.to_string()),
        ("published", format!("{} ({})", row.published_at, ago(row.published_at, now))),
        ("state", state_text(&row, hold.as_ref(), now)),
        ("attempts", words::attempts_of(&row)),
    ];
    for (name, value) in fields {
        ctx.out.line(format_args!("{name:<10} {}", clean(&value)))?;
    }
    if let Some(found) = letter {
        ctx.out.line(format_args!("{:<10} {}", "detail", clean(&found.letter.detail)))?;
    }
    if !attempts.is_empty() {
        ctx.out.line("")?;
        ctx.out.table(&journal(&attempts))?;
    }
    ctx.out.flush()?;
    Ok(Exit::Ok)
}

/// By handle, else by id: the newest publish of it.
async fn find(store: &dyn Store, job: &str) -> Result<JobRow, CliError> {
    if let Ok(handle) = Uuid::parse_str(job)
        && let Some(row) = store.job(handle).await?
    {
        return Ok(row);
    }
    let filter = JobFilter { id: Some(job.to_owned()), limit: LIST_MAX, ..JobFilter::default() };
    let mut rows = store.jobs(&filter).await?;
    if rows.len() > 1 {
        note(format_args!("{} jobs have this id, this is the newest; see lanes jobs list --id {job}", rows.len()));
    }
    if rows.is_empty() {
        let help = "a job that no worker has taken yet is only in its lane's queue; \
                    duplicates have no row of their own; ended jobs are forgotten after a while";
        return Err(CliError::not_found(format!("no job has the handle or id {job:?}")).help(help));
    }
    Ok(rows.swap_remove(0))
}

/// Where it is, and the command that shows more of a dead one.
fn state_text(row: &JobRow, hold: Option<&Hold>, now: Timestamp) -> String {
    let text = words::state_of(row, hold, now);
    if row.state == State::Dead { format!("{text}: lanes dead show {}", row.instance) } else { text }
}

/// The journal as a table.
fn journal(attempts: &[AttemptRecord]) -> Table {
    let mut table = Table::new(&[
        "ATTEMPT",
        "STARTED",
        ">TOOK",
        "RESULT",
        ">STATUS",
        ">RETRY-AFTER",
        "THEN",
        "NEXT CALL",
        "DETAIL",
    ]);
    for record in attempts {
        let millis = |ms: u64| duration(std::time::Duration::from_millis(ms));
        let number = match record.generation {
            0 | 1 => record.attempt.to_string(),
            generation => format!("{generation}.{}", record.attempt),
        };
        let reason = if record.reason.is_empty() { String::new() } else { format!(" ({})", record.reason) };
        let then = format!("{}{reason}", record.next);
        table.row([
            number,
            record.started_at.to_string(),
            if record.duration_us < 1_000 { "<1ms".to_owned() } else { millis(record.duration_us / 1_000) },
            record.class.clone(),
            record.status.map(|status| status.to_string()).unwrap_or_default(),
            record.retry_after_ms.map(millis).unwrap_or_default(),
            then,
            record.resume_at.map(|at| at.to_string()).unwrap_or_default(),
            shorten(&record.detail, CELL_MAX),
        ]);
    }
    table
}

/// The handle that `job` is, or the one of the newest job with that id in a state that fits.
pub async fn handle_of(store: &dyn Store, job: &str, fits: impl Fn(State) -> bool) -> StoreResult<Option<Uuid>> {
    if let Ok(handle) = Uuid::parse_str(job) {
        return Ok(Some(handle));
    }
    let filter = JobFilter { id: Some(job.to_owned()), limit: LIST_MAX, ..JobFilter::default() };
    Ok(store.jobs(&filter).await?.iter().find(|row| fits(row.state)).map(|row| row.instance))
}

async fn cancel_waiting(ctx: Context, filter: WaitingArgs, how: HowArgs) -> Result<Exit, CliError> {
    let until = ctx.store().await?.time().await?;
    let WaitingArgs { lane, tenant, endpoint, reason } = filter;
    let selection = Selection { lane, endpoint, tenant, reason, ..Selection::all(until) };
    operation::run(ctx, Action::Cancel, selection, how).await
}

async fn cancel(mut ctx: Context, jobs: &[String], how: HowArgs) -> Result<Exit, CliError> {
    how.only_by("named jobs are cancelled one by one, at once")?;
    if how.is_dry() {
        note(format_args!("to cancel: {}", counted(jobs.len() as u64, "job")));
        return Ok(Exit::Ok);
    }
    confirm(how.is_yes(), "cancel", jobs.len() as u64, "job")?;
    let store = ctx.store().await?;
    let (by, mut answers) = (how.speaker(), Vec::new());
    for job in jobs {
        let now = store.time().await?;
        let answer = match handle_of(&*store, job, State::is_alive).await? {
            Some(handle) => operator::jobs::cancel(&*store, handle, &by, now).await?,
            None => CancelAnswer::NotFound,
        };
        answers.push((job, answer));
    }
    let document = answers.iter().map(|(job, answer)| json!({ "job": job, "result": word(*answer) })).collect();
    if ctx.out.is_json() {
        ctx.out.document(&document)?;
    } else {
        for (job, answer) in &answers {
            let text = match answer {
                CancelAnswer::Cancelled => "cancelled".to_owned(),
                CancelAnswer::Running => "is being called now; it will not be called again".to_owned(),
                CancelAnswer::Ended(state) => format!("had already ended: {}", state.as_str()),
                CancelAnswer::NotFound => "is not known (not taken by a worker yet, or ended and forgotten)".to_owned(),
            };
            ctx.out.line(format_args!("{} {text}", clean(job)))?;
        }
    }
    ctx.out.flush()?;
    let did = |answer: &CancelAnswer| matches!(answer, CancelAnswer::Cancelled | CancelAnswer::Running);
    let done = answers.iter().filter(|(_, answer)| did(answer)).count();
    Ok(match done {
        _ if done == answers.len() => Exit::Ok,
        0 if answers.iter().all(|(_, answer)| *answer == CancelAnswer::NotFound) => Exit::NotFound,
        0 => Exit::Failed,
        _ => Exit::Partial,
    })
}

fn word(answer: CancelAnswer) -> &'static str {
    match answer {
        CancelAnswer::Cancelled => "cancelled",
        CancelAnswer::Running => "running",
        CancelAnswer::Ended(state) => state.as_str(),
        CancelAnswer::NotFound => "not_found",
    }
}
