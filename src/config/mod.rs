//! A border: reads `lanes.toml` and the environment into [`Specs`], or says everything that is wrong at once.

mod budgets;
mod document;
mod endpoints;
mod general;
mod http;
mod lanes;
mod later;
mod limits;
mod notify;
pub mod problem;
mod reader;
mod secret;
mod show;
pub mod specs;
mod traces;
mod value;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io::{self, Read as _};
use std::path::Path;

use self::problem::Source;
pub use self::problem::{Place, Problem, Problems};
pub use self::reader::{ReadFile, Setting};
use self::reader::{Reader, Session};
pub use self::show::{show, show_json};
pub use self::specs::Specs;

/// The default file, which is also the documentation of every setting.
pub const DEFAULT_FILE: &str = include_str!("../../lanes.toml");
/// Where the file is looked for when nobody says where.
pub const FILE_NAME: &str = "lanes.toml";
/// The variable that says where the file is.
pub const FILE_VARIABLE: &str = "LANES_CONFIG";
/// Shown as the source when there is no file.
const BUILT_IN: &str = "built-in defaults";
/// Most bytes of a configuration or secret file.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// A configuration without problems.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// What it says.
    pub specs: Specs,
    /// The file it was read from, or that there was none.
    pub source: String,
    /// What is doubtful, or accepted without effect: one line each.
    pub warnings: Vec<String>,
    /// Every effective setting and its origin, secrets masked.
    pub settings: Vec<Setting>,
}

/// Reads the file at `path`, else where `LANES_CONFIG` says, else `lanes.toml` here if there is one, else the built-in
/// default; then puts the variables `LANES_TABLE__KEY` of `env` over it.
///
/// # Errors
/// Everything that is wrong, each with its place and advice.
pub fn load(path: Option<&Path>, env: &BTreeMap<String, String>) -> Result<Loaded, Problems> {
    let variable = env.get(FILE_VARIABLE).filter(|text| !text.is_empty()).map(Path::new);
    let explicit = path.or(variable);
    let file = explicit.unwrap_or(Path::new(FILE_NAME));
    let name = file.display().to_string();
    match read_file(file) {
        Ok(text) => read(&name, &text, env, &read_file),
        Err(error) if error.kind() == io::ErrorKind::NotFound && explicit.is_none() => read_default(env, &read_file),
        Err(error) => {
            let help = match (path, variable) {
                (None, Some(_)) => Some(format!("{FILE_VARIABLE} says to read it")),
                _ => None,
            };
            let message = format!("the configuration cannot be read: {error}");
            Err(Problems::new(vec![Problem { place: Place::Whole(name), message, help }]))
        }
    }
}

/// The same for a text at hand, shown as `name`; `files` reads the files that secrets are in.
///
/// # Errors
/// Everything that is wrong.
pub fn read(name: &str, text: &str, env: &BTreeMap<String, String>, files: ReadFile<'_>) -> Result<Loaded, Problems> {
    read_source(name, text, false, env, files)
}

/// The same for the built-in default.
///
/// # Errors
/// Everything that is wrong with `env`.
pub fn read_default(env: &BTreeMap<String, String>, files: ReadFile<'_>) -> Result<Loaded, Problems> {
    read_source(BUILT_IN, DEFAULT_FILE, true, env, files)
}

fn read_source(
    name: &str,
    text: &str,
    built_in: bool,
    env: &BTreeMap<String, String>,
    read_file: ReadFile<'_>,
) -> Result<Loaded, Problems> {
    let mut source = Source { name, text, secret: Vec::new() };
    let mut table = document::parse(&mut source).map_err(Problems::new)?;
    let problems = RefCell::new(document::overlay(&mut table, env));
    let (warnings, settings) = (RefCell::default(), RefCell::default());
    let session = Session { source, built_in, env, read_file, problems, warnings, settings };
    let specs = Reader::root(&session, &table, specs);
    let problems = session.problems.into_inner();
    if !problems.is_empty() {
        return Err(Problems::new(problems));
    }
    let (warnings, settings) = (session.warnings.into_inner(), session.settings.into_inner());
    Ok(Loaded { specs, source: name.to_owned(), warnings, settings })
}

fn specs(root: &Reader<'_>) -> Specs {
    let (broker, store) = general::queues(root);
    let http = http::http(root);
    let (dedup_window, retention) = general::windows(root);
    let worker = general::worker(root);
    let log = general::log(root);
    let telemetry = traces::traces(root);
    let lanes = lanes::read(root);
    let (endpoints, budgets) = endpoints::read(root);
    let tenants = limits::tenants(root, &budgets);
    let notify = notify::sinks(root);
    later::schedules(root);
    Specs { broker, store, http, dedup_window, worker, retention, log, telemetry, lanes, endpoints, tenants, notify }
}

fn read_file(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    let read = std::fs::File::open(path)?.take(FILE_BYTES_MAX + 1).read_to_string(&mut text)?;
    if read as u64 > FILE_BYTES_MAX {
        return Err(io::Error::other(format!("it is larger than {FILE_BYTES_MAX} bytes")));
    }
    Ok(text)
}
