//! What operators have paused, and the log of what they changed: what every store has to do with it.

use std::sync::Arc;

use lanes::clock::Timestamp;
use lanes::job::budget::Account;
use lanes::job::control::{CONCURRENCY_MAX, Concurrency, Pause, Source, Target};
use lanes::job::verdict::DeadReason;
use lanes::job::{EndpointName, LaneName, Tenant};
use lanes::store::{
    AccountWrite, AuditEntry, AuditFilter, AuditRow, CancelAnswer, ConcurrencyRow, ConcurrencyWrite, ControlRow,
    ControlWrite, LIST_MAX, Replayed, State,
};
use uuid::Uuid;

use super::store::{Bench, on_every_store, raw};

on_every_store! {
    a_pause_is_written_over_the_version_that_was_read,
    a_resume_takes_the_row_away_and_no_old_version_brings_it_back,
    every_kind_of_target_is_its_own,
    each_change_has_one_line_and_a_lost_race_has_none,
    of_many_operators_one_is_first,
    what_an_operator_writes_of_an_account_has_a_line,
    what_an_operator_does_with_a_job_has_a_line,
    what_changes_nothing_has_no_line,
    a_line_is_written_alone,
    lines_are_listed_the_newest_first_and_page_by_page,
    long_texts_are_cut,
    pauses_that_have_ended_are_forgotten,
    old_lines_are_forgotten_in_chunks,
    calls_at_a_time_are_written_over_the_version_that_was_read,
    calls_at_a_time_are_forgotten_after_their_end,
}

const fn at(seconds: i64) -> Timestamp {
    Timestamp::from_secs(1_800_000_000 + seconds)
}

fn lane(name: &str) -> Target {
    Target::Lane(LaneName::new(name).expect("a lane"))
}

fn pause(note: &str, until: Option<i64>) -> Pause {
    Pause { until: until.map(at), author: "ada@home".to_owned(), note: note.to_owned(), set_at: at(1) }
}

fn write(target: &Target, seen: i64, pause: Option<Pause>) -> ControlWrite {
    ControlWrite { target: target.clone(), seen, version: seen + 1, pause }
}

pub fn line(action: &str, target: &str, seconds: i64) -> AuditEntry {
    AuditEntry {
        at: at(seconds),
        actor: "ada@home".to_owned(),
        source: Source::Cli,
        action: action.to_owned(),
        target: target.to_owned(),
        before: "runs".to_owned(),
        after: "paused".to_owned(),
        note: "why not".to_owned(),
    }
}

async fn put(bench: &Bench, write: &ControlWrite) -> bool {
    let line = line("pause", &write.target.to_string(), 1);
    bench.store.put_control(write, &line).await.expect("answered")
}

async fn controls(bench: &Bench) -> Vec<ControlRow> {
    bench.store.controls().await.expect("read")
}

async fn audit(bench: &Bench, filter: AuditFilter) -> Vec<AuditRow> {
    bench.store.audit(&filter, LIST_MAX).await.expect("read")
}

async fn a_pause_is_written_over_the_version_that_was_read(bench: Bench) {
    let bulk = lane("bulk");
    assert_eq!(controls(&bench).await, []);
    assert!(!put(&bench, &write(&bulk, 1, Some(pause("a", None)))).await, "there is no first version");
    assert!(put(&bench, &write(&bulk, 0, Some(pause("a", None)))).await);
    assert!(!put(&bench, &write(&bulk, 0, Some(pause("b", None)))).await, "somebody was quicker");
    let first = ControlRow { target: bulk.clone(), version: 1, pause: pause("a", None) };
    assert_eq!(controls(&bench).await, [first]);
    let longer = Pause { author: "grace".to_owned(), set_at: at(2), ..pause("c", Some(900)) };
    assert!(put(&bench, &write(&bulk, 1, Some(longer.clone()))).await);
    assert!(!put(&bench, &write(&bulk, 1, Some(pause("d", None)))).await, "of an old version");
    assert_eq!(controls(&bench).await, [ControlRow { target: bulk, version: 2, pause: longer }]);
}

