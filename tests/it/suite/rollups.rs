//! Counts by time: what every store has to do with them.

use std::time::Duration;

use lanes::clock::Timestamp;
use lanes::job::history::{Count, Measure, Pieces, Series, Step};

use super::store::{Bench, on_every_store};

on_every_store! {
    counts_of_a_step_add_up,
    a_sum_is_of_its_stretch_of_time,
    both_steps_are_kept_as_long_as_they_say,
    many_workers_count_together,
    pieces_of_time_are_told_apart,
}

/// Begins a minute.
const START: Timestamp = Timestamp::from_secs(1_800_000_000);

fn at(seconds: u64) -> Timestamp {
    START.plus(Duration::from_secs(seconds))
}

fn series(measure: Measure, subject: &str, part: &str) -> Series {
    Series { measure, bucket: 0, subject: subject.to_owned(), part: part.to_owned() }
}

fn count(count: u64, total: u64) -> Count {
    Count { count, total }
}

async fn add(bench: &Bench, at: Timestamp, counts: &[(Series, Count)]) {
    bench.store.add_history(at, counts).await.expect("written");
}

async fn sums(
    bench: &Bench,
    step: Step,
    since: Timestamp,
    until: Timestamp,
    measures: &[Measure],
) -> Vec<(Series, Count)> {
    let mut sums = bench.store.history(step, since, until, measures).await.expect("read");
    sums.sort_by(|(a, _), (b, _)| a.cmp(b));
    sums
}

async fn counts_of_a_step_add_up(bench: Bench) {
    let calls = series(Measure::Calls, "crm", "acme");
    let other = series(Measure::Calls, "crm", "globex");
    let wait = |bucket| Series { bucket, ..series(Measure::Waited, "bulk", "") };
    add(&bench, at(1), &[(calls.clone(), count(2, 0)), (wait(3), count(1, 0)), (wait(4), count(5, 0))]).await;
    add(&bench, at(9), &[(calls.clone(), count(3, 0)), (other.clone(), count(1, 0))]).await;
    add(&bench, at(9), &[]).await;
    let found = sums(&bench, Step::Fine, at(0), at(10), &[Measure::Calls, Measure::Waited]).await;
    let expected = [(wait(3), count(1, 0)), (wait(4), count(5, 0)), (calls.clone(), count(5, 0)), (other, count(1, 0))];
    assert_eq!(found, expected);
    assert_eq!(sums(&bench, Step::Fine, at(0), at(10), &[Measure::Retries]).await, []);
    assert_eq!(sums(&bench, Step::Fine, at(0), at(10), &[]).await, []);
}

async fn a_sum_is_of_its_stretch_of_time(bench: Bench) {
    let retries = series(Measure::Retries, "crm", "");
    for seconds in [0, 10, 59, 60, 119] {
        add(&bench, at(seconds), &[(retries.clone(), count(1, 1_000_000 * seconds))]).await;
    }
    let sum = async |step, since, until| {
        let found = sums(&bench, step, at(since), at(until), &[Measure::Retries]).await;
        found.first().map_or((0, 0), |(_, sum)| (sum.count, sum.total / 1_000_000))
    };
    assert_eq!(sum(Step::Fine, 0, 10).await, (1, 0));
    assert_eq!(sum(Step::Fine, 15, 60).await, (2, 69), "the step that holds the beginning counts whole");
    assert_eq!(sum(Step::Coarse, 0, 60).await, (3, 69));
    assert_eq!(sum(Step::Coarse, 60, 120).await, (2, 179));
    assert_eq!(sum(Step::Coarse, 0, 120).await, (5, 248));
    assert_eq!(sum(Step::Coarse, 120, 500).await, (0, 0));
}

async fn both_steps_are_kept_as_long_as_they_say(bench: Bench) {
    let ended = series(Measure::Ended, "bulk", "");
    add(&bench, at(0), &[(ended.clone(), count(1, 0))]).await;
    add(&bench, at(10), &[(ended.clone(), count(1, 0))]).await;
    let left = async |step| {
        let found = sums(&bench, step, at(0), at(60), &[Measure::Ended]).await;
        found.first().map_or(0, |(_, sum)| sum.count)
    };
    let purge = async |now| bench.store.purge_history(now, 100).await.expect("forgotten");
    let day = Step::Fine.kept();
    assert_eq!(purge(at(0).plus(day)).await, 0);
    assert_eq!(purge(at(5).plus(day)).await, 1);
    assert_eq!((left(Step::Fine).await, left(Step::Coarse).await), (1, 2));
    assert_eq!(bench.store.purge_history(at(0).plus(Step::Coarse.kept()), 0).await.expect("bounded"), 0);
    assert_eq!(purge(at(1).plus(Step::Coarse.kept())).await, 2);
    assert_eq!((left(Step::Fine).await, left(Step::Coarse).await), (0, 0));
}

async fn many_workers_count_together(bench: Bench) {
    let names: Vec<Series> = (0..50).map(|n| series(Measure::Calls, "crm", &format!("tenant-{n}"))).collect();
    let worker = async |backwards: bool| {
        let mut counts: Vec<_> = names.iter().map(|series| (series.clone(), count(1, 2))).collect();
        if backwards {
            counts.reverse();
        }
        for second in 0..20 {
            add(&bench, at(second), &counts).await;
        }
    };
    tokio::join!(worker(false), worker(true), worker(false), worker(true));
    let found = sums(&bench, Step::Coarse, at(0), at(60), &[Measure::Calls]).await;
    assert_eq!(found.len(), 50);
    assert!(found.iter().all(|(_, sum)| *sum == count(80, 160)), "{found:?}");
}

async fn pieces_of_time_are_told_apart(bench: Bench) {
    let took = series(Measure::Took, "crm", "");
    for seconds in [0, 30, 119, 120, 600] {
        add(
            &bench,
            at(seconds),
            &[(took.clone(), count(1, seconds)), (series(Measure::Ended, "bulk", ""), count(9, 0))],
        )
        .await;
    }
    add(&bench, at(121), &[(series(Measure::Calls, "crm", "acme"), count(2, 0))]).await;
    add(&bench, at(122), &[(series(Measure::Calls, "crm", "globex"), count(3, 0))]).await;
    let read = async |pieces, measures: &[Measure], limit| {
        let found = bench.store.history_pieces(pieces, measures, limit).await.expect("read");
        found
            .into_iter()
            .map(|(start, series, sum)| {
                assert_eq!(series.part, "", "parts are added up");
                (start.since(START).as_secs(), series.measure, sum.count, sum.total)
            })
            .collect::<Vec<_>>()
    };
    let pieces = Pieces { step: Step::Coarse, width: Duration::from_mins(2), since: at(0), until: at(600) };
    let both = [Measure::Took, Measure::Calls];
    let expected = [(120, Measure::Calls, 5, 0), (120, Measure::Took, 1, 120), (0, Measure::Took, 3, 149)];
    assert_eq!(read(pieces, &both, 10).await, expected);
    assert_eq!(read(pieces, &both, 2).await, expected[..2], "the latest first");
    assert_eq!(read(pieces, &[], 10).await, []);
    let fine = Pieces { step: Step::Fine, width: Step::Fine.length(), since: at(25), until: at(601) };
    let fine: Vec<u64> = read(fine, &[Measure::Took], 10).await.into_iter().map(|(start, ..)| start).collect();
    assert_eq!(fine, [600, 120, 110, 30]);
    assert_eq!(Pieces::start_of(Duration::from_hours(6), at(0)).as_micros() % 21_600_000_000, 0);
}
