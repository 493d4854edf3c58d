//! How a command ends: its exit code, and errors as people and programs see them.

use std::io::{self, Write as _};

use serde_json::json;

use super::text::clean;
use crate::app::AppError;
use crate::broker::PublishError;
use crate::config::{Problem, Problems};
use crate::governor::operator::OperatorError;
use crate::store::StoreError;

/// Exit codes, a contract with scripts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// Everything that was asked for is done.
    Ok = 0,
    /// It failed.
    Failed = 1,
    /// The command line or the configuration is wrong; nothing was tried.
    Usage = 2,
    /// `lanes status` found something that needs a person, or `lanes plan` something that can't be met.
    Unhealthy = 3,
    /// There is no such job or dead letter.
    NotFound = 5,
    /// The publish is a duplicate (`--fail-on-duplicate`).
    Duplicate = 6,
    /// Some of it is done.
    Partial = 7,
    /// Ended by Ctrl-C.
    Interrupted = 130,
    /// Ended by SIGTERM.
    Terminated = 143,
}

/// Why a command could not do what it was asked for.
#[derive(Debug)]
pub struct CliError {
    exit: Exit,
    message: String,
    help: Option<String>,
    problems: Vec<Problem>,
}

impl CliError {
    /// An error that ends with `exit`.
    pub fn new(exit: Exit, message: impl Into<String>) -> Self {
        Self { exit, message: message.into(), help: None, problems: Vec::new() }
    }

    /// It was tried and failed.
    pub fn failed(message: impl Into<String>) -> Self {
        Self::new(Exit::Failed, message)
    }

    /// The command line asks for something that cannot be.
    pub fn usage(message: impl Into<String>) -> Self {
        Self::new(Exit::Usage, message)
    }

    /// There is no such thing.
    pub fn not_found(message: impl Into<String>) -> Self {
        Self::new(Exit::NotFound, message)
    }

    /// What to do about it.
    #[must_use]
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// The exit code.
    pub fn exit(&self) -> Exit {
        self.exit
    }

    /// What is wrong.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// Writes it to stderr. An error without a text (a closed pipe) is not worth a line.
    pub fn report(&self, as_json: bool) {
        if self.message.is_empty() {
            return;
        }
        let mut stderr = io::stderr().lock();
        // nobody is left to be told when stderr is closed
        let _ =
            if as_json { writeln!(stderr, "{}", self.to_json()) } else { stderr.write_all(self.to_text().as_bytes()) };
    }

    fn to_text(&self) -> String {
        use std::fmt::Write as _;
        let mut text = String::new();
        for problem in &self.problems {
            let _ = writeln!(text, "{problem}\n"); // writing to a String cannot fail
        }
        let _ = writeln!(text, "error: {}", clean(&self.message));
        if let Some(help) = &self.help {
            let _ = writeln!(text, "  {}", clean(help));
        }
        text
    }

    fn to_json(&self) -> serde_json::Value {
        let mut error = json!({ "message": self.message, "help": self.help, "exit_code": self.exit as u8 });
        if !self.problems.is_empty() {
            let problem = |p: &Problem| json!({ "place": p.place.short(), "message": p.message, "help": p.help });
            error["problems"] = self.problems.iter().map(problem).collect();
        }
        json!({ "schema": 1, "error": error })
    }
}

impl From<io::Error> for CliError {
    /// Of writing to stdout.
    fn from(error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::BrokenPipe {
            // `lanes jobs list | head`: the reader has what it wanted
            return Self::new(Exit::Ok, "");
        }
        Self::failed(format!("cannot write to standard output: {error}"))
    }
}

impl From<Problems> for CliError {
    fn from(problems: Problems) -> Self {
        let count = problems.0.len();
        let noun = if count == 1 { "problem" } else { "problems" };
        Self {
            exit: Exit::Usage,
            message: format!("{count} {noun} in the configuration"),
            help: None,
            problems: problems.0,
        }
    }
}

impl From<AppError> for CliError {
    fn from(error: AppError) -> Self {
        let exit = match &error {
            AppError::Url(_) | AppError::Dispatch(_) | AppError::Unguarded(_) => Exit::Usage,
            AppError::Database(_)
            | AppError::Store(_)
            | AppError::Broker(_)
            | AppError::Http(_)
            | AppError::Worker(_) => Exit::Failed,
        };
        Self::new(exit, error.to_string())
    }
}

impl From<StoreError> for CliError {
    fn from(error: StoreError) -> Self {
        Self::failed(error.to_string()).help("check [store] url in the configuration, and that it can be reached")
    }
}

impl From<OperatorError> for CliError {
    fn from(error: OperatorError) -> Self {
        match error {
            OperatorError::Wrong(why) => Self::usage(why),
            OperatorError::Store(error) => error.into(),
        }
    }
}

impl From<PublishError> for CliError {
    fn from(error: PublishError) -> Self {
        let help = match &error {
            PublishError::Unroutable { .. } => "nothing was stored; `lanes worker` creates the queues of its lanes",
            PublishError::Nacked(_) => "nothing is known to be stored; publishing the same --id again is safe",
            PublishError::Unconfirmed(_) => "it may or may not be stored; publishing the same --id again is safe",
            PublishError::Unavailable(_) => {
                "nothing was sent; check [broker] url in the configuration, and that it can be reached"
            }
        };
        Self::failed(error.to_string()).help(help)
    }
}
