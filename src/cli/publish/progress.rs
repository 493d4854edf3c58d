//! Progress on stderr: a bar on a terminal, a line now and then elsewhere.

use std::io::{self, IsTerminal as _};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

use crate::cli::out::note;
use crate::cli::text::{clean, count, counted};
use crate::clock::Timestamp;

/// Time between two lines where there is no terminal.
const LINE_EVERY: Duration = Duration::from_secs(10);

/// What is told.
#[derive(Debug, Clone, Copy, Default)]
pub struct Standing {
    /// Bytes of the file that are confirmed.
    pub offset: u64,
    /// Jobs confirmed by this run.
    pub published: u64,
    /// Bad lines.
    pub bad_lines: u64,
}

/// Shows how it goes.
#[derive(Debug)]
pub struct ProgressView {
    bar: Option<ProgressBar>,
    started: Timestamp,
    told: Timestamp,
}

impl ProgressView {
    /// Begins. `bytes` = how much there is, where that is known.
    pub fn begin(bytes: Option<u64>, from: u64, now: Timestamp) -> Self {
        let bar = io::stderr().is_terminal().then(|| bar(bytes, from));
        Self { bar, started: now, told: now }
    }

    /// Shows where it stands.
    pub fn show(&mut self, standing: Standing, now: Timestamp) {
        if let Some(bar) = &self.bar {
            bar.set_position(standing.offset);
            bar.set_message(self.sentence(standing, now));
        } else if now.since(self.told) >= LINE_EVERY {
            self.told = now;
            note(self.sentence(standing, now));
        }
    }

    /// Says something beside the progress.
    pub fn say(&self, text: &str) {
        match &self.bar {
            Some(bar) => bar.suspend(|| note(text)),
            None => note(text),
        }
    }

    /// Takes the bar away.
    pub fn end(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }

    fn sentence(&self, standing: Standing, now: Timestamp) -> String {
        let rate = per_second(standing.published, now.since(self.started));
        let mut text = format!("{} published, {}/s", count(standing.published), count(rate));
        if standing.bad_lines > 0 {
            text = format!("{text}, {}", counted(standing.bad_lines, "bad line"));
        }
        clean(&text)
    }
}

/// Things per second, rounded.
#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a rounded, positive rate for people"
)]
pub fn per_second(things: u64, time: Duration) -> u64 {
    (things as f64 / time.as_secs_f64().max(0.001)).round() as u64
}

fn bar(bytes: Option<u64>, from: u64) -> ProgressBar {
    let (bar, template) = match bytes {
        Some(bytes) => (ProgressBar::new(bytes), "{wide_bar} {percent}% {msg} {eta} left"),
        None => (ProgressBar::new_spinner(), "{spinner} {msg}"),
    };
    bar.set_position(from);
    bar.reset_eta();
    bar.with_style(ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar()))
}
