//! `lanes dead`: look at dead letters, put them back to work, delete them.

use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{Args, Subcommand};
use serde_json::Value;

use super::bulk::{self, Verb};
use super::context::Context;
use super::error::{CliError, Exit};
use super::export;
use super::jobs::handle_of;
use super::operation::{self, HowArgs};
use super::out::note;
use super::text::{Table, ago, clean, counted, shorten};
use super::view;
use crate::job::control::Speaker;
use crate::job::operation::Selection;
use crate::job::verdict::DeadReason;
use crate::job::{EndpointName, LaneName, Tenant};
use crate::store::{LIST_MAX, Letter, LetterFilter, RawLetter, State, Store, StoreResult};

/// Most characters of a free text in a table.
const CELL_MAX: usize = 60;
/// Most bytes of a body that are shown to a person.
const EXCERPT_BYTES: usize = 2_000;

/// Subcommands of `lanes dead`.
#[derive(Debug, Subcommand)]
pub enum DeadCommand {
    /// List dead letters, the newest first
    List {
        #[command(flatten)]
        filter: FilterArgs,
        /// Most letters to list
        #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u64).range(1..=LIST_MAX as u64))]
        limit: u64,
    },
    /// Show one dead letter: why it died, its headers and its body
    Show {
        /// Its handle, or the id of a dead job
        letter: String,
    },
    /// Count dead letters by what they died of: endpoint, reason, tenant; most first
    Groups {
        /// Most groups to list
        #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u64).range(1..=LIST_MAX as u64))]
        limit: u64,
    },
    /// Write dead letters to stdout, with their bytes, one JSON document a line, the newest first
    Export {
        #[command(flatten)]
        filter: FilterArgs,
    },
    /// Put dead letters back to work
    Retry(SelectionArgs),
    /// Delete dead letters for good
    Discard(SelectionArgs),
}

/// Conditions; all of them must hold.
#[derive(Debug, Clone, Default, Args)]
pub struct FilterArgs {
    /// Only this lane
    #[arg(long, value_parser = LaneName::new)]
    pub lane: Option<LaneName>,
    /// Only this tenant
    #[arg(long, value_parser = Tenant::new)]
    pub tenant: Option<Tenant>,
    /// Only this endpoint
    #[arg(long, value_parser = EndpointName::new)]
    pub endpoint: Option<EndpointName>,
    /// Only this reason
    #[arg(long, value_parser = reason_parser())]
    pub reason: Option<DeadReason>,
}

impl FilterArgs {
    /// As the store wants it.
    pub fn filter(&self, limit: usize) -> LetterFilter {
        let Self { lane, tenant, endpoint, reason } = self.clone();
        LetterFilter { lane, tenant, endpoint, reason, after: None, limit }
    }

    /// No condition at all.
    pub fn is_empty(&self) -> bool {
        self.lane.is_none() && self.tenant.is_none() && self.endpoint.is_none() && self.reason.is_none()
    }
}

/// Which letters to act on.
#[derive(Debug, Args)]
pub struct SelectionArgs {
    /// Handles of single letters, or ids of dead jobs
    #[arg(value_name = "JOB", conflicts_with_all = ["lane", "tenant", "endpoint", "reason", "all"])]
    pub jobs: Vec<String>,
    #[command(flatten)]
    pub filter: FilterArgs,
    /// Every dead letter there is
    #[arg(long, conflicts_with_all = ["lane", "tenant", "endpoint", "reason"])]
    pub all: bool,
    #[command(flatten)]
    pub how: HowArgs,
}

fn reason_parser() -> impl TypedValueParser<Value = DeadReason> {
    PossibleValuesParser::new(DeadReason::ALL.iter().map(|reason| reason.as_str()))
        .map(|word| DeadReason::parse(&word).expect("only words of the set get here"))
}

/// Runs it.
pub async fn run(ctx: Context, command: DeadCommand) -> Result<Exit, CliError> {
    match command {
        DeadCommand::List { filter, limit } => list(ctx, &filter, limit).await,
        DeadCommand::Show { letter } => show(ctx, &letter).await,
        DeadCommand::Groups { limit } => export::groups(ctx, limit).await,
        DeadCommand::Export { filter } => export::run(ctx, &filter).await,
        DeadCommand::Retry(selection) => act(ctx, Verb::Retry, selection).await,
        DeadCommand::Discard(selection) => act(ctx, Verb::Discard, selection).await,
    }
}

/// Single letters at once, all that match a filter as an operation.
async fn act(ctx: Context, verb: Verb, selection: SelectionArgs) -> Result<Exit, CliError> {
    let SelectionArgs { jobs, filter, all, how } = selection;
    if !jobs.is_empty() {
        how.only_by("named letters are acted on one by one, at once")?;
        let (yes, dry_run) = (how.is_yes(), how.is_dry());
        return bulk::run(ctx, verb, &jobs, &how.speaker(), yes, dry_run).await;
    }
    if filter.is_empty() && !all {
        return Err(CliError::usage(format!("say which dead letters to {}", verb.action().as_str()))
            .help("give handles or ids, a filter (--lane, --reason, --endpoint, --tenant) or --all"));
    }
    let FilterArgs { lane, tenant, endpoint, reason } = filter;
    let until = ctx.store().await?.time().await?;
    let reason = reason.map(|reason| reason.as_str().to_owned());
    let selection = Selection { lane, endpoint, tenant, reason, ..Selection::all(until) };
    operation::run(ctx, verb.action(), selection, how).await
}