async fn a_resume_takes_the_row_away_and_no_old_version_brings_it_back(bench: Bench) {
    let bulk = lane("bulk");
    assert!(!put(&bench, &write(&bulk, 1, None)).await, "there is nothing to resume");
    assert!(put(&bench, &write(&bulk, 0, Some(pause("a", None)))).await);
    assert!(!put(&bench, &write(&bulk, 7, None)).await, "of another version");
    assert!(put(&bench, &write(&bulk, 1, None)).await);
    assert_eq!(controls(&bench).await, []);
    assert!(!put(&bench, &write(&bulk, 1, None)).await, "it is resumed already");
    assert!(!put(&bench, &write(&bulk, 1, Some(pause("b", None)))).await, "the row that was read is gone");
    // whoever begins anew does it with a version that was not there before
    let anew = ControlWrite { version: 9, ..write(&bulk, 0, Some(pause("c", None))) };
    assert!(put(&bench, &anew).await);
    assert!(!put(&bench, &write(&bulk, 1, None)).await, "it is not the pause that was read");
}

async fn every_kind_of_target_is_its_own(bench: Bench) {
    // the same word for all: they must not be taken for each other
    let (name, tenant) = (EndpointName::new("crm").expect("legal"), Tenant::new("crm").expect("legal"));
    let all =
        [Target::Tenant(tenant.clone()), Target::Endpoint(name.clone()), Target::TenantAt(name, tenant), lane("crm")];
    for (nth, target) in (1..).zip(&all) {
        assert!(put(&bench, &write(target, 0, Some(pause("", Some(nth))))).await, "{target}");
    }
    let rows = controls(&bench).await;
    assert_eq!(rows.iter().map(|row| &row.target).collect::<Vec<_>>(), all.iter().collect::<Vec<_>>(), "in order");
    let ends: Vec<_> = rows.iter().map(|row| row.pause.until).collect();
    assert_eq!(ends, [1, 2, 3, 4].map(|nth| Some(at(nth))));
    assert!(put(&bench, &write(&all[1], 1, None)).await);
    assert_eq!(controls(&bench).await.len(), 3, "the others stay");
}

async fn each_change_has_one_line_and_a_lost_race_has_none(bench: Bench) {
    let bulk = lane("bulk");
    assert!(put(&bench, &write(&bulk, 0, Some(pause("a", None)))).await);
    assert!(!put(&bench, &write(&bulk, 0, Some(pause("b", None)))).await);
    assert!(!put(&bench, &write(&bulk, 5, None)).await);
    let resumed = AuditEntry { source: Source::Page, note: String::new(), ..line("resume", "lane bulk", 2) };
    assert!(bench.store.put_control(&write(&bulk, 1, None), &resumed).await.expect("answered"));
    let lines: Vec<_> = audit(&bench, AuditFilter::default()).await.into_iter().map(|row| row.entry).collect();
    assert_eq!(lines, [resumed, line("pause", "lane bulk", 1)]);
}

async fn of_many_operators_one_is_first(bench: Bench) {
    for seen in 0..3 {
        let mut operators = tokio::task::JoinSet::new();
        for nth in 0..8 {
            let store = Arc::clone(&bench.store);
            let write = write(&lane("bulk"), seen, Some(pause(&format!("{nth}"), None)));
            operators.spawn(async move {
                let line = AuditEntry { note: format!("{nth}"), ..line("pause", "lane bulk", 1) };
                store.put_control(&write, &line).await.expect("answered").then_some(nth)
            });
        }
        let first: Vec<i32> = operators.join_all().await.into_iter().flatten().collect();
        assert_eq!(first.len(), 1, "version {}", seen + 1);
        let (rows, lines) = (controls(&bench).await, audit(&bench, AuditFilter::default()).await);
        assert_eq!(rows[0].pause.note, first[0].to_string(), "what was written is of the one that was told so");
        assert_eq!(lines[0].entry.note, first[0].to_string());
        assert_eq!(i64::try_from(lines.len()), Ok(seen + 1), "and so is the line");
    }
}

