//! `lanes limits`: what may be called, what holds calls back, and an operator's word on it while workers run: limits, pauses.

use std::time::Duration;

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::confirm::confirm;
use super::context::Context;
use super::error::{CliError, Exit};
use super::out::note;
use super::pause::{self, ByArgs, PauseArgs, speaker};
use super::text::{Table, ago, count, duration, parse_duration, shorten, until};
use super::{names, view};
use crate::app;
use crate::clock::Timestamp;
use crate::governor::operator::{self, Wish};
use crate::governor::view::{AccountState, LimitState, pace_text};
use crate::job::budget::Account;
use crate::job::control::Target;
use crate::job::{EndpointName, Tenant};
use crate::store::LIST_MAX;

/// Most characters of a free text in a table.
const CELL_MAX: usize = 60;
/// Longest time that limits can be set for.
const FOR_MAX: Duration = Duration::from_hours(24 * 366);

/// Subcommands of `lanes limits`.
#[derive(Debug, Subcommand)]
pub enum LimitsCommand {
    /// List budgets: limits, pace, what is left, what holds calls back, who waits
    List {
        /// Only this endpoint
        #[arg(long, value_parser = EndpointName::new)]
        endpoint: Option<EndpointName>,
        /// Only this tenant
        #[arg(long, value_parser = Tenant::new)]
        tenant: Option<Tenant>,
    },
    /// Set limits while workers run; they replace the configured ones within a second, also for jobs that wait
    Set(SetArgs),
    /// Take back what was set, forget what was learnt from answers, and open what is blocked
    Reset {
        /// The endpoint
        #[arg(value_parser = EndpointName::new)]
        endpoint: EndpointName,
        /// Only for this tenant
        #[arg(long, value_parser = Tenant::new)]
        tenant: Option<Tenant>,
        /// Do not ask
        #[arg(short, long)]
        yes: bool,
    },
    /// Hold calls back, on all workers: those of an endpoint, of a tenant, or of a tenant at an endpoint; other jobs go on
    Pause {
        #[command(flatten)]
        whose: Whose,
        #[command(flatten)]
        args: PauseArgs,
    },
    /// Let paused calls go on, at the pace of their budgets
    Resume {
        #[command(flatten)]
        whose: Whose,
        #[command(flatten)]
        by: ByArgs,
    },
}

/// Whose calls.
#[derive(Debug, Args)]
pub struct Whose {
    /// The endpoint; without it --tenant says whose calls, to whatever endpoint
    #[arg(value_parser = EndpointName::new, required_unless_present = "tenant")]
    endpoint: Option<EndpointName>,
    /// Only this tenant
    #[arg(long, value_parser = Tenant::new)]
    tenant: Option<Tenant>,
}

impl Whose {
    /// What to pause or resume, and the words that name it on a command line.
    fn target(self) -> Result<(Target, String), CliError> {
        let words = match (&self.endpoint, &self.tenant) {
            (Some(endpoint), None) => endpoint.to_string(),
            (None, Some(tenant)) => format!("--tenant {tenant}"),
            (Some(endpoint), Some(tenant)) => format!("{endpoint} --tenant {tenant}"),
            (None, None) => String::new(),
        };
        let target = Target::of_parts(None, self.endpoint, self.tenant);
        Ok((target.ok_or_else(|| CliError::usage("name an endpoint, or a tenant with --tenant"))?, words))
    }
}

/// What to set.
#[derive(Debug, Args)]
pub struct SetArgs {
    /// The endpoint
    #[arg(value_parser = EndpointName::new)]
    endpoint: EndpointName,
    /// Limits, several at once: 100/1m 40000/1d; none = not limited
    #[arg(required = true, value_name = "REQUESTS/TIME", value_parser = parse_limit)]
    limits: Vec<Option<(u32, Duration)>>,
    /// For this tenant alone, instead of for all
    #[arg(long, value_parser = Tenant::new)]
    tenant: Option<Tenant>,
    /// The configured limits count again after this time: 15m, 2h
    #[arg(long = "for", value_name = "TIME", value_parser = parse_duration)]
    lasts: Option<Duration>,
    /// Calls at once after a rest
    #[arg(long)]
    burst: Option<u32>,
    /// Share of the limits that is used [default: 0.8]
    #[arg(long)]
    headroom: Option<f64>,
    /// All tenants share one budget (the default where that is configured so; else each has its own)
    #[arg(long, conflicts_with = "tenant")]
    shared: bool,
    /// Who sets them, as others will see it [default: user@host]
    #[arg(long)]
    author: Option<String>,
    /// Do not ask
    #[arg(short, long)]
    yes: bool,
}

/// `100/1m`, `40000/1d`, or `none`.
fn parse_limit(text: &str) -> Result<Option<(u32, Duration)>, String> {
    if text == "none" {
        return Ok(None);
    }
    let wrong = || format!("{text:?} is not a limit: write it like 100/1m or 40000/1d, or none");
    let (requests, per) = text.split_once('/').ok_or_else(wrong)?;
    let requests = requests.trim().parse().map_err(|_| wrong())?;
    // `100/m` is how people say it
    let per = if per.starts_with(|c: char| c.is_ascii_digit()) { per.to_owned() } else { format!("1{per}") };
    Ok(Some((requests, parse_duration(&per).map_err(|_| wrong())?)))
}

