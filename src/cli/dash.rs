//! `lanes dash`: the dashboard alone, of an installation whose workers run elsewhere.

use std::io::{IsTerminal as _, Read as _};
use std::net::SocketAddr;

use clap::Args;
use serde_json::json;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use super::context::{Context, Globals};
use super::error::{CliError, Exit};
use super::out::note;
use super::signals::Signals;
use crate::app;
use crate::dash::access;

/// Longest password that is read.
const PASSWORD_BYTES_MAX: u64 = 1024;

/// Arguments of `lanes dash`.
#[derive(Debug, Args)]
pub struct DashArgs {
    /// Where to listen [default: http.listen of the configuration]
    #[arg(long, value_name = "ADDRESS:PORT")]
    listen: Option<SocketAddr>,
    /// Nobody may do more than look
    #[arg(long)]
    read_only: bool,
    /// Read a password from standard input and print its hash, as [http.auth.users] takes it
    #[arg(long, conflicts_with_all = ["listen", "read_only"])]
    hash_password: bool,
}

/// Runs it until a signal.
pub async fn run(globals: &Globals, args: DashArgs) -> Result<Exit, CliError> {
    if args.hash_password {
        return hash_password(globals);
    }
    let (mut ctx, loaded) = Context::load(globals, true)?;
    for warning in &loaded.warnings {
        tracing::warn!("{warning}");
    }
    let stop = CancellationToken::new();
    let listened = Signals::listen();
    let mut signals = listened.map_err(|error| CliError::failed(format!("cannot listen to signals: {error}")))?;
    let (bound, address) = oneshot::channel();
    let (listen, clock) = (args.listen.unwrap_or(ctx.specs.http.listen), ctx.shared_clock());
    let base = loaded.specs.http.base_path.clone();
    let (asked, read_only, telemetry) = (stop.clone(), args.read_only, ctx.telemetry.clone());
    let serving =
        tokio::spawn(async move { app::run_dash(&loaded, listen, read_only, &telemetry, &clock, bound, asked).await });
    if let Ok(address) = address.await {
        if ctx.out.is_json() {
            ctx.out.document(&json!({ "schema": 1, "url": format!("http://{address}{base}/") }))?;
        } else {
            ctx.out.line(format_args!("dashboard http://{address}{base}/"))?;
        }
        ctx.out.flush()?;
        signals.next().await;
        stop.cancel();
    }
    let ended = serving.await.map_err(|error| CliError::failed(format!("the dashboard failed: {error}")))?;
    ended.map_err(|error| match CliError::from(error) {
        refused if refused.exit() == Exit::Usage => {
            refused.help("set [http.auth] in lanes.toml, or --listen 127.0.0.1:9464")
        }
        failed => failed,
    })?;
    Ok(Exit::Ok)
}

fn hash_password(globals: &Globals) -> Result<Exit, CliError> {
    if std::io::stdin().is_terminal() {
        note("type the password, Enter, then Ctrl-D; it is shown: better pipe it in");
    }
    let mut password = String::new();
    let read = std::io::stdin().take(PASSWORD_BYTES_MAX).read_to_string(&mut password);
    read.map_err(|error| CliError::failed(format!("standard input cannot be read: {error}")))?;
    let password = password.trim_end_matches(['\r', '\n']);
    if password.is_empty() {
        return Err(CliError::usage("standard input holds no password")
            .help("printf %s \"$PASSWORD\" | lanes dash --hash-password"));
    }
    let hash = access::hash_password(password).map_err(CliError::failed)?;
    let mut out = super::out::Out::new(globals.json);
    if globals.json {
        out.document(&json!({ "schema": 1, "hash": hash }))?;
    } else {
        out.line(hash)?;
    }
    out.flush()?;
    Ok(Exit::Ok)
}
