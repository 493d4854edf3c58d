//! `lanes demo`: the whole program on one machine with nothing installed, beside an API that limits its callers.

mod api;
mod book;
mod home;
mod limiter;
mod observe;
mod screen;
mod summary;
mod traffic;

use std::io::{self, IsTerminal, Write};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use metrics_exporter_prometheus::PrometheusHandle;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use self::api::Api;
use self::home::Home;
use self::observe::{Observer, Pace};
use self::screen::{Canvas, View};
use self::summary::Summary;
use self::traffic::Traffic;
use super::error::{CliError, Exit};
use super::out::{Out, colors_wanted};
use super::signals::Signals;
use crate::app::{self, AppError, WorkerOptions};
use crate::clock::{self, Clock, SharedClock, SystemClock};
use crate::config::Specs;
use crate::dash::Settings;
use crate::job::LaneName;
use crate::telemetry::Telemetry;
use crate::telemetry::metrics::JOBS_DEDUPLICATED;

/// Time between two pictures.
const DRAW_EVERY: Duration = Duration::from_millis(200);
/// Time between two lines, where there is no screen.
const LINE_EVERY: Duration = Duration::from_secs(1);
/// Webhooks run alone for so long, to see their latency without the import.
const ALONE: Duration = Duration::from_secs(2);
/// Longest wait for the worker to appear in the store.
const START_MAX: Duration = Duration::from_secs(10);
/// After a demo that ended by itself: longest wait for its last webhooks.
const QUIET_MAX: Duration = Duration::from_secs(10);
/// How long the last picture stays before the summary follows.
const LAST_LOOK: Duration = Duration::from_millis(300);
/// Where metrics are looked for first: the port of every worker.
const METRICS_PORT: u16 = 9464;
/// Calls a minute allowed by the API for each record of the import, so that it takes about twenty seconds.
const PER_MINUTE_PER_RECORD: u64 = 3;
/// The least the API allows unless told otherwise: twice what the webhooks need.
const PER_MINUTE_MIN: u64 = 2_400;

const EXAMPLES: &str = "\
Examples:
  lanes demo                              until the import is through, less than half a minute
  lanes demo --for 10m                    for so long, to look around from another terminal
  lanes demo --requests-per-minute 1200   an API that is far too slow for the import
  lanes demo --for 20s --json             the summary for a program

It exits with 0 when nothing was lost and nothing was called twice, else with 1.";

/// Arguments of `lanes demo`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct DemoArgs {
    /// How long it runs [default: until the import is through]
    #[arg(long = "for", value_name = "DURATION", value_parser = duration)]
    run_for: Option<Duration>,
    /// Records of the bulk import
    #[arg(long, value_name = "N", default_value_t = 3_000, value_parser = clap::value_parser!(u32).range(100..=200_000))]
    records: u32,
    /// Calls a minute that the API allows each tenant [default: three for each record]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(60..=10_000_000))]
    requests_per_minute: Option<u64>,
    /// Keep database, configuration and log in this new directory [default: a temporary one, removed at the end]
    #[arg(long, value_name = "DIR")]
    keep: Option<PathBuf>,
}

fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("{text:?} is no duration; write 20s, 5m or 1h");
    let parsed: jiff::SignedDuration = text.parse().map_err(|_| wrong())?;
    let parsed = Duration::try_from(parsed).map_err(|_| wrong())?;
    match parsed.as_secs() {
        2..=3_600 => Ok(parsed),
        _ => Err("a demo takes between 2 seconds and an hour".to_owned()),
    }
}

/// Runs the demo and prints its summary; fails when a promise was broken.
pub async fn run(json: bool, args: DemoArgs) -> Result<Exit, CliError> {
    let clock = SystemClock::new();
    let shared: SharedClock = Arc::new(clock.clone());
    let home = Home::prepare(args.keep.as_deref())?;
    home.start_log()?;
    let per_minute = args
        .requests_per_minute
        .unwrap_or_else(|| (u64::from(args.records) * PER_MINUTE_PER_RECORD).max(PER_MINUTE_MIN));
    let over = CancellationToken::new();
    let _ends_api = over.clone().drop_guard();
    let api = Api::new(per_minute, Arc::clone(&shared));
    let address = api
        .clone()
        .serve(over.clone())
        .await
        .map_err(|error| CliError::failed(format!("the demo's API cannot listen: {error}")))?;
    let (telemetry, handle) = Telemetry::prometheus();
    let (specs, mut worker, metrics) = start_worker(&home, address, &telemetry, &handle, &clock).await?;
    let publisher = app::open_publisher(&specs, &telemetry, &shared, "demo").await?;
    let traffic = Traffic::new(publisher, Arc::clone(&shared));
    let mut observer = Observer {
        api,
        traffic,
        store: app::open_store(&specs).await?,
        broker: app::open_broker(&specs, &shared).await?,
        clock: Arc::clone(&shared),
        began: clock.now(),
        ends_after: args.run_for,
        per_minute,
        records: args.records,
        dashboard: format!("http://{metrics}/"),
        try_next: format!("LANES_CONFIG={} lanes status", home.config().display()),
        slots: observe::slots(&specs),
        pace: Pace::default(),
        import_over: None,
    };
    worker.await_registered(&observer).await?;
    observer.began = clock.now();
    let mut show = Show::new(&observer, &home);
    let ended = play(&args, &mut observer, &mut worker, &mut show).await;
    let finished_at = clock.now();
    worker.stop().await?;
    ended?;
    // the worker has closed what it shared with us: look again with fresh eyes
    observer.store = app::open_store(&specs).await?;
    observer.broker = app::open_broker(&specs, &shared).await?;
    let metrics = handle.render();
    let dropped = |lane: &LaneName| observe::counter(&metrics, JOBS_DEDUPLICATED.name, lane.as_str());
    let summary = observer.settle_accounts(finished_at, dropped).await?;
    observer.broker.close().await;
    report(&summary, json, &home)?;
    Ok(if summary.is_good() { Exit::Ok } else { Exit::Failed })
}

