//! `lanes publish --from`: a file of jobs, two batches in flight, resumable at the last confirmed line.

use std::collections::VecDeque;
use std::io::{self, BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::json;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::batch::{self, BadLine, Batch, Mark, Rules};
use super::checkpoint::{self, Checkpoint, Progress};
use super::progress::{ProgressView, Standing, per_second};
use super::template::Template;
use super::{PublishArgs, STDIN};
use crate::broker::PublishError;
use crate::cli::context::Context;
use crate::cli::error::{CliError, Exit};
use crate::cli::out::note;
use crate::cli::signals::Signals;
use crate::cli::text::{count, counted, duration};
use crate::clock::{self, Clock as _, SharedClock, Timestamp};
use crate::publish::{NewJob, Publisher};

/// Batches published and not yet confirmed.
const IN_FLIGHT: usize = 2;
/// How long an unreachable broker is waited for before the run gives up (and can be resumed).
const OUTAGE_MAX: Duration = Duration::from_mins(1);
/// Time between two tries at an unreachable broker.
const OUTAGE_WAIT: Duration = Duration::from_secs(1);
/// Least time between two writes of the progress file.
const CHECKPOINT_EVERY: Duration = Duration::from_millis(200);
/// Shorter runs are told with tenths of a second.
const TENTHS_BELOW: Duration = Duration::from_mins(1);
/// Most bad lines that are told one by one.
const BAD_TOLD_MAX: u64 = 20;
/// Most bad lines in the JSON totals.
const BAD_LISTED_MAX: usize = 100;

/// Where lines come from.
struct Source {
    path: Option<PathBuf>,
    checkpoint: Option<Checkpoint>,
    key: Option<String>,
    earlier: Option<Progress>,
}

/// What has been done.
#[derive(Debug, Default)]
struct Totals {
    published: u64,
    refused: u64,
    bad_lines: u64,
    bad: Vec<BadLine>,
    error: Option<CliError>,
    signal: Option<Exit>,
    end: Mark,
}

/// Runs it.
pub async fn run(mut ctx: Context, args: &PublishArgs, from: &Path, template: Template) -> Result<Exit, CliError> {
    let source = source(args, from)?;
    let (input, mark) = open(&source)?;
    let size = source.path.as_ref().and_then(|path| std::fs::metadata(path).ok()).map(|meta| meta.len());
    let rules = Rules { template, key: source.key.clone() };
    let batches =
        batch::spawn(input, rules, mark).map_err(|error| CliError::failed(format!("cannot start: {error}")))?;
    let started = ctx.clock.now();
    let mut run = Run {
        publisher: if args.dry_run { None } else { Some(ctx.publisher().await?) },
        clock: ctx.shared_clock(),
        view: ProgressView::begin(size, mark.offset, started),
        totals: Totals { end: mark, ..Totals::default() },
        saved_at: None,
        source,
    };
    let listened = Signals::listen();
    let signals = listened.map_err(|error| CliError::failed(format!("cannot listen to signals: {error}")))?;
    run.all(batches, signals).await;
    run.view.end();
    let seconds = ctx.clock.now().since(started);
    run.conclude(&mut ctx, seconds)
}

fn source(args: &PublishArgs, from: &Path) -> Result<Source, CliError> {
    if from.as_os_str() == STDIN {
        if args.resume || args.restart {
            return Err(CliError::usage("stdin cannot be resumed").help(
                "give a file, or publish everything again with the same --resume-key: what is known is called once",
            ));
        }
        return Ok(Source { path: None, checkpoint: None, key: args.resume_key.clone(), earlier: None });
    }
    let path =
        from.canonicalize().map_err(|error| CliError::failed(format!("cannot read {}: {error}", from.display())))?;
    let key = args.resume_key.clone().or_else(|| Some(path.to_string_lossy().into_owned()));
    if args.dry_run {
        return Ok(Source { path: Some(path), checkpoint: None, key, earlier: None });
    }
    let checkpoint = Checkpoint::beside(from, &args.lane);
    let earlier = if args.restart { None } else { checkpoint.read()? };
    if let Some(earlier) = &earlier
        && !args.resume
    {
        let message = format!("an earlier run of {} was interrupted, {}", from.display(), standing(earlier));
        return Err(CliError::usage(message).help("go on with --resume, or start over with --restart"));
    }
    if args.resume && earlier.is_none() {
        note("no earlier run was interrupted: publishing from the start");
    }
    Ok(Source { path: Some(path), checkpoint: Some(checkpoint), key, earlier })
}

fn standing(earlier: &Progress) -> String {
    format!("{} confirmed", counted(earlier.published, "job"))
}

fn open(source: &Source) -> Result<(Box<dyn BufRead + Send>, Mark), CliError> {
    match &source.path {
        Some(path) => checkpoint::open(path, source.earlier.as_ref()),
        None => Ok((Box::new(BufReader::with_capacity(1 << 20, io::stdin())), Mark::default())),
    }
}

/// A batch on its way.
struct Sent {
    bad: Vec<BadLine>,
    bad_count: u64,
    end: Mark,
    answers: JoinHandle<Vec<Option<PublishError>>>,
}

struct Run {
    publisher: Option<Publisher>,
    clock: SharedClock,
    view: ProgressView,
    totals: Totals,
    saved_at: Option<Timestamp>,
    source: Source,
}

impl Run {
    /// Reads and publishes until the end, a signal or an error; what is in flight then is waited for.
    async fn all(&mut self, mut batches: mpsc::Receiver<io::Result<Batch>>, mut signals: Signals) {
        let mut in_flight: VecDeque<Sent> = VecDeque::with_capacity(IN_FLIGHT);
        let mut reading = true;
        while reading || !in_flight.is_empty() {
            let room = in_flight.len() < IN_FLIGHT;
            tokio::select! {
                biased;
                signal = signals.next() => {
                    if self.totals.signal.is_some() {
                        return; // asked twice: what is in flight is not waited for
                    }
                    self.totals.signal = Some(signal);
                    self.view.say("stopping: waiting for what is in flight; once more stops at once");
                    reading = false;
                    batches.close();
                }
                answers = front(&mut in_flight), if !in_flight.is_empty() => {
                    if let Some(sent) = in_flight.pop_front() {
                        self.ended(sent, answers);
                    }
                    reading &= self.totals.error.is_none();
                }
                batch = batches.recv(), if reading && room => match batch {
                    Some(Ok(batch)) => in_flight.push_back(self.send(batch)),
                    Some(Err(error)) => {
                        self.totals.error = Some(CliError::failed(format!("cannot read on: {error}")));
                        reading = false;
                    }
                    None => reading = false,
                },
            }
        }
    }

    fn send(&mut self, batch: Batch) -> Sent {
        let Batch { jobs, bad, bad_count, end } = batch;
        let (publisher, clock) = (self.publisher.clone(), self.clock.clone());
        let answers = tokio::spawn(async move {
            match publisher {
                Some(publisher) => publish(&publisher, &clock, jobs).await,
                None => vec![None; jobs.len()],
            }
        });
        Sent { bad, bad_count, end, answers }
    }

    /// Counts a batch whose publishing has ended, and remembers how far everything is confirmed.
    fn ended(&mut self, sent: Sent, answers: Vec<Option<PublishError>>) {
        let refused = answers.iter().flatten().count() as u64;
        self.totals.published += answers.len() as u64 - refused;
        self.totals.refused += refused;
        if let Some(error) = answers.into_iter().flatten().next() {
            self.totals.error.get_or_insert_with(|| error.into());
        }
        let now = self.clock.now();
        if self.totals.error.is_none() {
            self.tell_bad(sent.bad, sent.bad_count);
            self.totals.end = sent.end;
            if self.saved_at.is_none_or(|saved_at| now.since(saved_at) >= CHECKPOINT_EVERY) {
                self.saved_at = Some(now);
                self.save();
            }
        }
        let Totals { published, bad_lines, end, .. } = self.totals;
        self.view.show(Standing { offset: end.offset, published, bad_lines }, now);
    }

    fn tell_bad(&mut self, bad: Vec<BadLine>, bad_count: u64) {
        for (bad, number) in bad.iter().zip(self.totals.bad_lines..) {
            match number {
                ..BAD_TOLD_MAX => self.view.say(&format!("line {}: {}", bad.line, bad.error)),
                BAD_TOLD_MAX => self.view.say("more bad lines follow; they are only counted"),
                _ => {}
            }
        }
        self.totals.bad_lines += bad_count;
        let room = BAD_LISTED_MAX.saturating_sub(self.totals.bad.len());
        self.totals.bad.extend(bad.into_iter().take(room));
    }

    fn save(&mut self) {
        let Some(checkpoint) = &self.source.checkpoint else { return };
        let (published, bad_lines) = self.over_all_runs();
        if let Err(error) = checkpoint.write(self.totals.end, published, bad_lines) {
            let path = checkpoint.path().display();
            self.view.say(&format!("cannot write {path}, so this run cannot be resumed: {error}"));
            self.source.checkpoint = None;
        }
    }

    fn over_all_runs(&self) -> (u64, u64) {
        let (published, bad) = self.source.earlier.as_ref().map_or((0, 0), |told| (told.published, told.bad_lines));
        (published + self.totals.published, bad + self.totals.bad_lines)
    }

    /// Totals on stdout, how to go on on stderr, and the exit code.
    fn conclude(mut self, ctx: &mut Context, took: Duration) -> Result<Exit, CliError> {
        let complete = self.totals.error.is_none() && self.totals.signal.is_none();
        if complete {
            if let Some(Err(error)) = self.source.checkpoint.as_ref().map(Checkpoint::remove) {
                note(format_args!("cannot remove the progress file: {error}"));
            }
        } else if self.totals.end.offset > 0 {
            self.save();
        }
        let (published_before, _) =
            self.source.earlier.as_ref().map_or((0, 0), |told| (told.published, told.bad_lines));
        let resumable = !complete && self.source.checkpoint.is_some();
        let totals = self.totals;
        let rate = per_second(totals.published, took);
        let dry_run = self.publisher.is_none();
        if ctx.out.is_json() {
            let bad: Vec<_> = totals.bad.iter().map(|bad| json!({ "line": bad.line, "error": bad.error })).collect();
            ctx.out.document(&json!({
                "schema": 1, "complete": complete, "dry_run": dry_run, "published": totals.published,
                "published_before": published_before, "refused": totals.refused, "bad_lines": totals.bad_lines,
                "bad": bad, "lines": totals.end.line, "seconds": took.as_secs_f64(), "per_second": rate,
                "resumable": resumable,
            }))?;
        } else {
            let verb = if dry_run { "would publish" } else { "published" };
            let (jobs, bad) = (counted(totals.published, "job"), counted(totals.bad_lines, "bad line"));
            let time = if took < TENTHS_BELOW { format!("{:.1}s", took.as_secs_f64()) } else { duration(took) };
            let (rate, refused) = (count(rate), count(totals.refused));
            ctx.out.line(format_args!("{verb} {jobs} in {time} ({rate}/s), {refused} refused, {bad}"))?;
        }
        ctx.out.flush()?;
        if resumable {
            note(format_args!("not everything was published; go on with the same command and --resume"));
        }
        match (totals.error, totals.signal) {
            (Some(error), _) => Err(error),
            (None, Some(signal)) => Ok(signal),
            (None, None) if totals.bad_lines == 0 => Ok(Exit::Ok),
            (None, None) if totals.published + published_before > 0 => Ok(Exit::Partial),
            (None, None) => Ok(Exit::Failed),
        }
    }
}

/// The answers of the oldest batch in flight. Cancel-safe: the batch stays where it is.
async fn front(in_flight: &mut VecDeque<Sent>) -> Vec<Option<PublishError>> {
    let Some(sent) = in_flight.front_mut() else { return std::future::pending().await };
    match (&mut sent.answers).await {
        Ok(answers) => answers,
        Err(error) => vec![Some(PublishError::Unconfirmed(format!("the publishing task failed: {error}")))],
    }
}

/// Publishes a batch and waits for an unreachable broker for a while; answers what failed, in order.
async fn publish(publisher: &Publisher, clock: &SharedClock, jobs: Vec<NewJob>) -> Vec<Option<PublishError>> {
    let mut failures: Vec<Option<PublishError>> = vec![None; jobs.len()];
    let mut open: Vec<usize> = (0..jobs.len()).collect();
    let mut gone_since: Option<Timestamp> = None;
    loop {
        let answers = publisher.publish(open.iter().map(|&at| jobs[at].clone()).collect()).await;
        let mut unsent = Vec::new();
        for (at, answer) in open.into_iter().zip(answers) {
            failures[at] = answer.err();
            if matches!(failures[at], Some(PublishError::Unavailable(_))) {
                unsent.push(at);
            }
        }
        let Some(first) = unsent.first() else { return failures };
        let now = clock.now();
        if gone_since.is_none()
            && let Some(why) = &failures[*first]
        {
            super::waiting_for_broker(&why.to_string());
        }
        if now.since(*gone_since.get_or_insert(now)) >= OUTAGE_MAX {
            return failures;
        }
        clock::sleep(&**clock, OUTAGE_WAIT).await;
        open = unsent;
    }
}