/// `lanes jobs retry`, of jobs that are dead.
pub async fn retry_jobs(
    ctx: Context,
    jobs: Vec<String>,
    by: &Speaker,
    yes: bool,
    dry_run: bool,
) -> Result<Exit, CliError> {
    bulk::run(ctx, Verb::Retry, &jobs, by, yes, dry_run).await
}

async fn list(mut ctx: Context, filter: &FilterArgs, limit: u64) -> Result<Exit, CliError> {
    let store = ctx.store().await?;
    let limit = usize::try_from(limit).unwrap_or(LIST_MAX);
    let letters = store.letters(&filter.filter(limit)).await?;
    let now = store.time().await?;
    if ctx.out.is_json() {
        ctx.out.document(&letters.iter().map(view::letter).collect())?;
        ctx.out.flush()?;
        return Ok(Exit::Ok);
    }
    let mut table =
        Table::new(&["HANDLE", "LANE", "TENANT", "ID", "ENDPOINT", "REASON", ">ATTEMPTS", "DIED", "DETAIL"]);
    for letter in &letters {
        table.row([
            letter.instance.to_string(),
            letter.lane.to_string(),
            shorten(letter.tenant.as_ref().map_or("", Tenant::as_str), CELL_MAX),
            shorten(letter.id.as_deref().unwrap_or_default(), CELL_MAX),
            letter.endpoint.clone().unwrap_or_default(),
            letter.reason.to_string(),
            letter.attempts.to_string(),
            ago(letter.died_at, now),
            shorten(&letter.detail, CELL_MAX),
        ]);
    }
    if table.is_empty() {
        note("no dead letters match");
    } else {
        ctx.out.table(&table)?;
        if letters.len() == limit {
            note(format_args!("only the newest {limit} are shown; filter, or raise --limit"));
        }
    }
    ctx.out.flush()?;
    Ok(Exit::Ok)
}

async fn show(mut ctx: Context, letter: &str) -> Result<Exit, CliError> {
    let store = ctx.store().await?;
    let found = find(&*store, letter).await?;
    let Some(RawLetter { letter, payload }) = found else {
        return Err(CliError::not_found(format!("no dead letter has the handle or id {letter:?}"))
            .help("lanes dead list shows them; one that was put back to work is a job again: lanes jobs show"));
    };
    let meta: Value = serde_json::from_slice(&payload.meta).unwrap_or_else(|_| view::body(&payload.meta));
    if ctx.out.is_json() {
        let mut document = export::document(&letter, &payload);
        document["attempts_journal"] = store.attempts(letter.instance).await?.iter().map(view::attempt).collect();
        ctx.out.document(&document)?;
        ctx.out.flush()?;
        return Ok(Exit::Ok);
    }
    for (name, value) in fields(&letter) {
        ctx.out.line(format_args!("{name:<10} {}", clean(&value)))?;
    }
    ctx.out.line(format_args!("\n{}", if letter.raw { "message:" } else { "meta:" }))?;
    ctx.out.line(clean(&format!("{meta:#}")))?;
    ctx.out.line(format_args!("\nbody ({}):", counted(letter.body_bytes, "byte")))?;
    ctx.out.line(excerpt(&payload.body))?;
    ctx.out.flush()?;
    let handle = letter.instance;
    note(format_args!(
        "\nput it back to work: lanes dead retry {handle}\nevery attempt:       lanes jobs show {handle}"
    ));
    Ok(Exit::Ok)
}

/// The letter that `text` names: by handle, or by the id of a dead job.
pub async fn find(store: &dyn Store, text: &str) -> StoreResult<Option<RawLetter>> {
    match handle_of(store, text, |state| state == State::Dead).await? {
        Some(handle) => store.letter(handle).await,
        None => Ok(None),
    }
}

fn fields(letter: &Letter) -> Vec<(&'static str, String)> {
    let unknown = || "(not readable)".to_owned();
    let mut fields = vec![
        ("handle", letter.instance.to_string()),
        ("id", letter.id.clone().unwrap_or_else(unknown)),
        ("lane", letter.lane.to_string()),
        ("tenant", letter.tenant.as_ref().map_or_else(unknown, ToString::to_string)),
        ("endpoint", letter.endpoint.clone().unwrap_or_else(unknown)),
        ("reason", letter.reason.to_string()),
        ("detail", letter.detail.clone()),
        ("attempts", letter.attempts.to_string()),
        ("died", letter.died_at.to_string()),
    ];
    if let Some(at) = letter.published_at {
        fields.push(("published", at.to_string()));
    }
    if letter.raw {
        fields.push(("copies", letter.copies.to_string()));
    }
    fields
}

/// The body as text, or its start in hexadecimal.
fn excerpt(body: &[u8]) -> String {
    let cut = &body[..body.len().min(EXCERPT_BYTES)];
    let more =
        if cut.len() < body.len() { format!("\n… ({} more bytes)", body.len() - cut.len()) } else { String::new() };
    let text = String::from_utf8_lossy(cut);
    let broken = text.chars().filter(|c| *c == char::REPLACEMENT_CHARACTER).count();
    // a cut inside of a character breaks one
    if broken > 1 { format!("{}{more}", view::hex(cut)) } else { format!("{}{more}", clean(&text)) }
}