/// Starts the worker; its metrics are at the port of every worker if that is free, else at any.
async fn start_worker(
    home: &Home,
    api: SocketAddr,
    telemetry: &Telemetry,
    handle: &PrometheusHandle,
    clock: &SystemClock,
) -> Result<(Specs, Worker, SocketAddr), CliError> {
    let specs = home.configure(api, METRICS_PORT)?;
    if let Ok((worker, metrics)) = Worker::start(&specs, telemetry, handle.clone(), clock).await {
        return Ok((specs, worker, metrics));
    }
    let specs = home.configure(api, 0)?;
    let (worker, metrics) = Worker::start(&specs, telemetry, handle.clone(), clock).await?;
    Ok((specs, worker, metrics))
}

/// Shows everything until it is time to end; traffic has stopped then, the worker has not.
async fn play(args: &DemoArgs, observer: &mut Observer, worker: &mut Worker, show: &mut Show) -> Result<(), CliError> {
    let stop = CancellationToken::new();
    let alone = args.run_for.map_or(ALONE, |run_for| ALONE.min(run_for / 4));
    let traffic = &observer.traffic;
    let publishing = [
        tokio::spawn(traffic.clone().webhooks(stop.clone())),
        tokio::spawn(traffic.clone().import(args.records, alone, stop.clone())),
    ];
    let ended = watch(args, observer, worker, show).await;
    stop.cancel();
    for task in publishing {
        task.await.map_err(|error| CliError::failed(format!("the demo's worker lost its traffic: {error}")))?;
    }
    if ended? == End::ImportThrough {
        settle_down(observer, show).await?;
    }
    show.draw(&observer.look().await?);
    Ok(())
}

/// Why the show is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Time,
    ImportThrough,
    Signal,
}

async fn watch(
    args: &DemoArgs,
    observer: &mut Observer,
    worker: &mut Worker,
    show: &mut Show,
) -> Result<End, CliError> {
    let mut signals =
        Signals::listen().map_err(|error| CliError::failed(format!("cannot listen to signals: {error}")))?;
    let clock = Arc::clone(&observer.clock);
    loop {
        let view = observer.look().await?;
        show.draw(&view);
        if args.run_for.is_some_and(|run_for| view.elapsed >= run_for) {
            return Ok(End::Time);
        }
        if args.run_for.is_none() && observer.import_over.is_some() {
            return Ok(End::ImportThrough);
        }
        tokio::select! {
            biased;
            _ = signals.next() => {
                end_at_once_on(signals);
                return Ok(End::Signal);
            }
            error = worker.ended() => return Err(error),
            () = clock::sleep(&*clock, show.rhythm()) => {}
        }
    }
}

/// The first signal ends in order; the next one does not wait.
fn end_at_once_on(mut signals: Signals) {
    tokio::spawn(async move {
        let exit = signals.next().await;
        std::process::exit(i32::from(exit as u8));
    });
}

/// Nothing new comes: waits until nothing is left to do, so that the summary has no loose ends.
async fn settle_down(observer: &mut Observer, show: &mut Show) -> Result<(), CliError> {
    let clock = Arc::clone(&observer.clock);
    let until = clock.now().plus(QUIET_MAX);
    loop {
        let view = observer.look().await?;
        show.draw(&view);
        let quiet = view.lanes.iter().all(|lane| lane.queued + lane.busy == 0 && lane.waiting.is_empty());
        if quiet || clock.now() >= until {
            clock::sleep(&*clock, LAST_LOOK).await;
            return Ok(());
        }
        clock::sleep(&*clock, show.rhythm()).await;
    }
}

