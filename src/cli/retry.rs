//! `lanes jobs retry`: jobs that wait for a time of their own are due at once, dead jobs go back to work.

use std::collections::BTreeMap;

use clap::Args;
use clap::builder::{PossibleValuesParser, TypedValueParser};
use serde_json::{Value, json};
use uuid::Uuid;

use super::confirm::confirm;
use super::context::Context;
use super::error::{CliError, Exit};
use super::out::note;
use super::pause::ByArgs;
use super::text::{Table, clean, count, counted};
use super::{dead, view};
use crate::app;
use crate::clock::Timestamp;
use crate::governor::Governor;
use crate::governor::hurry::{self, foreseen};
use crate::governor::view::hold_of;
use crate::job::control::Speaker;
use crate::job::verdict::WaitReason;
use crate::job::{EndpointName, LaneName, Tenant};
use crate::observe::words;
use crate::store::{BATCH_MAX, Hastened, JobFilter, JobRow, LIST_MAX, State, Store, StoreResult};

/// Most jobs of one command that a filter finds: all of them are planned before one is touched.
const JOBS_MAX: usize = 100_000;

/// Which jobs to retry.
#[derive(Debug, Args)]
pub struct RetryArgs {
    /// Handles, or ids (the newest job of it that waits or is dead)
    #[arg(value_name = "JOB", conflicts_with_all = ["lane", "tenant", "endpoint", "reason", "all"])]
    jobs: Vec<String>,
    /// Jobs that wait, of this lane
    #[arg(long, value_parser = LaneName::new)]
    lane: Option<LaneName>,
    /// Jobs that wait, of this tenant
    #[arg(long, value_parser = Tenant::new)]
    tenant: Option<Tenant>,
    /// Jobs that wait, of this endpoint
    #[arg(long, value_parser = EndpointName::new)]
    endpoint: Option<EndpointName>,
    /// Jobs that wait for this reason
    #[arg(long, value_parser = reason_parser())]
    reason: Option<WaitReason>,
    /// Every job that waits
    #[arg(long, conflicts_with_all = ["lane", "tenant", "endpoint", "reason"])]
    all: bool,
    /// Do not ask
    #[arg(short, long)]
    yes: bool,
    /// Only show what would be done
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    by: ByArgs,
}

fn reason_parser() -> impl TypedValueParser<Value = WaitReason> {
    PossibleValuesParser::new(WaitReason::ALL.iter().map(|reason| reason.as_str()))
        .map(|word| WaitReason::parse(&word).expect("only words of the set get here"))
}

impl RetryArgs {
    fn filter(&self) -> JobFilter {
        JobFilter {
            lane: self.lane.clone(),
            tenant: self.tenant.clone(),
            endpoint: self.endpoint.clone(),
            state: Some(State::Waiting),
            reason: self.reason.map(|reason| reason.as_str().to_owned()),
            limit: LIST_MAX,
            ..JobFilter::default()
        }
    }

    /// `jobs of lane bulk, tenant acme`, for the log.
    fn what(&self) -> String {
        let parts = [
            ("lane", self.lane.as_ref().map(ToString::to_string)),
            ("endpoint", self.endpoint.as_ref().map(ToString::to_string)),
            ("tenant", self.tenant.as_ref().map(ToString::to_string)),
            ("reason", self.reason.map(|reason| reason.as_str().to_owned())),
        ];
        let parts: Vec<String> =
            parts.into_iter().filter_map(|(name, value)| Some(format!("{name} {}", value?))).collect();
        if parts.is_empty() { "all jobs that wait".to_owned() } else { format!("jobs of {}", parts.join(", ")) }
    }

    fn has_filter(&self) -> bool {
        self.all || self.lane.is_some() || self.tenant.is_some() || self.endpoint.is_some() || self.reason.is_some()
    }
}

/// Runs it.
pub async fn run(ctx: Context, args: RetryArgs) -> Result<Exit, CliError> {
    match (args.jobs.is_empty(), args.has_filter()) {
        (true, false) => Err(CliError::usage("say which jobs to retry").help(
            "give handles or ids, a filter for jobs that wait (--lane, --endpoint, --tenant, --reason) or --all; \
             dead letters by filter: lanes dead retry",
        )),
        (true, true) => matching(ctx, args).await,
        (false, _) => named(ctx, args).await,
    }
}

async fn named(mut ctx: Context, args: RetryArgs) -> Result<Exit, CliError> {
    let store = ctx.store().await?;
    let (mut alive, mut others): (Vec<JobRow>, Vec<String>) = Default::default();
    for job in &args.jobs {
        match find(&*store, job).await? {
            Some(row) if alive.iter().any(|known| known.instance == row.instance) => {}
            Some(row) => alive.push(row),
            None => others.push(job.clone()),
        }
    }
    if alive.is_empty() {
        let by = args.by.speaker();
        return dead::retry_jobs(ctx, others, &by, args.yes, args.dry_run).await;
    }
    if !others.is_empty() {
        let help = format!("those that do not wait by themselves: lanes jobs retry {}", others.join(" "));
        return Err(
            CliError::usage("some of these jobs wait, others are dead or not known: retry them apart").help(help)
        );
    }
    let now = store.time().await?;
    if !args.dry_run {
        confirm(args.yes, "retry now", alive.len() as u64, "job")?;
    }
    let by = args.by.speaker();
    let governor = app::open_governor(&ctx.specs, &*store, now).await?;
    let mut told = Vec::new();
    for row in alive {
        let answer = if args.dry_run { foreseen(&row, now) } else { hurry::one(&*store, &row, &by, now).await? };
        told.push(tell(&*store, &governor, row, answer, now).await?);
    }
    report_named(&mut ctx, &told, args.dry_run)
}

