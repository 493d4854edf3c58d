//! The proof of the protocol: every interleaving of workers, releaser, sweeper, publishes, operator and faults is walked
//! through, and every decision and every update on the way is made by the functions that the stores use.
//!
//! What is explored: two workers, one releaser and sweeper, two or three publishes of one id, two attempts per generation, one
//! replay, no cancel or one, no haste or one, and a number of faults; each at any time. What must hold is listed in [`Violation`]. Every
//! transaction is one step. Not in it: batches, lanes, how many tokens a budget has, the times themselves (a lease, a grace or the window is
//! over or not), and commits that a database forgets.
//!
//! That no counterexample is found says something only because one is found as soon as any rule is taken out: see
//! [`each_rule_taken_out_finds_its_counterexample`].
//!
//! `LANES_MODEL=full cargo test --release --test it model` adds the largest combinations (millions of worlds).

mod explorer;
mod retention;
mod steps;
mod variants;
mod world;

use lanes::clock::Timestamp;

use explorer::{Report, explore};
use steps::{Model, Violation};
use variants::Without;
use world::{Fault, Faults};

use Fault::{Commit, Confirm, Crash, Response, Slow, Zombie};

const fn at_minute(minute: i64) -> Timestamp {
    Timestamp::from_secs(minute * 60)
}

/// Two publishes within the window of ten minutes.
const IN_WINDOW: &[Timestamp] = &[at_minute(0), at_minute(9)];
/// Two publishes out of each other's window.
const OUT_OF_WINDOW: &[Timestamp] = &[at_minute(0), at_minute(10)];
/// The first two out of each other's window, the third within both.
const THREE: &[Timestamp] = &[at_minute(0), at_minute(12), at_minute(6)];

/// What the project's lanes do: two faults are never enough to call a job poisonous.
const DESIGN: Model = Model {
    without: Without::Nothing,
    published_at: IN_WINDOW,
    faults: [0; 6],
    replays: 1,
    cancels: 0,
    hastens: 0,
    poison_after: 3,
    turns: false,
};

fn count(faults: &[Fault]) -> Faults {
    let mut counts = [0; 6];
    for fault in faults {
        counts[*fault as usize] += 1;
    }
    counts
}

