//! Turns a file into batches of jobs on a thread of its own, at most a few ahead of what is being published.

use std::io::{self, BufRead};

use tokio::sync::mpsc;

use super::line;
use super::reader::{Line, Lines};
use super::template::{BODY_BYTES_MAX, Template};
use crate::publish::NewJob;

/// Most jobs of a batch.
pub const BATCH_JOBS_MAX: usize = 1_000;
/// Most bytes of the lines of a batch.
pub const BATCH_BYTES_MAX: u64 = 8 << 20;
/// Batches read ahead.
pub const READ_AHEAD: usize = 2;
/// Most bytes of a line: a body and everything else that it may say.
const LINE_BYTES_MAX: usize = BODY_BYTES_MAX + (64 << 10);
/// Most bad lines of a batch that are told one by one.
const BAD_KEPT_MAX: usize = 100;

/// How far a file was read: everything before `offset` is in this batch or an earlier one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Mark {
    /// Bytes read.
    pub offset: u64,
    /// Lines read.
    pub line: u64,
    /// Where the last line that was read begins.
    pub last_start: u64,
    /// Its hash.
    pub last_hash: [u8; 32],
}

/// A line that is no job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BadLine {
    /// Its number.
    pub line: u64,
    /// What is wrong with it.
    pub error: String,
}

/// Some lines, read.
#[derive(Debug, Default)]
pub struct Batch {
    /// The good ones.
    pub jobs: Vec<NewJob>,
    /// The first bad ones.
    pub bad: Vec<BadLine>,
    /// How many bad ones.
    pub bad_count: u64,
    /// Where they end.
    pub end: Mark,
}

impl Batch {
    fn refuse(&mut self, line: u64, error: String) {
        self.bad_count += 1;
        if self.bad.len() < BAD_KEPT_MAX {
            self.bad.push(BadLine { line, error });
        }
    }

    fn is_full(&self, begin: u64) -> bool {
        let lines = self.jobs.len() + usize::try_from(self.bad_count).unwrap_or(usize::MAX);
        lines >= BATCH_JOBS_MAX || self.end.offset - begin >= BATCH_BYTES_MAX
    }
}

/// What lines become jobs with.
#[derive(Debug)]
pub struct Rules {
    /// Defaults.
    pub template: Template,
    /// What ids are made of.
    pub key: Option<String>,
}

/// Reads `input`, which stands at `from`, to its end, on a thread of its own. That thread is not waited for at the end of
/// the program: it may hang in a read of a terminal.
pub fn spawn(
    input: Box<dyn BufRead + Send>,
    rules: Rules,
    from: Mark,
) -> io::Result<mpsc::Receiver<io::Result<Batch>>> {
    let (sender, receiver) = mpsc::channel(READ_AHEAD);
    std::thread::Builder::new().name("lanes-reader".to_owned()).spawn(move || {
        let mut lines = Lines::new(input, LINE_BYTES_MAX, from.line, from.offset);
        let mut mark = from;
        loop {
            let batch = next(&mut lines, &rules, mark);
            match &batch {
                Ok(None) => return,
                Ok(Some(batch)) => mark = batch.end,
                Err(_) => {}
            }
            let failed = batch.is_err();
            // an error means that nobody publishes any more
            if sender.blocking_send(batch.map(Option::unwrap_or_default)).is_err() || failed {
                return;
            }
        }
    })?;
    Ok(receiver)
}

fn next(lines: &mut Lines<Box<dyn BufRead + Send>>, rules: &Rules, from: Mark) -> io::Result<Option<Batch>> {
    let mut batch = Batch { end: from, ..Batch::default() };
    while !batch.is_full(from.offset) {
        let Some(line) = lines.advance()? else { break };
        take(&mut batch, rules, line, lines.text());
    }
    Ok((batch.end != from).then_some(batch))
}

fn take(batch: &mut Batch, rules: &Rules, line: Line, text: &[u8]) {
    let Line { number, start, end, too_long } = line;
    batch.end = Mark { offset: end, line: number, last_start: start, last_hash: line::hash(text) };
    if too_long {
        batch.refuse(number, format!("is longer than {LINE_BYTES_MAX} bytes"));
    } else if !text.trim_ascii().is_empty() {
        match line::parse(&rules.template, number, text, rules.key.as_deref()) {
            Ok(job) => batch.jobs.push(job),
            Err(error) => batch.refuse(number, error),
        }
    }
}