/// Runs it.
pub async fn run(ctx: Context, command: LimitsCommand) -> Result<Exit, CliError> {
    match command {
        LimitsCommand::List { endpoint, tenant } => list(ctx, endpoint.as_ref(), tenant.as_ref()).await,
        LimitsCommand::Set(args) => set(ctx, args).await,
        LimitsCommand::Reset { endpoint, tenant, yes } => reset(ctx, endpoint, tenant, yes).await,
        LimitsCommand::Pause { whose, args } => {
            if let Some(endpoint) = &whose.endpoint {
                names::endpoint(&ctx.specs, endpoint, Exit::NotFound)?;
            }
            let (target, words) = whose.target()?;
            pause::pause(ctx, &target, args, &format!("lanes limits resume {words}")).await
        }
        LimitsCommand::Resume { whose, by } => pause::resume(ctx, &whose.target()?.0, by).await,
    }
}

async fn list(mut ctx: Context, endpoint: Option<&EndpointName>, tenant: Option<&Tenant>) -> Result<Exit, CliError> {
    let store = ctx.store().await?;
    let now = store.time().await?;
    let governor = app::open_governor(&ctx.specs, &*store, now).await?;
    let held = store.held(LIST_MAX).await?;
    let lane = ctx.specs.lanes.first().map(|lane| lane.name.clone());
    let mut accounts = lane.map(|lane| governor.accounts(&lane, &held, now)).unwrap_or_default();
    accounts.retain(|account| {
        endpoint.is_none_or(|endpoint| account.endpoint == *endpoint)
            && tenant.is_none_or(|tenant| account.tenant.as_ref() == Some(tenant))
    });
    if ctx.out.is_json() {
        ctx.out.document(&accounts.iter().map(document).collect())?;
    } else {
        ctx.out.table(&table(&accounts, now))?;
    }
    ctx.out.flush()?;
    Ok(Exit::Ok)
}

fn table(accounts: &[AccountState], now: Timestamp) -> Table {
    let mut table = Table::new(&[
        "ENDPOINT", "TENANT", "LIMITS", "SOURCE", ">PACE", ">LEFT", "RESETS", ">WAITING", "STATE", "DETAIL",
    ]);
    for account in accounts {
        let source = match &account.set_by {
            Some((author, _, Some(at))) => format!("set by {author}, ends {}", until(*at, now)),
            Some((author, set_at, None)) => format!("set by {author} {}", ago(*set_at, now)),
            None => account.source.to_owned(),
        };
        let resets = account.left.and_then(|(_, reset_at)| reset_at);
        let state = match account.until {
            Some(at) => format!("{} ({})", account.state, until(at, now)),
            None if account.state == "paused" => "paused (until resumed)".to_owned(),
            None => account.state.to_owned(),
        };
        let detail = if account.detail.is_empty() { account.learnt.join("; ") } else { account.detail.clone() };
        table.row([
            account.endpoint.to_string(),
            account.tenant.as_ref().map_or("(all)".to_owned(), Tenant::to_string),
            limits_text(&account.limits),
            source,
            account.pace.map(pace_text).unwrap_or_default(),
            account.left.map(|(left, _)| left.to_string()).unwrap_or_default(),
            resets.map(|at| until(at, now)).unwrap_or_default(),
            count(account.held),
            state,
            shorten(&detail, CELL_MAX),
        ]);
    }
    table
}

/// `100/1m, 40000/1d (shared)`
fn limits_text(limits: &[LimitState]) -> String {
    if limits.is_empty() {
        return "none".to_owned();
    }
    let one = |limit: &LimitState| {
        let shared = if limit.scope == "endpoint" { " (shared)" } else { "" };
        match limit.requests {
            0 => "none".to_owned(),
            requests => format!("{requests}/{}{shared}", duration(limit.per).replace(' ', "")),
        }
    };
    limits.iter().map(one).collect::<Vec<_>>().join(", ")
}

fn document(account: &AccountState) -> Value {
    let limit = |limit: &LimitState| {
        json!({
            "requests": limit.requests, "per_seconds": limit.per.as_secs_f64(), "scope": limit.scope,
            "headroom": limit.headroom, "burst": limit.burst,
        })
    };
    let set_by = account.set_by.as_ref().map(|(author, set_at, expires_at)| {
        json!({ "author": author, "set_at": view::time(Some(*set_at)), "expires_at": view::time(*expires_at) })
    });
    json!({
        "endpoint": account.endpoint, "tenant": account.tenant,
        "limits": account.limits.iter().map(limit).collect::<Vec<_>>(),
        "source": account.source, "set_by": set_by, "learnt": account.learnt,
        "pace_per_second": account.pace, "left": account.left.map(|(left, _)| left),
        "resets_at": view::time(account.left.and_then(|(_, reset_at)| reset_at)),
        "waiting": account.held, "state": account.state, "until": view::time(account.until), "detail": account.detail,
    })
}