async fn what_an_operator_writes_of_an_account_has_a_line(bench: Bench) {
    let account = Account { endpoint: EndpointName::new("crm").expect("legal"), tenant: None };
    let write = AccountWrite {
        account: account.clone(),
        seen: 0,
        version: 1,
        kept_until: at(1_000),
        knowledge: "{\"a\":1}".to_owned(),
    };
    let set = line("set_limits", "endpoint crm", 1);
    let put = async || bench.store.put_account_audited(&write, at(1), &set).await.expect("answered");
    assert!(put().await);
    assert!(!put().await, "of an old version");
    let row = bench.store.account(&account).await.expect("read").expect("written");
    assert_eq!((row.version, row.changed_at, row.knowledge.as_str()), (1, at(1), "{\"a\":1}"));
    let lines = audit(&bench, AuditFilter::default()).await;
    assert_eq!(lines.into_iter().map(|row| row.entry).collect::<Vec<_>>(), [set]);
}

async fn entries(bench: &Bench) -> Vec<AuditEntry> {
    audit(bench, AuditFilter::default()).await.into_iter().map(|row| row.entry).collect()
}

async fn what_an_operator_does_with_a_job_has_a_line(bench: Bench) {
    let [waits, runs] = [State::Waiting, State::Run].map(|state| (state, line("cancel", state.as_str(), 1)));
    let answers = [CancelAnswer::Cancelled, CancelAnswer::Running];
    for (nth, ((state, line), answer)) in [waits, runs].into_iter().zip(answers).enumerate() {
        let job = bench.job_in(state, false, nth as u128 + 1, &format!("a{nth}"), at(0)).await;
        let cancelled = bench.store.cancel_audited(job.instance, at(1), &line).await.expect("answered");
        assert_eq!((cancelled, entries(&bench).await.remove(0)), (answer, line));
    }
    let dead = bench.job_in(State::Dead, true, 8, "b", at(0)).await;
    let retry = line("retry", "a job", 2);
    let replayed = bench.store.replay_audited(dead.instance, at(2), &retry).await.expect("answered");
    assert_eq!((replayed, bench.state(dead.instance).await), (Replayed::Waiting(2), State::Waiting));
    assert_eq!(entries(&bench).await[0], retry);
    let dead = bench.job_in(State::Dead, true, 9, "c", at(0)).await;
    let discard = line("discard", "a job", 3);
    assert!(bench.store.discard_audited(dead.instance, None, &discard).await.expect("answered"));
    assert_eq!(bench.store.letter(dead.instance).await.expect("read"), None);
    assert_eq!((entries(&bench).await[0].clone(), entries(&bench).await.len()), (discard, 4));
}

async fn what_changes_nothing_has_no_line(bench: Bench) {
    let done = bench.job_in(State::Done, true, 1, "a", at(0)).await;
    let (nobody, line) = (Uuid::from_u128(99), line("cancel", "a job", 1));
    for (handle, answer) in [(done.instance, CancelAnswer::Ended(State::Done)), (nobody, CancelAnswer::NotFound)] {
        assert_eq!(bench.store.cancel_audited(handle, at(1), &line).await.expect("answered"), answer);
        let replayed = bench.store.replay_audited(handle, at(1), &line).await.expect("answered");
        assert_eq!(replayed, Replayed::NotFound);
        assert!(!bench.store.discard_audited(handle, None, &line).await.expect("answered"));
    }
    let letter = raw(7, "bulk", DeadReason::Undecodable, 0);
    bench.store.bury(std::slice::from_ref(&letter)).await.expect("buried");
    let replayed = bench.store.replay_audited(letter.letter.instance, at(1), &line).await.expect("answered");
    assert!(matches!(replayed, Replayed::Raw(_)), "it has to be published first: {replayed:?}");
    assert_eq!(entries(&bench).await, []);
}

async fn a_line_is_written_alone(bench: Bench) {
    let line = line("retry", "all dead letters", 1);
    bench.store.log(&line).await.expect("written");
    assert_eq!(entries(&bench).await, [line]);
}

