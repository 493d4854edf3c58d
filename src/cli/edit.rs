//! `lanes jobs edit`: a job that waits or is dead is published anew with another body.

use bytes::Bytes;
use clap::Args;
use serde::de::IgnoredAny;
use serde_json::json;

use super::confirm::confirm;
use super::context::Context;
use super::error::{CliError, Exit};
use super::jobs::handle_of;
use super::out::note;
use super::pause::ByArgs;
use super::publish::given;
use super::text::{clean, counted};
use crate::app::Outlet;
use crate::governor::operator::jobs::{self, Edited};
use crate::store::State;

/// Which job, and its new body.
#[derive(Debug, Args)]
pub struct EditArgs {
    /// Its handle, or its id (the newest job of it that waits or is dead)
    job: String,
    /// The new body: text, @FILE, or - for stdin. Everything else stays as it was published
    body: String,
    #[command(flatten)]
    by: ByArgs,
    /// Do not ask
    #[arg(short, long)]
    yes: bool,
}

/// Runs it.
pub async fn run(mut ctx: Context, args: EditArgs) -> Result<Exit, CliError> {
    let fresh = Bytes::from(given(&args.body)?);
    let most = ctx.specs.worker.max_message_bytes;
    if fresh.len() as u64 > most {
        let bytes = fresh.len();
        return Err(CliError::usage(format!(
            "the body has {bytes} bytes, at most {most} are accepted (worker.max_message_bytes)"
        )));
    }
    let store = ctx.store().await?;
    let fits = |state: State| state.is_alive() || state == State::Dead;
    let Some(handle) = handle_of(&*store, &args.job, fits).await? else {
        return Err(CliError::not_found(format!("no job that waits or is dead has the handle or id {:?}", args.job))
            .help("lanes jobs list --state waiting and lanes dead list show them; what has ended is published again: lanes publish"));
    };
    // before anybody is asked: whatever is wrong with it is said at once
    let old = jobs::editable_body(&*store, handle).await?;
    suits(&old, &fresh).map_err(CliError::usage)?;
    note(format_args!("to edit: job {handle}, {} instead of {}", bytes_of(&fresh), bytes_of(&old)));
    confirm(args.yes, "edit", 1, "job")?;
    let (outlet, by) = (Outlet(ctx.publisher().await?), args.by.speaker());
    let body = |old: &[u8]| suits(old, &fresh).map(|()| fresh.clone());
    let Edited { handle: new, id, replaced } =
        jobs::edit(&*store, &outlet, handle, body, &by, store.time().await?).await?;
    if ctx.out.is_json() {
        let document = json!({
            "schema": 1, "action": "edit", "job": handle, "handle": new, "id": id, "replaced": replaced,
        });
        ctx.out.document(&document)?;
    } else {
        let old = if replaced {
            "the old one is gone"
        } else {
            "the old one was being called or had ended meanwhile: look at both"
        };
        ctx.out.line(format_args!("published anew as {new} (id {}); {old}", clean(id.as_str())))?;
    }
    ctx.out.flush()?;
    Ok(if replaced { Exit::Ok } else { Exit::Partial })
}

/// Whether `fresh` can take the place of `old`: its content type stays, so JSON has to stay JSON.
fn suits(old: &[u8], fresh: &[u8]) -> Result<(), String> {
    let parsed = |bytes: &[u8]| serde_json::from_slice::<IgnoredAny>(bytes);
    match parsed(fresh) {
        Err(error) if parsed(old).is_ok() => Err(format!("the body is not JSON as the old one is: {error}")),
        _ => Ok(()),
    }
}

fn bytes_of(body: &[u8]) -> String {
    counted(body.len() as u64, "byte")
}

#[cfg(test)]
mod tests {
    use super::suits;

    #[test]
    fn json_stays_json() {
        assert!(suits(b"{}", b"[1]").is_ok());
        assert!(suits(b"", b"text").is_ok() && suits(b"a=1", b"{}").is_ok());
        assert!(suits(b"{}", b"{").expect_err("refused").contains("not JSON as the old one is"));
    }
}