/// The account that an operator means; what shares the budgets of another endpoint has none of its own.
fn account(ctx: &Context, endpoint: EndpointName, tenant: Option<Tenant>) -> Result<Account, CliError> {
    let Some(spec) = ctx.specs.endpoints.iter().find(|spec| spec.name == endpoint) else {
        let known: Vec<&str> = ctx.specs.endpoints.iter().map(|spec| spec.name.as_str()).collect();
        let help = format!("configured are: {}", known.join(", "));
        return Err(CliError::not_found(format!("no endpoint {:?} is configured", endpoint.as_str())).help(help));
    };
    if let Some(owner) = &spec.budget.shares {
        return Err(CliError::usage(format!("{endpoint} shares the budgets of {owner}"))
            .help(format!("lanes limits set {owner} ...")));
    }
    Ok(Account { endpoint, tenant })
}

async fn set(mut ctx: Context, args: SetArgs) -> Result<Exit, CliError> {
    let account = account(&ctx, args.endpoint, args.tenant)?;
    if args.limits.len() > 1 && args.limits.contains(&None) {
        return Err(CliError::usage("none means not limited: it stands alone"));
    }
    if args.lasts.is_some_and(|lasts| lasts > FOR_MAX || lasts.is_zero()) {
        return Err(CliError::usage("--for takes a time up to 366 days"));
    }
    let store = ctx.store().await?;
    let now = store.time().await?;
    let wish = Wish {
        limits: args.limits.into_iter().flatten().collect(),
        burst: args.burst,
        headroom: args.headroom,
        shared: args.shared || account.tenant.is_none() && is_shared(&ctx, &account.endpoint),
    };
    let own: Vec<_> = ctx.specs.tenants.iter().filter(|tenant| tenant.limits_of(&account.endpoint)).collect();
    if account.tenant.is_none() && !own.is_empty() {
        let names: Vec<&str> = own.iter().map(|tenant| tenant.name.as_str()).collect();
        note(format_args!("tenants with limits of their own keep them: {}", names.join(", ")));
    }
    confirm(args.yes, &format!("set limits of {account}:"), wish.limits.len().max(1) as u64, "limit")?;
    let by = speaker(args.author);
    let expires_at = args.lasts.map(|lasts| now.plus(lasts));
    operator::set_limits(&*store, &account, &wish, &by, now, expires_at).await?;
    tell(&mut ctx, &account, "set", expires_at, now)
}

/// Whether the configured limits are one budget for all tenants: what replaces them is so too.
fn is_shared(ctx: &Context, endpoint: &EndpointName) -> bool {
    ctx.specs.endpoints.iter().any(|spec| spec.name == *endpoint && spec.budget.is_shared())
}

async fn reset(mut ctx: Context, endpoint: EndpointName, tenant: Option<Tenant>, yes: bool) -> Result<Exit, CliError> {
    // one that shares the budgets of another has a circuit of its own
    let account = account(&ctx, endpoint.clone(), tenant.clone()).or_else(|error| match error.exit() {
        Exit::Usage => Ok(Account { endpoint, tenant }),
        _ => Err(error),
    })?;
    let store = ctx.store().await?;
    let now = store.time().await?;
    confirm(yes, &format!("take back what was set and learnt of {account}:"), 1, "account")?;
    if !operator::reset(&*store, &account, &speaker(None), now).await? {
        note(format_args!("nothing was set or learnt of {account}"));
    }
    tell(&mut ctx, &account, "reset", None, now)
}

fn tell(
    ctx: &mut Context,
    account: &Account,
    did: &str,
    expires_at: Option<Timestamp>,
    now: Timestamp,
) -> Result<Exit, CliError> {
    if ctx.out.is_json() {
        ctx.out.document(&json!({
            "endpoint": account.endpoint, "tenant": account.tenant, "result": did, "expires_at": view::time(expires_at),
        }))?;
    } else {
        let ends = expires_at.map(|at| format!(", ends {} ({at})", until(at, now))).unwrap_or_default();
        ctx.out.line(format_args!("limits of {account} {did}{ends}; workers follow within a second"))?;
    }
    ctx.out.flush()?;
    Ok(Exit::Ok)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_read_as_people_write_them() {
        let minute = Duration::from_mins(1);
        assert_eq!(parse_limit("100/1m"), Ok(Some((100, minute))));
        assert_eq!(parse_limit("100/m"), Ok(Some((100, minute))));
        assert_eq!(parse_limit("40000/1d"), Ok(Some((40_000, Duration::from_hours(24)))));
        assert_eq!(parse_limit("none"), Ok(None));
        for wrong in ["", "100", "100/", "x/1m", "100/1", "-1/1m", "100/1y"] {
            assert!(parse_limit(wrong).is_err_and(|why| why.contains("100/1m")), "{wrong}");
        }
    }
}