async fn lines_are_listed_the_newest_first_and_page_by_page(bench: Bench) {
    let bulk = lane("bulk");
    for seen in 0..5 {
        let (action, actor) = if seen % 2 == 0 { ("pause", "ada") } else { ("pause_longer", "grace") };
        // of one moment: their order is that in which they were written
        let line = AuditEntry { actor: actor.to_owned(), ..line(action, &format!("lane {seen}"), 1) };
        let write = write(&bulk, seen, Some(pause("", None)));
        assert!(bench.store.put_control(&write, &line).await.expect("answered"));
    }
    let targets = |rows: &[AuditRow]| rows.iter().map(|row| row.entry.target.clone()).collect::<Vec<_>>();
    let (mut all, mut before) = (Vec::new(), None);
    loop {
        let page = bench.store.audit(&AuditFilter { before, ..AuditFilter::default() }, 2).await.expect("read");
        assert!(page.len() <= 2);
        let Some(last) = page.last() else { break };
        before = Some(last.id);
        all.extend(page);
    }
    assert_eq!(targets(&all), ["lane 4", "lane 3", "lane 2", "lane 1", "lane 0"]);
    let of = |text: &str| Some(text.to_owned());
    let by_actor = audit(&bench, AuditFilter { actor: of("grace"), ..AuditFilter::default() }).await;
    assert_eq!(targets(&by_actor), ["lane 3", "lane 1"]);
    let by_action = audit(&bench, AuditFilter { action: of("pause"), ..AuditFilter::default() }).await;
    assert_eq!(targets(&by_action), ["lane 4", "lane 2", "lane 0"]);
    let both = AuditFilter { actor: of("ada"), target: of("lane 2"), ..AuditFilter::default() };
    assert_eq!(targets(&audit(&bench, both).await), ["lane 2"]);
    let none = AuditFilter { actor: of("grace"), target: of("lane 2"), ..AuditFilter::default() };
    assert_eq!(targets(&audit(&bench, none).await), [""; 0]);
}

async fn long_texts_are_cut(bench: Bench) {
    let long = "\u{e9}\0".repeat(100_000);
    let pause = Pause { author: long.clone(), ..pause(&long, None) };
    let line = AuditEntry { actor: long.clone(), before: long.clone(), note: long, ..line("pause", "lane bulk", 1) };
    let write = write(&lane("bulk"), 0, Some(pause));
    assert!(bench.store.put_control(&write, &line).await.expect("answered"));
    let (row, line) = (controls(&bench).await.remove(0), audit(&bench, AuditFilter::default()).await.remove(0));
    for text in [row.pause.author, row.pause.note, line.entry.actor, line.entry.before, line.entry.note] {
        assert!((1_000..10_000).contains(&text.len()) && !text.contains('\0'), "{} bytes", text.len());
    }
}

async fn pauses_that_have_ended_are_forgotten(bench: Bench) {
    for (name, until) in [("a", Some(10)), ("b", Some(11)), ("c", None)] {
        assert!(put(&bench, &write(&lane(name), 0, Some(pause("", until)))).await);
    }
    assert_eq!(bench.store.purge_controls(at(10)).await.expect("purged"), 0);
    assert_eq!(bench.store.purge_controls(at(11)).await.expect("purged"), 1);
    assert_eq!(bench.store.purge_controls(at(1_000_000)).await.expect("purged"), 1);
    let left: Vec<_> = controls(&bench).await.into_iter().map(|row| row.target).collect();
    assert_eq!(left, [lane("c")], "it lasts until it is resumed");
    assert!(!put(&bench, &write(&lane("a"), 1, None)).await, "the row that was read is gone");
    assert_eq!(audit(&bench, AuditFilter::default()).await.len(), 3, "what was done stays in the log");
}