/// The worker, as `lanes worker` runs it, in this process.
struct Worker {
    stop: CancellationToken,
    task: Option<JoinHandle<Result<(), AppError>>>,
}

impl Worker {
    /// Starts it; answers where its metrics are.
    async fn start(
        specs: &Specs,
        telemetry: &Telemetry,
        metrics: PrometheusHandle,
        clock: &SystemClock,
    ) -> Result<(Self, SocketAddr), CliError> {
        let stop = CancellationToken::new();
        let (bound, address) = oneshot::channel();
        let options =
            WorkerOptions { only: None, metrics, http: true, settings: Settings::default(), bound: Some(bound) };
        let (specs, telemetry, clock, stopped) = (specs.clone(), telemetry.clone(), clock.clone(), stop.clone());
        let task = tokio::spawn(async move { app::run_worker(&specs, options, &telemetry, &clock, stopped).await });
        let mut worker = Self { stop, task: Some(task) };
        match address.await {
            Ok(address) => Ok((worker, address)),
            Err(_) => Err(worker.ended().await),
        }
    }

    async fn await_registered(&mut self, observer: &Observer) -> Result<(), CliError> {
        let until = observer.clock.now().plus(START_MAX);
        loop {
            if !observer.store.workers().await.map_err(AppError::from)?.is_empty() {
                return Ok(());
            }
            if observer.clock.now() >= until {
                return Err(CliError::failed(format!("the demo's worker did not start within {START_MAX:?}")));
            }
            tokio::select! {
                error = self.ended() => return Err(error),
                () = clock::sleep(&*observer.clock, DRAW_EVERY / 10) => {}
            }
        }
    }

    /// Completes only when the worker ends by itself, which it must not.
    async fn ended(&mut self) -> CliError {
        let Some(task) = &mut self.task else { return std::future::pending().await };
        let ended = task.await;
        self.task = None;
        match ended {
            Ok(Ok(())) => CliError::failed("the demo's worker ended by itself"),
            Ok(Err(error)) => error.into(),
            Err(error) => CliError::failed(format!("the demo's worker failed: {error}")),
        }
    }

    /// Ends it in order: calls in flight are finished and settled.
    async fn stop(mut self) -> Result<(), CliError> {
        self.stop.cancel();
        match self.task.take() {
            None => Ok(()),
            Some(task) => {
                Ok(task.await.map_err(|error| CliError::failed(format!("the demo's worker failed: {error}")))??)
            }
        }
    }
}

/// How the demo is shown.
enum Show {
    Screen(Canvas),
    Lines,
}

impl Show {
    /// A screen when a person looks at one, else lines. Says first what is there.
    fn new(observer: &Observer, home: &Home) -> Self {
        if io::stderr().is_terminal() && io::stdout().is_terminal() && colors_wanted() {
            return Self::Screen(Canvas::default());
        }
        let per_minute = summary::grouped(observer.per_minute);
        say(&format!(
            "lanes demo: an import of {} records against an API that allows {per_minute} calls a minute for each tenant\n\
             dashboard {}\nmetrics   {}metrics\nfiles     {}\ntry       {}\n",
            summary::grouped(observer.records.into()),
            observer.dashboard,
            observer.dashboard,
            home.dir().display(),
            observer.try_next,
        ));
        Self::Lines
    }

    fn rhythm(&self) -> Duration {
        match self {
            Self::Screen(_) => DRAW_EVERY,
            Self::Lines => LINE_EVERY,
        }
    }

    fn draw(&mut self, view: &View) {
        match self {
            Self::Screen(canvas) => {
                let (rows, columns) = console::Term::stderr().size();
                // the cursor stands on a line of its own below the picture
                let picture = screen::picture(view, columns.into(), usize::from(rows).saturating_sub(1));
                say(&canvas.draw(&picture));
            }
            Self::Lines => say(&format!("{}\n", screen::line(view))),
        }
    }
}

/// To the person at the terminal; when stderr is closed nobody is left to be told.
fn say(text: &str) {
    let _ = io::stderr().lock().write_all(text.as_bytes());
}

fn report(summary: &Summary, json: bool, home: &Home) -> Result<(), CliError> {
    let mut out = Out::new(json);
    if json {
        out.document(&summary.json())?;
    } else {
        out.bytes(summary.text().as_bytes())?;
        out.line(home.farewell())?;
    }
    Ok(out.flush()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_those_of_a_demo() {
        assert_eq!(duration("20s"), Ok(Duration::from_secs(20)));
        assert_eq!(duration("5m"), Ok(Duration::from_mins(5)));
        for wrong in ["", "20", "1s", "-5s", "2h", "soon"] {
            assert!(duration(wrong).is_err(), "{wrong:?}");
        }
    }
}
