//! The demo's directory: database, configuration and log, and its removal at the end.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use uuid::Uuid;

use super::super::error::CliError;
use super::traffic::{BULK, ENDPOINT, REALTIME};
use crate::config::{self, Specs};
use crate::telemetry::logs;

/// What is logged, to the file.
const LOG_LEVEL: &str = "info";

/// The directory. Removed when dropped, unless it is to be kept.
#[derive(Debug)]
pub struct Home {
    dir: PathBuf,
    kept: bool,
}

impl Home {
    /// A temporary directory, or `keep`, which must not hold an earlier demo: its jobs would be taken for ours.
    ///
    /// # Errors
    /// It cannot be created, or is in use.
    pub fn prepare(keep: Option<&Path>) -> Result<Self, CliError> {
        let (dir, kept) = match keep {
            Some(dir) => (std::path::absolute(dir).unwrap_or_else(|_| dir.to_owned()), true),
            None => (std::env::temp_dir().join(temporary_name()), false),
        };
        let shown = dir.display().to_string();
        let created = if kept { fs::create_dir_all(&dir) } else { fs::create_dir(&dir) };
        created.map_err(|error| CliError::failed(format!("cannot create {shown}: {error}")))?;
        let home = Self { dir, kept };
        if home.database().exists() {
            return Err(CliError::usage(format!("{shown} holds an earlier demo"))
                .help("name a new directory, or remove that one"));
        }
        Ok(home)
    }

    /// Where everything is.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    fn database(&self) -> PathBuf {
        self.dir.join("lanes.db")
    }

    /// The configuration.
    pub fn config(&self) -> PathBuf {
        self.dir.join("lanes.toml")
    }

    fn log(&self) -> PathBuf {
        self.dir.join("lanes.log")
    }

    /// Sends the log of this process to a file, so that it does not run through the picture.
    ///
    /// # Errors
    /// The file cannot be created.
    pub fn start_log(&self) -> Result<(), CliError> {
        let path = self.log();
        let what = || format!("cannot write the log {}", path.display());
        let file = File::create(&path).map_err(|error| CliError::failed(format!("{}: {error}", what())))?;
        let subscriber = logs::subscriber(logs::Format::Text, LOG_LEVEL, false, Mutex::new(file))
            .map_err(|error| CliError::failed(format!("{}: {error}", what())))?;
        tracing::subscriber::set_global_default(subscriber)
            .map_err(|error| CliError::failed(format!("{}: {error}", what())))
    }

    /// Writes the demo's lanes.toml and reads it as every other one is read; the environment has no say in it.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn configure(&self, api: SocketAddr, metrics_port: u16) -> Result<Specs, CliError> {
        let path = self.config();
        fs::write(&path, text(&self.database(), api, metrics_port))
            .map_err(|error| CliError::failed(format!("cannot write {}: {error}", path.display())))?;
        Ok(config::load(Some(&path), &BTreeMap::new())?.specs)
    }

    /// What to do next, for a person.
    pub fn farewell(&self) -> String {
        let next = "Next: `lanes --help`, and the README for a configuration of your own.";
        if !self.kept {
            return next.to_owned();
        }
        let dir = self.dir.display();
        format!("{next}\nKept in {dir}: look around with `lanes --config {dir}/lanes.toml dead list`.")
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        if !self.kept
            && let Err(error) = fs::remove_dir_all(&self.dir)
        {
            tracing::warn!(dir = %self.dir.display(), %error, "the demo's directory was not removed");
        }
    }
}

/// Short enough to be typed, and different for demos that run at the same time.
fn temporary_name() -> String {
    let random = Uuid::new_v4().simple().to_string();
    format!("lanes-demo-{}", &random[..8])
}

fn text(database: &Path, api: SocketAddr, metrics_port: u16) -> String {
    // TOML's quoting, whatever the path holds
    let url = toml::Value::String(format!("sqlite:{}", database.display()));
    format!(
        r#"# Written by `lanes demo`. Waits are seconds here where production waits minutes.
[broker]
url = {url}
[store]
url = {url}
[http]
listen = "127.0.0.1:{metrics_port}"

[lanes.{REALTIME}]                  # webhooks
concurrency = 16
[lanes.{REALTIME}.retry]
max_attempts = 20
first_delay = "500ms"
max_delay = "8s"

[lanes.{BULK}]                      # the import
concurrency = 8
[lanes.{BULK}.retry]
max_attempts = 20
first_delay = "500ms"               # 0.5, 1, 2, 4, 8 s
max_delay = "8s"

[endpoints.{ENDPOINT}]
url = "http://{api}/contacts"
timeout = "5s"
"#
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_configuration_is_legal_whatever_the_path() {
        let address = SocketAddr::from(([127, 0, 0, 1], 8_080));
        let text = text(Path::new("/tmp/it's \"here\"/lanes.db"), address, 0);
        let loaded =
            config::read("demo", &text, &BTreeMap::new(), &|_: &Path| Err(std::io::ErrorKind::NotFound.into()))
                .unwrap_or_else(|problems| panic!("{problems}"));
        assert_eq!(loaded.warnings, Vec::<String>::new());
        assert_eq!(loaded.specs.lanes.len(), 2);
    }
}
