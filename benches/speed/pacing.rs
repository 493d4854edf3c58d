//! Pacing: several workers, one budget. Counts what a limiter of the API would have refused, and how much was used.

use std::io::Write;
use std::time::Duration;

use lanes::clock::{Timestamp, sleep};

use super::child::Child;
use super::sink::{Mode, Sink};
use super::{Bench, preload, to_f64};

/// Allowed calls a second, workers.
const RUNS: [(u32, usize); 5] = [(2, 2), (10, 2), (100, 2), (500, 2), (500, 4)];
/// How long each run is observed.
const OBSERVED: Duration = Duration::from_secs(20);
/// The window of the limit.
const WINDOW: Duration = Duration::from_secs(1);
/// The share of it that lanes uses.
const HEADROOM: f64 = 0.8;

impl Bench {
    pub(super) async fn pacing(&self) {
        for (requests, workers) in RUNS {
            let sink = Sink::start(Mode::Noted).await;
            let stage = self.stage(&format!("pacing-{requests}-{workers}"), &sink, 8, 100).await;
            let mut config = std::fs::OpenOptions::new().append(true).open(&stage.config).expect("the configuration");
            writeln!(config, "[[endpoints.sink.limits]]\nrequests = {requests}\nper = \"1s\"").expect("written");
            let seconds = usize::try_from(OBSERVED.as_secs()).expect("small");
            preload(&stage.publisher, "bulk", (requests as usize * seconds * 2).max(100)).await;
            let running: Vec<Child> = (0..workers).map(|_| Child::lanes(&stage.config)).collect();
            sink.until(1).await;
            sleep(&*self.clock, OBSERVED).await;
            drop(running);
            report(requests, workers, &sink.times());
        }
    }
}

fn report(requests: u32, workers: usize, times: &[Timestamp]) {
    let most = times
        .iter()
        .enumerate()
        .map(|(nth, first)| times[nth..].iter().take_while(|at| at.since(*first) < WINDOW).count());
    let most = most.max().unwrap_or(0);
    let refused = sliding_window_refusals(requests as usize, times);
    // the burst of the start is not a pace
    let from = times.first().map_or(Timestamp::EPOCH, |first| first.plus(WINDOW));
    let paced: Vec<_> = times.iter().filter(|at| **at >= from).collect();
    let span = paced.first().zip(paced.last()).map_or(0.0, |(first, last)| last.since(**first).as_secs_f64());
    let used = (to_f64(paced.len()) - 1.0) / (f64::from(requests) * HEADROOM * span);
    println!(
        "pacing {requests}/s, {workers} workers: {} calls, most in any second {most}, refused {refused} (must be 0), \
         used {:.1} % of what may be used (must be >= 95)",
        times.len(),
        used * 100.0
    );
}

/// What an exact sliding window of the API's own would have refused.
fn sliding_window_refusals(requests: usize, times: &[Timestamp]) -> usize {
    let mut let_in: std::collections::VecDeque<Timestamp> = std::collections::VecDeque::new();
    let mut refused = 0;
    for at in times {
        while let_in.front().is_some_and(|first| at.since(*first) >= WINDOW) {
            let_in.pop_front();
        }
        if let_in.len() < requests {
            let_in.push_back(*at);
        } else {
            refused += 1;
        }
    }
    refused
}