/// The job of this handle, or the newest of this id, that is neither dead nor ended.
async fn find(store: &dyn Store, job: &str) -> StoreResult<Option<JobRow>> {
    if let Ok(handle) = Uuid::parse_str(job)
        && let Some(row) = store.job(handle).await?
    {
        return Ok(Some(row).filter(|row| row.state.is_alive()));
    }
    let filter = JobFilter { id: Some(job.to_owned()), limit: LIST_MAX, ..JobFilter::default() };
    let fits = |row: &JobRow| row.state.is_alive() || row.state == State::Dead;
    Ok(store.jobs(&filter).await?.into_iter().find(fits).filter(|row| row.state.is_alive()))
}

/// What became of one job.
struct Told {
    row: JobRow,
    answer: Hastened,
    /// What else holds it back, and until when.
    why: Option<String>,
    until: Option<Timestamp>,
}

async fn tell(
    store: &dyn Store,
    governor: &Governor,
    row: JobRow,
    answer: Hastened,
    now: Timestamp,
) -> StoreResult<Told> {
    // as it is now: it may have gone on since it was read
    let row = store.job(row.instance).await?.unwrap_or(row);
    let hold = hold_of(governor, store, &row, now).await?;
    let why = match (&hold, answer) {
        (Some(hold), _) => Some(hold.why.clone()),
        (None, Hastened::InTurn) => Some("its turn is about to come".to_owned()),
        (None, Hastened::KeyBusy) => Some("another job of its id has not ended yet; it goes on then".to_owned()),
        (None, _) => None,
    };
    Ok(Told { until: hold.and_then(|hold| hold.until), row, answer, why })
}

const fn word(answer: Hastened) -> &'static str {
    match answer {
        Hastened::Hurried => "due_now",
        Hastened::Due => "due",
        Hastened::InTurn => "in_turn",
        Hastened::KeyBusy => "key_busy",
        Hastened::Running => "running",
        Hastened::Ended(state) => state.as_str(),
        Hastened::NotFound => "not_found",
    }
}

fn sentence(Told { answer, why, until, .. }: &Told, now: Timestamp, dry_run: bool) -> String {
    let end = until.map(|at| format!(", goes on about {}", words::until(at, now))).unwrap_or_default();
    let behind = why.as_ref().map(|why| format!(", but is held back: {why}{end}")).unwrap_or_default();
    let why = why.clone().unwrap_or_default();
    match answer {
        Hastened::Hurried if dry_run => format!("would be due at once{behind}"),
        Hastened::Hurried => format!("is due at once; a worker takes it within a second{behind}"),
        Hastened::Due => format!("is due already{behind}"),
        Hastened::InTurn => format!("stays: it waits for its turn, which no haste changes: {why}{end}"),
        Hastened::KeyBusy => format!("stays: {why}"),
        Hastened::Running => "is being called now".to_owned(),
        Hastened::Ended(state) => format!("had already ended: {}", state.as_str()),
        Hastened::NotFound => "is not known any more".to_owned(),
    }
}

fn report_named(ctx: &mut Context, told: &[Told], dry_run: bool) -> Result<Exit, CliError> {
    use crate::clock::Clock as _;
    let did = |one: &&Told| matches!(one.answer, Hastened::Hurried | Hastened::Due);
    let done = told.iter().filter(did).count();
    if ctx.out.is_json() {
        let document = |one: &Told| {
            json!({
                "handle": one.row.instance, "id": one.row.id, "result": word(one.answer), "state": one.row.state,
                "reason": one.row.reason, "why": one.why, "until": view::time(one.until),
            })
        };
        ctx.out.document(&json!({
            "schema": 1, "action": hurry::ACTION, "dry_run": dry_run, "planned": told.len(),
            "done": if dry_run { 0 } else { done }, "jobs": told.iter().map(document).collect::<Vec<_>>(),
        }))?;
    } else {
        let now = ctx.clock.now();
        for one in told {
            ctx.out.line(format_args!("{} {}", clean(one.row.id.as_str()), clean(&sentence(one, now, dry_run))))?;
        }
    }
    ctx.out.flush()?;
    Ok(match done {
        _ if dry_run || done == told.len() => Exit::Ok,
        0 if told.iter().all(|one| one.answer == Hastened::NotFound) => Exit::NotFound,
        0 => Exit::Failed,
        _ => Exit::Partial,
    })
}

