//! What `lanes lane` and `lanes limits` share: pausing and resuming, how a pause is shown, and who says so.

use std::time::Duration;

use clap::Args;
use serde_json::{Value, json};

use super::context::Context;
use super::error::{CliError, Exit};
use super::text::{parse_duration, until};
use super::view;
use crate::clock::Timestamp;
use crate::governor::operator;
use crate::job::control::{Pause, Paused, Source, Speaker, Target};

/// Longest time that something can be paused for, with an end.
pub const FOR_MAX: Duration = Duration::from_hours(24 * 366);

/// How something is paused.
#[derive(Debug, Args)]
pub struct PauseArgs {
    /// It ends by itself after this time: 15m, 2h; without it lasts until it is resumed
    #[arg(long = "for", value_name = "TIME", value_parser = parse_duration)]
    lasts: Option<Duration>,
    #[command(flatten)]
    by: ByArgs,
}

/// Who does something, and why.
#[derive(Debug, Args)]
pub struct ByArgs {
    /// Why, as others will see it
    #[arg(long, value_name = "TEXT", default_value = "")]
    note: String,
    /// Who does it, as others will see it [default: user@host]
    #[arg(long)]
    author: Option<String>,
}

impl ByArgs {
    /// Who that is.
    pub fn speaker(self) -> Speaker {
        speaker(self.author).because(&self.note)
    }
}

/// Whoever sits at this terminal, or is named.
pub fn speaker(author: Option<String>) -> Speaker {
    Speaker::new(&author.filter(|author| !author.is_empty()).unwrap_or_else(who), Source::Cli)
}

/// `user@host`
fn who() -> String {
    let user =
        ["USER", "LOGNAME"].into_iter().find_map(|name| std::env::var(name).ok().filter(|user| !user.is_empty()));
    format!("{}@{}", user.unwrap_or_else(|| "somebody".to_owned()), gethostname::gethostname().to_string_lossy())
}

/// Pauses; `resume` is the command that ends it.
pub async fn pause(mut ctx: Context, target: &Target, args: PauseArgs, resume: &str) -> Result<Exit, CliError> {
    if args.lasts.is_some_and(|lasts| lasts > FOR_MAX || lasts.is_zero()) {
        return Err(CliError::usage(
            "--for takes a time up to 366 days; without it the pause lasts until it is resumed",
        ));
    }
    let store = ctx.store().await?;
    let now = store.time().await?;
    let until_at = args.lasts.map(|lasts| now.plus(lasts));
    let before = operator::pause(&*store, target, until_at, &args.by.speaker(), now).await?;
    if ctx.out.is_json() {
        ctx.out.document(&answer(target, "paused", until_at, before.as_ref()))?;
    } else {
        let ends = match until_at {
            Some(at) => format!(", ends {} ({at})", until(at, now)),
            None => String::new(),
        };
        ctx.out.line(format_args!("{target} paused{ends}; workers follow within a second; go on with: {resume}"))?;
    }
    ctx.out.flush()?;
    Ok(Exit::Ok)
}

/// Resumes.
pub async fn resume(mut ctx: Context, target: &Target, by: ByArgs) -> Result<Exit, CliError> {
    let store = ctx.store().await?;
    let now = store.time().await?;
    let Some(before) = operator::resume(&*store, target, &by.speaker(), now).await? else {
        let rows = store.controls().await?;
        let lasting = rows.iter().filter(|row| row.pause.lasts(now));
        let names: Vec<String> = lasting.map(|row| row.target.to_string()).collect();
        let help = match names.len() {
            0 => "nothing is paused".to_owned(),
            _ => format!("paused: {}", names.join(", ")),
        };
        return Err(CliError::not_found(format!("{target} is not paused")).help(help));
    };
    if ctx.out.is_json() {
        ctx.out.document(&answer(target, "resumed", None, Some(&before)))?;
    } else {
        ctx.out.line(format_args!("{target} resumed; workers follow within a second"))?;
    }
    ctx.out.flush()?;
    Ok(Exit::Ok)
}

fn answer(target: &Target, result: &str, until_at: Option<Timestamp>, before: Option<&Paused>) -> Value {
    let (lane, endpoint, tenant) = target.parts();
    json!({
        "target": target.to_string(), "lane": lane, "endpoint": endpoint, "tenant": tenant,
        "result": result, "until": view::time(until_at), "before": before.map(|before| view::pause(&before.pause)),
    })
}

/// When a pause ends, for people.
pub fn ends(pause: &Pause, now: Timestamp) -> String {
    pause.until.map_or("when resumed".to_owned(), |at| until(at, now))
}
