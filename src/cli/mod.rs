//! The command line: one file per command; the only room that prints. It formats and calls, others decide.

mod context;
pub mod error;
mod names;
pub mod out;
mod signals;
pub mod text;
mod view;
mod confirm;
mod worker;
mod publish;
mod status;
mod top;
mod dash;
mod jobs;
mod lane;
mod limits;
mod pause;
mod audit;
mod plan;
mod retry;
mod edit;
mod dead;
mod export;
mod bulk;
mod operation;
mod ops;
mod config;
mod migrate;
mod completions;
mod demo;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use context::{Context, Globals};
use error::{CliError, Exit};

const EXAMPLES: &str = "\
Examples:
  lanes demo
      watch it work for twenty seconds, with nothing installed
  lanes worker
      consume all configured lanes and call their endpoints
  lanes dash --listen 127.0.0.1:9465 --read-only
      serve the dashboard alone; a worker serves it as well, at http.listen
  lanes publish bulk --endpoint crm --id contact-42 --data '{\"name\":\"Ada\"}'
      publish one job; the same id within the deduplication window is called once
  lanes publish bulk --endpoint crm --from contacts.ndjson
      publish a file, one job per line; after an interruption go on with --resume
  lanes limits set crm 50/1m --tenant acme --for 2h
      slow one tenant down for two hours, also for the jobs that wait already
  lanes lane pause bulk --for 15m --note \"the CRM is being moved\"
      hold a lane back for a while; it goes on by itself, or with lanes lane resume
  lanes dead retry --lane bulk --reason exhausted
      put dead letters back to work, after showing what would happen

Exit codes: 0 ok, 1 failed, 2 usage or configuration, 3 unhealthy, 5 not found, 6 duplicate, 7 partial success.";

/// A durable queue worker with priority lanes for calling rate-limited HTTP APIs.
#[derive(Debug, Parser)]
#[command(name = "lanes", version, about, after_help = EXAMPLES, arg_required_else_help = true, max_term_width = 110)]
struct Cli {
    #[command(flatten)]
    globals: Globals,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Watch lanes work against an API that limits its callers; needs nothing installed
    Demo(demo::DemoArgs),
    /// Consume lanes and call endpoints, until a signal
    Worker(worker::WorkerArgs),
    /// Publish one job, or a file of them
    Publish(Box<publish::PublishArgs>),
    /// Show lanes, waiting jobs and workers; exit 3 when something needs attention
    Status(status::StatusArgs),
    /// Watch it on this terminal: health, lanes, who waits, budgets, workers; tab switches, q ends
    Top(top::TopArgs),
    /// Serve the dashboard alone, of workers that run elsewhere
    Dash(dash::DashArgs),
    /// Look at jobs, cancel them, run them again
    #[command(subcommand)]
    Jobs(jobs::JobsCommand),
    /// Look at lanes, pause and resume them while workers run
    #[command(subcommand)]
    Lane(lane::LaneCommand),
    /// Look at budgets and what holds calls back; set limits, pause endpoints and tenants while workers run
    #[command(subcommand)]
    Limits(limits::LimitsCommand),
    /// Show who changed what while workers ran: pauses and limits
    Audit(audit::AuditArgs),
    /// Look at dead letters, put them back to work or delete them
    #[command(subcommand)]
    Dead(dead::DeadCommand),
    /// Look at operations on many dead letters or jobs, watch or cancel one
    #[command(subcommand)]
    Ops(ops::OpsCommand),
    /// Simulate a load: when each lane drains, what waits, which budget is too small; exit 3 when it can't be met
    Plan(Box<plan::PlanArgs>),
    /// Check the configuration, or show what is in effect
    #[command(subcommand)]
    Config(config::ConfigCommand),
    /// Bring the schema of the store up to date
    Migrate,
    /// Print a completion script for a shell
    Completions(completions::CompletionsArgs),
}

/// Runs the program: reads the command line, does what it says, answers the exit code.
pub fn main() -> ExitCode {
    let cli = Cli::try_parse().unwrap_or_else(|error| refuse(&error));
    let json = cli.globals.json;
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            CliError::failed(format!("cannot start: {error}")).report(json);
            return ExitCode::from(Exit::Failed as u8);
        }
    };
    let ended = runtime.block_on(run(cli));
    // a thread that still reads a terminal must not hold up the end
    runtime.shutdown_background();
    let exit = ended.unwrap_or_else(|error| {
        error.report(json);
        error.exit()
    });
    ExitCode::from(exit as u8)
}

/// Ends the program: help was asked for, or the command line is wrong.
fn refuse(error: &clap::Error) -> ! {
    if error.use_stderr() && std::env::args_os().any(|arg| arg == "--json") {
        let text = error.to_string();
        let message = text.lines().next().unwrap_or_default().trim_start_matches("error: ");
        CliError::usage(message).help("lanes --help, or --help after a command, shows what there is").report(true);
        std::process::exit(i32::from(Exit::Usage as u8));
    }
    error.exit()
}

async fn run(cli: Cli) -> Result<Exit, CliError> {
    let globals = cli.globals;
    let quiet = || Context::load(&globals, false).map(|(ctx, _)| ctx);
    match cli.command {
        Command::Demo(args) => demo::run(globals.json, args).await,
        Command::Worker(args) => worker::run(&globals, args).await,
        Command::Publish(args) => publish::run(quiet()?, *args).await,
        Command::Status(args) => status::run(quiet()?, args).await,
        Command::Top(args) => top::run(&globals, args).await,
        Command::Dash(args) => dash::run(&globals, args).await,
        Command::Jobs(command) => jobs::run(quiet()?, command).await,
        Command::Lane(command) => lane::run(quiet()?, command).await,
        Command::Audit(args) => audit::run(quiet()?, args).await,
        Command::Limits(command) => limits::run(quiet()?, command).await,
        Command::Dead(command) => dead::run(quiet()?, command).await,
        Command::Ops(command) => ops::run(quiet()?, command).await,
        Command::Plan(args) => plan::run(quiet()?, *args).await,
        Command::Config(command) => config::run(&globals, &command),
        Command::Migrate => migrate::run(quiet()?).await,
        Command::Completions(args) => completions::run(&args),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    #[test]
    fn the_command_line_is_well_formed() {
        super::Cli::command().debug_assert();
    }
}