async fn old_lines_are_forgotten_in_chunks(bench: Bench) {
    for seen in 0..5 {
        let line = line("pause", &format!("lane {seen}"), seen);
        let write = write(&lane("bulk"), seen, Some(pause("", None)));
        assert!(bench.store.put_control(&write, &line).await.expect("answered"));
    }
    let purge = async |before, limit| bench.store.purge_audit(at(before), limit).await.expect("purged");
    assert_eq!(purge(0, 10).await, 0);
    assert_eq!((purge(3, 2).await, purge(3, 2).await, purge(3, 2).await), (2, 1, 0));
    let left: Vec<_> = audit(&bench, AuditFilter::default()).await.into_iter().map(|row| row.entry.target).collect();
    assert_eq!(left, ["lane 4", "lane 3"]);
    let last = audit(&bench, AuditFilter::default()).await[0].id;
    assert_eq!(purge(100, 10).await, 2);
    assert!(put(&bench, &write(&lane("bulk"), 5, Some(pause("", None)))).await);
    assert!(audit(&bench, AuditFilter::default()).await[0].id > last, "no place in the log is used again");
}

fn calls(calls: u32, until: Option<i64>) -> Concurrency {
    let (author, note) = ("ada@home".to_owned(), "it is slow".to_owned());
    Concurrency { calls, until: until.map(at), author, note, set_at: at(1) }
}

async fn put_calls(bench: &Bench, name: &str, seen: i64, concurrency: Option<Concurrency>) -> bool {
    let write = ConcurrencyWrite { lane: LaneName::new(name).expect("a lane"), seen, version: seen + 1, concurrency };
    let line = line("set_concurrency", &format!("lane {name}"), 1);
    bench.store.put_concurrency(&write, &line).await.expect("answered")
}

async fn concurrencies(bench: &Bench) -> Vec<ConcurrencyRow> {
    bench.store.concurrencies().await.expect("read")
}

async fn calls_at_a_time_are_written_over_the_version_that_was_read(bench: Bench) {
    assert_eq!(concurrencies(&bench).await, []);
    assert!(!put_calls(&bench, "bulk", 1, Some(calls(3, None))).await, "there is no first version");
    assert!(put_calls(&bench, "bulk", 0, Some(calls(3, None))).await);
    assert!(!put_calls(&bench, "bulk", 0, Some(calls(4, None))).await, "somebody was quicker");
    assert!(put_calls(&bench, "bulk", 1, Some(calls(CONCURRENCY_MAX, Some(900)))).await);
    assert!(!put_calls(&bench, "bulk", 1, None).await, "of an old version");
    assert!(put_calls(&bench, "alerts", 0, Some(calls(1, None))).await);
    let row = |name, version, concurrency| ConcurrencyRow {
        lane: LaneName::new(name).expect("a lane"),
        version,
        concurrency,
    };
    let both = [row("alerts", 1, calls(1, None)), row("bulk", 2, calls(CONCURRENCY_MAX, Some(900)))];
    assert_eq!(concurrencies(&bench).await, both, "in the order of lanes");
    assert_eq!(controls(&bench).await, [], "it is no pause");
    assert!(put_calls(&bench, "bulk", 2, None).await);
    assert!(!put_calls(&bench, "bulk", 2, Some(calls(3, None))).await, "the row that was read is gone");
    assert_eq!(concurrencies(&bench).await, both[..1]);
    let lines = audit(&bench, AuditFilter::default()).await;
    assert_eq!(lines.len(), 4, "one for each change, none for what was lost");
}

async fn calls_at_a_time_are_forgotten_after_their_end(bench: Bench) {
    for (name, until) in [("a", Some(10)), ("b", Some(11)), ("c", None)] {
        assert!(put_calls(&bench, name, 0, Some(calls(2, until))).await);
    }
    assert!(put(&bench, &write(&lane("a"), 0, Some(pause("", Some(10))))).await);
    assert_eq!(bench.store.purge_controls(at(10)).await.expect("purged"), 0);
    assert_eq!(bench.store.purge_controls(at(11)).await.expect("purged"), 2, "a pause and a number");
    let left: Vec<_> = concurrencies(&bench).await.into_iter().map(|row| row.lane.to_string()).collect();
    assert_eq!(left, ["b", "c"]);
}
