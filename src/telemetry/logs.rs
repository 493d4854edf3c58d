//! Where log lines go: text or JSON on stderr, filtered like `info,lanes::job=debug`.

use std::str::FromStr;

use tracing::Subscriber;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;

/// How a line looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Format {
    /// For people.
    #[default]
    Text,
    /// One JSON object per line.
    Json,
}

impl FromStr for Format {
    type Err = LogError;

    fn from_str(text: &str) -> Result<Self, LogError> {
        match text {
            "text" => Ok(Self::Text),
            "json" => Ok(Self::Json),
            _ => Err(LogError::Format(text.to_owned())),
        }
    }
}

/// Why logging cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// No such format.
    #[error("log format {0:?} is unknown: use \"text\" or \"json\"")]
    Format(String),
    /// The filter cannot be read.
    #[error("log filter {filter:?}: {why}; write a level (info) or levels by target (info,lanes::job=debug)")]
    Filter {
        /// As given.
        filter: String,
        /// Why.
        why: String,
    },
    /// This process logs already.
    #[error("logging is already set up in this process")]
    AlreadySet,
}

/// Sends the process's log lines to stderr.
///
/// # Errors
/// [`LogError`] when the filter cannot be read or logging is set up already.
pub fn init(format: Format, filter: &str, color: bool) -> Result<(), LogError> {
    let subscriber = subscriber(format, filter, color, std::io::stderr)?;
    tracing::subscriber::set_global_default(subscriber).map_err(|_| LogError::AlreadySet)
}

/// What [`init`] sets, with another writer: for tests and for programs that embed lanes.
///
/// # Errors
/// [`LogError`] when the filter cannot be read.
pub fn subscriber<W>(
    format: Format,
    filter: &str,
    color: bool,
    writer: W,
) -> Result<Box<dyn Subscriber + Send + Sync>, LogError>
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let filter = EnvFilter::try_new(filter)
        .map_err(|error| LogError::Filter { filter: filter.to_owned(), why: error.to_string() })?;
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(writer);
    Ok(match format {
        Format::Text => Box::new(builder.with_ansi(color).finish()),
        Format::Json => {
            Box::new(builder.json().flatten_event(true).with_current_span(false).with_span_list(false).finish())
        }
    })
}