/// What a filter found.
#[derive(Default)]
struct Plan {
    hurried: Vec<Uuid>,
    /// By lane, endpoint, reason and what hurrying leads to.
    groups: BTreeMap<(String, String, String, &'static str), u64>,
    /// There are more than one command takes.
    cut: bool,
}

async fn matching(mut ctx: Context, args: RetryArgs) -> Result<Exit, CliError> {
    let store = ctx.store().await?;
    let now = store.time().await?;
    let plan = plan(&*store, args.filter(), now).await?;
    show(&plan);
    let mut done = BTreeMap::new();
    if args.dry_run || plan.hurried.is_empty() {
        return report(&mut ctx, &plan, &done, args.dry_run, None);
    }
    confirm(args.yes, "retry now", plan.hurried.len() as u64, "job")?;
    let failed = work(&*store, &plan, &args.what(), &args.by.speaker(), &mut done).await.err();
    report(&mut ctx, &plan, &done, false, failed)
}

async fn plan(store: &dyn Store, mut filter: JobFilter, now: Timestamp) -> StoreResult<Plan> {
    let (mut plan, mut seen) = (Plan::default(), 0);
    loop {
        let page = store.jobs(&filter).await?;
        for row in &page {
            let answer = foreseen(row, now);
            if answer == Hastened::Hurried {
                plan.hurried.push(row.instance);
            }
            let group = (row.lane.to_string(), row.endpoint.to_string(), row.reason.clone(), word(answer));
            *plan.groups.entry(group).or_default() += 1;
        }
        seen += page.len();
        filter.after = page.last().map(|row| (row.published_at, row.instance));
        if page.len() < LIST_MAX {
            return Ok(plan);
        }
        if seen >= JOBS_MAX {
            plan.cut = true;
            return Ok(plan);
        }
    }
}

fn show(plan: &Plan) {
    let more = if plan.cut { "; there are more: run it again for those" } else { "" };
    note(format_args!("to retry now: {}{more}", counted(plan.hurried.len() as u64, "job")));
    let mut table = Table::new(&["LANE", "ENDPOINT", "REASON", ">JOBS", "THEN"]);
    for ((lane, endpoint, reason, word), jobs) in &plan.groups {
        let then = match *word {
            "due_now" => "due at once",
            "due" => "due already",
            "in_turn" => "stays: waits for its turn (lanes status says until when)",
            "key_busy" => "stays: waits for another job of its id",
            other => other,
        };
        table.row([lane.clone(), endpoint.clone(), reason.clone(), count(*jobs), then.to_owned()]);
    }
    if !table.is_empty() {
        table.lines().iter().for_each(|line| note(format_args!("  {line}")));
    }
}

/// Hurries what is planned, a statement at a time.
async fn work(
    store: &dyn Store,
    plan: &Plan,
    what: &str,
    by: &Speaker,
    done: &mut BTreeMap<&'static str, u64>,
) -> StoreResult<()> {
    for batch in plan.hurried.chunks(BATCH_MAX) {
        let now = store.time().await?;
        for answer in hurry::many(store, batch, what, by, now).await? {
            *done.entry(word(answer)).or_default() += 1;
        }
    }
    Ok(())
}

fn report(
    ctx: &mut Context,
    plan: &Plan,
    done: &BTreeMap<&'static str, u64>,
    dry_run: bool,
    failed: Option<crate::store::StoreError>,
) -> Result<Exit, CliError> {
    let hurried = done.get("due_now").copied().unwrap_or(0);
    let moved_on: u64 = done.iter().filter(|(word, _)| **word != "due_now").map(|(_, jobs)| jobs).sum();
    let mut stayed: BTreeMap<&str, u64> = BTreeMap::new();
    for ((_, _, _, word), jobs) in plan.groups.iter().filter(|((_, _, _, word), _)| *word != "due_now") {
        *stayed.entry(word).or_default() += jobs;
    }
    if ctx.out.is_json() {
        let stayed: Value = stayed.iter().map(|(word, jobs)| ((*word).to_owned(), json!(jobs))).collect();
        ctx.out.document(&json!({
            "schema": 1, "action": hurry::ACTION, "dry_run": dry_run, "planned": plan.hurried.len(), "done": hurried,
            "moved_on": moved_on, "stayed": stayed, "more": plan.cut, "error": failed.as_ref().map(ToString::to_string),
        }))?;
    } else if !dry_run {
        let more = |what: &str, jobs: u64| if jobs == 0 { String::new() } else { format!(", {what}: {}", count(jobs)) };
        let (moved_on, stayed) = (more("went on meanwhile", moved_on), more("stayed", stayed.values().sum()));
        ctx.out.line(format_args!("due at once: {}{moved_on}{stayed}", count(hurried)))?;
    }
    ctx.out.flush()?;
    match failed {
        None => Ok(Exit::Ok),
        Some(error) if hurried > 0 => {
            note(format_args!("the rest was not reached: {error}"));
            Ok(Exit::Partial)
        }
        Some(error) => Err(error.into()),
    }
}