/// One exploration: its faults, how many worlds it must at least reach (fewer = it doesn't explore what it says), and the
/// most effects of one instance in any history (1 = no call is ever repeated, 2 = one repeat, with its Idempotency-Key).
type Line = (&'static [Fault], usize, u8);

fn holds(model: Model, lines: &[Line]) {
    for (faults, worlds_min, effects) in lines {
        let report = explore(&Model { faults: count(faults), ..model });
        assert!(report.violations.is_empty(), "{faults:?}:\n{}", report.text());
        assert!(report.worlds >= *worlds_min, "{faults:?}: only {} worlds", report.worlds);
        assert_eq!(report.effects, *effects, "{faults:?}: effects of one instance");
    }
}

/// The lines that are explored only on demand.
fn on_demand(lines: &'static [Line]) -> &'static [Line] {
    if std::env::var("LANES_MODEL").is_ok_and(|set| set == "full") { lines } else { &[] }
}

#[test]
fn one_fault_in_the_window_breaks_no_promise() {
    let lines: &[Line] = &[
        (&[], 1_000, 1),
        (&[Crash], 16_000, 2),
        (&[Confirm], 9_000, 1),
        (&[Commit], 4_000, 1),
        (&[Zombie], 40_000, 2),
        (&[Response], 2_000, 2),
        (&[Slow], 5_000, 1),
    ];
    holds(DESIGN, lines);
}

#[test]
fn one_fault_out_of_the_window_breaks_no_promise() {
    let lines: &[Line] = &[
        (&[], 2_500, 1),
        (&[Crash], 50_000, 2),
        (&[Confirm], 20_000, 1),
        (&[Commit], 13_000, 1),
        (&[Zombie], 120_000, 2),
        (&[Response], 7_000, 2),
        (&[Slow], 15_000, 1),
    ];
    holds(Model { published_at: OUT_OF_WINDOW, ..DESIGN }, lines);
}

/// Jobs that wait for their turn in a budget, from their claim on or after it.
#[test]
fn waiting_for_a_turn_breaks_no_promise() {
    let turns = Model { turns: true, ..DESIGN };
    let lines: &[Line] = &[(&[], 1_000, 1), (&[Crash], 16_000, 2), (&[Commit], 4_000, 1), (&[Confirm], 9_000, 1)];
    holds(turns, lines);
    holds(Model { published_at: OUT_OF_WINDOW, ..turns }, &[(&[], 2_500, 1), (&[Commit], 13_000, 1)]);
    holds(turns, on_demand(&[(&[Zombie], 40_000, 2), (&[Response], 2_000, 2), (&[Slow], 5_000, 1)]));
    holds(Model { cancels: 1, ..turns }, &[(&[], 3_500, 1)]);
}

#[test]
fn two_faults_in_the_window_break_no_promise() {
    let lines: &[Line] = &[
        (&[Crash, Crash], 80_000, 3),
        (&[Crash, Commit], 60_000, 2),
        (&[Crash, Response], 30_000, 3),
        (&[Confirm, Confirm], 35_000, 1),
        (&[Crash, Zombie], 300_000, 3),
    ];
    holds(DESIGN, lines);
    let rest: &[Line] = &[
        (&[Crash, Confirm], 110_000, 2),
        (&[Crash, Slow], 70_000, 2),
        (&[Zombie, Zombie], 330_000, 3),
        (&[Zombie, Response], 80_000, 3),
    ];
    holds(DESIGN, on_demand(rest));
}

#[test]
fn two_faults_out_of_the_window_break_no_promise() {
    let out_of_window = Model { published_at: OUT_OF_WINDOW, ..DESIGN };
    holds(out_of_window, &[(&[Commit, Commit], 30_000, 1)]);
    holds(out_of_window, on_demand(&[(&[Crash, Crash], 400_000, 3), (&[Crash, Zombie], 1_400_000, 3)]));
}

#[test]
fn three_publishes_break_no_promise() {
    let three = Model { published_at: THREE, ..DESIGN };
    holds(three, &[(&[], 20_000, 1)]);
    holds(three, on_demand(&[(&[Crash], 400_000, 2), (&[Zombie], 890_000, 2), (&[Commit], 110_000, 1)]));
}

/// Running or not: what was cancelled is not called again.
#[test]
fn a_cancel_keeps_its_promise() {
    let cancel = Model { cancels: 1, ..DESIGN };
    holds(cancel, &[(&[], 3_500, 1), (&[Crash], 50_000, 2), (&[Commit], 16_000, 1)]);
    holds(Model { published_at: OUT_OF_WINDOW, ..cancel }, &[(&[], 8_000, 1)]);
    holds(cancel, on_demand(&[(&[Zombie], 130_000, 2)]));
}

/// An operator hurries a job whose time has not come, at whatever moment.
#[test]
fn a_haste_breaks_no_promise() {
    let haste = Model { hastens: 1, ..DESIGN };
    holds(haste, &[(&[], 1_500, 1), (&[Crash], 20_000, 2), (&[Commit], 6_000, 1), (&[Slow], 6_000, 1)]);
    holds(Model { published_at: OUT_OF_WINDOW, ..haste }, &[(&[], 3_500, 1), (&[Commit], 16_000, 1)]);
    holds(Model { cancels: 1, turns: true, ..haste }, &[(&[], 4_000, 1)]);
    holds(haste, on_demand(&[(&[Zombie], 50_000, 2), (&[Confirm], 12_000, 1), (&[Response], 3_000, 2)]));
}

#[test]
fn a_haste_that_does_not_look_calls_twice() {
    let model = Model { without: Without::LookingBeforeHaste, hastens: 1, ..DESIGN };
    let report = explore(&model);
    assert_eq!(report.steps_to(Violation::Twice), Some(10), "{}", report.text());
}

/// The first takeover already makes a letter of the job.
#[test]
fn poison_breaks_no_promise() {
    let poison = Model { poison_after: 1, ..DESIGN };
    holds(poison, &[(&[Crash], 12_000, 2), (&[Zombie], 26_000, 2)]);
    holds(Model { published_at: OUT_OF_WINDOW, ..poison }, &[(&[Crash], 40_000, 2)]);
}

/// Budgets from the smallest up, each in the window and out of it.
const BUDGETS: &[&[Fault]] = &[&[], &[Crash], &[Confirm], &[Commit], &[Zombie], &[Response], &[Slow]];

/// The first budget under which the design without this rule breaks a promise, and what is found there.
fn first_break(without: Without) -> Option<(&'static [Fault], &'static [Timestamp], Report)> {
    let budgets = BUDGETS.iter().flat_map(|faults| [(*faults, IN_WINDOW), (*faults, OUT_OF_WINDOW)]);
    budgets
        .map(|(faults, published_at)| {
            let report = explore(&Model { without, published_at, faults: count(faults), ..DESIGN });
            (faults, published_at, report)
        })
        .find(|(_, _, report)| !report.violations.is_empty())
}

fn breaks(without: Without, faults: &[Fault], published_at: &[Timestamp], violation: Violation, steps: usize) {
    let (least_faults, least_published_at, report) =
        first_break(without).unwrap_or_else(|| panic!("without {without:?} nothing breaks: the rule is not needed"));
    let found = (least_faults, least_published_at, report.steps_to(violation));
    assert_eq!(found, (faults, published_at, Some(steps)), "without {without:?}:\n{}", report.text());
}

/// A rule that could go without a counterexample would have to go. The shortest ones, in steps; without any fault first.
#[test]
fn each_rule_taken_out_finds_its_counterexample() {
    use Violation::{Dup, Gone, Lost, Replay, Stuck};
    breaks(Without::ReadingTheRow, &[], OUT_OF_WINDOW, Lost, 9);
    breaks(Without::Followers, &[], OUT_OF_WINDOW, Lost, 9);
    breaks(Without::RowsBesideTheAliveHolder, &[], IN_WINDOW, Dup, 9);
    breaks(Without::QueueingOfReplays, &[], IN_WINDOW, Dup, 23);
    breaks(Without::LookingBeforeReplay, &[], IN_WINDOW, Dup, 24);
    breaks(Without::SweepOfRun, &[Crash], IN_WINDOW, Stuck, 4);
    breaks(Without::SweepOfQueued, &[Crash], IN_WINDOW, Stuck, 7);
    breaks(Without::PayloadWhileQueued, &[Crash], IN_WINDOW, Stuck, 7);
    breaks(Without::PayloadWhileRunning, &[Crash], IN_WINDOW, Gone, 18);
    breaks(Without::EffectPossible, &[Crash], IN_WINDOW, Dup, 16);
    breaks(Without::RowsBesideTheHolder, &[Crash], IN_WINDOW, Dup, 17);
    breaks(Without::EffectPossibleOverReplay, &[Crash], IN_WINDOW, Dup, 31);
    breaks(Without::NewGeneration, &[], IN_WINDOW, Replay, 24);
    breaks(Without::TokenInSettle, &[Commit], IN_WINDOW, Dup, 23);
}

#[test]
fn a_takeover_that_forgets_a_cancel_calls_again() {
    let model = Model { without: Without::CancelAtTakeover, cancels: 1, faults: count(&[Crash]), ..DESIGN };
    assert_eq!(explore(&model).steps_to(Violation::Cancel), Some(10));
}
