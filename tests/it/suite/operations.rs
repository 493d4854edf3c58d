//! Operations on many: what every store has to do with them.

use std::time::Duration;

use lanes::clock::Timestamp;
use lanes::job::control::Source;
use lanes::job::operation::{Action, Group, NewOperation, Operation, Phase, Selection, Tally};
use lanes::job::verdict::DeadReason;
use lanes::job::{EndpointName, Tenant};
use lanes::store::{
    AuditEntry, AuditFilter, Claim, Claimed, LIST_MAX, LetterFilter, OPERATIONS_RUNNING_MAX, RAW_MAX, RawAnswer, State,
    StepWish, Stepped,
};
use uuid::Uuid;

use super::store::{Bench, at, claim, instances, lane, on_every_store, raw};

on_every_store! {
    a_plan_counts_what_a_selection_finds,
    letters_are_put_back_to_work_step_by_step,
    letters_of_forgotten_jobs_and_of_one_key_come_back_too,
    an_outdated_letter_is_passed_over,
    messages_that_never_were_jobs_are_handed_out_and_told,
    what_died_again_while_it_was_published_stays,
    what_was_published_goes_though_the_operation_was_ended_meanwhile,
    letters_are_discarded_and_nothing_else,
    what_waits_is_cancelled_and_what_runs_is_not_found,
    what_came_after_the_plan_is_not_part_of_it,
    an_operation_is_started_once_with_its_line,
    only_so_many_run_at_a_time,
    nobody_works_on_what_another_has_claimed,
    a_cancelled_operation_goes_no_further,
    old_operations_are_forgotten,
}

const ID: Uuid = Uuid::from_u128(0xabc);
const TOKEN: Uuid = Uuid::from_u128(0x777);

fn line(action: &str) -> AuditEntry {
    AuditEntry {
        at: at(50),
        actor: "ada@home".to_owned(),
        source: Source::Page,
        action: action.to_owned(),
        target: "dead letters: everything".to_owned(),
        before: String::new(),
        after: String::new(),
        note: "the API is back".to_owned(),
    }
}

fn everything() -> Selection {
    Selection::all(at(100))
}

fn new(id: u128, action: Action, selection: Selection) -> NewOperation {
    NewOperation {
        id: Uuid::from_u128(id),
        action,
        selection,
        planned: 3,
        interval: Duration::from_millis(20),
        actor: "ada@home".to_owned(),
        source: Source::Page,
        note: "the API is back".to_owned(),
        started_at: at(50),
    }
}

const fn claim_until(seconds: i64) -> Claim {
    Claim { token: TOKEN, until: at(seconds) }
}

async fn start(bench: &Bench, action: Action, selection: Selection) -> Operation {
    let new = NewOperation { id: ID, ..new(0, action, selection) };
    assert!(bench.store.start_operation(&new, Some(claim_until(80)), &line("start")).await.expect("started"));
    let operation = bench.store.operation(ID).await.expect("read").expect("it is there");
    let begun = Operation {
        begun: new,
        phase: Phase::Running,
        tally: Tally::default(),
        problem: String::new(),
        next_at: at(50),
        claimed_until: Some(at(80)),
        ended_at: None,
    };
    assert_eq!(operation, begun);
    operation
}

fn wish(seconds: i64, most: usize) -> StepWish {
    StepWish {
        claim: claim_until(seconds + 20),
        now: at(seconds),
        most,
        next_at: at(seconds + 1),
        raw_until: at(seconds + 120),
    }
}

async fn step(bench: &Bench, seconds: i64, most: usize) -> Stepped {
    bench.store.step_operation(ID, &wish(seconds, most)).await.expect("answered").expect("it is ours")
}

const fn tally(done: u64, skipped: u64, failed: u64) -> Tally {
    Tally { done, skipped, failed }
}

async fn letters(bench: &Bench) -> Vec<u128> {
    let filter = LetterFilter { limit: LIST_MAX, ..LetterFilter::default() };
    let letters = bench.store.letters(&filter).await.expect("letters");
    let mut all: Vec<_> = letters.iter().map(|letter| letter.instance.as_u128()).collect();
    all.sort_unstable();
    all
}

/// A job that died at its time, in an order that is not that of its handle.
async fn died(bench: &Bench, instance: u128, seconds: i64) {
    bench.job_in(State::Dead, instance.is_multiple_of(2), instance, &format!("job {instance}"), at(seconds)).await;
}

async fn plan(bench: &Bench, action: Action, selection: &Selection) -> Vec<Group> {
    bench.store.plan(action, selection).await.expect("planned")
}

async fn a_plan_counts_what_a_selection_finds(bench: Bench) {
    for (instance, seconds) in [(1, 3), (2, 2), (3, 1)] {
        died(&bench, instance, seconds).await;
    }
    bench.store.bury(&[raw(4, "bulk", DeadReason::Undecodable, 5)]).await.expect("buried");
    let exhausted = Group {
        lane: lane("bulk"),
        endpoint: Some("crm".to_owned()),
        reason: "exhausted".to_owned(),
        items: 3,
        raw: 0,
        effect_possible: 1,
    };
    let unread = Group {
        endpoint: Some("crm\u{fffd}".to_owned()),
        reason: "undecodable".to_owned(),
        items: 1,
        raw: 1,
        effect_possible: 0,
        ..exhausted.clone()
    };
    assert_eq!(plan(&bench, Action::Retry, &everything()).await, [exhausted.clone(), unread.clone()]);
    let nothing = Vec::<Group>::new();
    let some = |change: &dyn Fn(&mut Selection)| {
        let mut selection = everything();
        change(&mut selection);
        selection
    };
    for (selection, expected) in [
        (some(&|s| s.lane = Some(lane("realtime"))), nothing.clone()),
        (some(&|s| s.reason = Some("undecodable".to_owned())), vec![unread.clone()]),
        (some(&|s| s.endpoint = Some(EndpointName::new("crm").expect("legal"))), vec![exhausted.clone()]),
        (some(&|s| s.tenant = Some(Tenant::new("acme").expect("legal"))), vec![exhausted.clone()]),
        (some(&|s| s.not_endpoints = vec!["crm".to_owned()]), vec![unread.clone()]),
        (some(&|s| s.not_lanes = vec![lane("bulk")]), nothing.clone()),
        (some(&|s| s.until = at(2)), vec![Group { items: 2, ..exhausted.clone() }]),
    ] {
        assert_eq!(plan(&bench, Action::Discard, &selection).await, expected, "{}", selection.text());
    }
    bench.job_in(State::Waiting, false, 10, "w", at(1)).await;
    bench.job_in(State::Queued, false, 11, "q", at(1)).await;
    bench.job_in(State::Run, false, 12, "r", at(1)).await;
    let waits = Group { reason: "rate_limited".to_owned(), items: 1, effect_possible: 0, ..exhausted.clone() };
    let queued = Group { reason: String::new(), ..waits.clone() };
    assert_eq!(plan(&bench, Action::Cancel, &everything()).await, [queued, waits]);
}

async fn letters_are_put_back_to_work_step_by_step(bench: Bench) {
    for (instance, seconds) in [(1, 3), (2, 2), (3, 1), (4, 2), (5, 9)] {
        died(&bench, instance, seconds).await;
    }
    start(&bench, Action::Retry, everything()).await;
    let first = step(&bench, 60, 2).await;
    assert_eq!((first.operation.tally, first.operation.next_at), (tally(2, 0, 0), at(61)));
    assert_eq!((first.operation.phase, first.operation.claimed_until), (Phase::Running, Some(at(80))));
    assert_eq!(letters(&bench).await, [1, 4, 5], "those that died first go first");
    assert_eq!(bench.store.operation(ID).await.expect("read"), Some(first.operation));
    let row = bench.row(Uuid::from_u128(3)).await;
    assert_eq!((row.state, row.reason.as_str(), row.generation, row.attempt), (State::Waiting, "replay", 2, 0));
    assert!(bench.row(Uuid::from_u128(2)).await.effect_possible, "the doubt is never lost");
    assert_eq!(step(&bench, 61, 2).await.operation.tally, tally(4, 0, 0));
    let last = step(&bench, 62, 2).await.operation;
    assert_eq!((last.phase, last.tally, last.ended_at), (Phase::Done, tally(5, 0, 0), Some(at(62))));
    assert_eq!(letters(&bench).await, []);
    assert_eq!(bench.store.step_operation(ID, &wish(63, 2)).await.expect("answered"), None, "it has ended");
    let wakes = bench.release(at(70)).await;
    let mut released = instances(&wakes);
    released.sort_unstable();
    assert_eq!(released, [1, 2, 3, 4, 5]);
    let Claimed::Run(granted) = bench.wake(at(71), &wakes[0]).await else { panic!("it runs") };
    let instance = wakes[0].instance.as_u128();
    let stored = granted.stored.expect("its payload");
    assert_eq!((granted.generation, &stored.payload.body[..]), (2, format!("body {instance}").as_bytes()));
}

async fn letters_of_forgotten_jobs_and_of_one_key_come_back_too(bench: Bench) {
    // two publishes of one id, out of each other's window, both dead
    for (instance, seconds) in [(1, 0), (2, 900)] {
        bench.job_in(State::Dead, false, instance, "same", at(seconds)).await;
    }
    died(&bench, 3, 0).await;
    let all = lanes::store::Retention { published_before: at(5), ended_before: at(5), limit: 100 };
    assert_eq!(bench.store.purge(&lane("bulk"), all).await.expect("purged").by_watermark, 2, "1 and 3 are forgotten");
    start(&bench, Action::Retry, Selection::all(at(1_000))).await;
    let stepped = step(&bench, 1_000, 10).await.operation;
    assert_eq!((stepped.phase, stepped.tally, stepped.problem.as_str()), (Phase::Done, tally(3, 0, 0), ""));
    for instance in 1..=3 {
        let row = bench.row(Uuid::from_u128(instance)).await;
        assert_eq!((row.state, row.generation), (State::Waiting, 2), "{instance}");
        let payload = bench.store.payload(row.instance).await.expect("read").expect("it has one");
        assert_eq!(&payload.body[..], format!("body {instance}").as_bytes());
    }
    assert_eq!(letters(&bench).await, []);
}

async fn an_outdated_letter_is_passed_over(bench: Bench) {
    died(&bench, 1, 0).await;
    died(&bench, 2, 1).await;
    // its row was forgotten, and then a late copy of the message ran
    let all = lanes::store::Retention { published_before: at(0), ended_before: at(0), limit: 100 };
    assert_eq!(bench.store.purge(&lane("bulk"), all).await.expect("purged").by_watermark, 1);
    bench.run(at(5_000), &claim(1, "job 1", at(5_000))).await;
    start(&bench, Action::Retry, everything()).await;
    let stepped = step(&bench, 60, 10).await.operation;
    assert_eq!((stepped.phase, stepped.tally), (Phase::Done, tally(1, 1, 0)));
    assert_eq!((bench.state(Uuid::from_u128(1)).await, letters(&bench).await), (State::Run, vec![1]), "left as it was");
}

async fn messages_that_never_were_jobs_are_handed_out_and_told(bench: Bench) {
    died(&bench, 1, 1).await;
    let many: Vec<_> = (0..RAW_MAX as u128 + 2).map(|n| raw(100 + n, "bulk", DeadReason::Undecodable, 2)).collect();
    bench.store.bury(&many).await.expect("buried");
    died(&bench, 2, 3).await;
    start(&bench, Action::Retry, everything()).await;
    let first = step(&bench, 60, 500).await;
    assert_eq!((first.operation.tally, first.raw.len()), (tally(1, 0, 0), 0), "up to the first of them");
    let second = step(&bench, 61, 500).await;
    assert_eq!((second.operation.tally, second.raw.len()), (tally(1, 0, 0), RAW_MAX));
    assert_eq!((second.operation.next_at, &second.raw[0].payload), (at(61), &many[0].payload), "nothing is done yet");
    assert_eq!(second.operation.claimed_until, Some(at(181)), "publishing takes longer");
    assert_eq!(step(&bench, 62, 500).await.raw, second.raw, "until it is told, it is handed out again");
    let answers: Vec<RawAnswer> = (0..)
        .zip(&second.raw)
        .map(|(nth, raw)| RawAnswer {
            instance: raw.letter.instance,
            died_at: raw.letter.died_at,
            copies: raw.letter.copies,
            outcome: if nth == 1 { Err("no queue\0".to_owned()) } else { Ok(()) },
        })
        .collect();
    let told = bench.store.tell_raw(ID, &wish(63, 500), &answers).await.expect("answered").expect("it is ours");
    assert_eq!((told.tally, told.problem.as_str()), (tally(RAW_MAX as u64, 0, 1), "no queue\u{fffd}"));
    let third = step(&bench, 64, 500).await;
    let rest: Vec<_> = third.raw.iter().map(|raw| raw.letter.instance).collect();
    assert_eq!(rest, [many[RAW_MAX].letter.instance, many[RAW_MAX + 1].letter.instance]);
    let answers: Vec<RawAnswer> =
        rest.iter().map(|&instance| RawAnswer { instance, died_at: at(2), copies: 1, outcome: Ok(()) }).collect();
    bench.store.tell_raw(ID, &wish(65, 500), &answers).await.expect("answered").expect("it is ours");
    let last = step(&bench, 66, 500).await;
    let whole = RAW_MAX as u64 + 3;
    assert_eq!((last.operation.phase, last.operation.tally), (Phase::Done, tally(whole, 0, 1)));
    assert_eq!(letters(&bench).await, [101], "what failed stays");
    assert_eq!(bench.store.tell_raw(ID, &wish(67, 5), &answers).await.expect("answered"), None, "it has ended");
}

async fn what_died_again_while_it_was_published_stays(bench: Bench) {
    let letters_of = [raw(1, "bulk", DeadReason::Undecodable, 2), raw(2, "bulk", DeadReason::Undecodable, 2)];
    bench.store.bury(&letters_of).await.expect("buried");
    start(&bench, Action::Retry, everything()).await;
    let handed = step(&bench, 60, 10).await.raw;
    let answer = |raw: &lanes::store::RawLetter| RawAnswer {
        instance: raw.letter.instance,
        died_at: raw.letter.died_at,
        copies: raw.letter.copies,
        outcome: Ok(()),
    };
    let answers: Vec<RawAnswer> = handed.iter().map(answer).collect();
    // an equal message is the same letter: a worker has buried it again before the first publish was told
    bench.store.bury(&[raw(1, "bulk", DeadReason::Undecodable, 61)]).await.expect("buried");
    let told = bench.store.tell_raw(ID, &wish(62, 10), &answers).await.expect("answered").expect("it is ours");
    assert_eq!((told.tally, letters(&bench).await), (tally(2, 0, 0), vec![1]));
    let discard = line("discard");
    let first = Some((at(2), 1));
    assert!(!bench.store.discard_audited(Uuid::from_u128(1), first, &discard).await.expect("answered"));
    assert!(bench.store.discard_audited(Uuid::from_u128(1), Some((at(61), 2)), &discard).await.expect("answered"));
}

async fn what_was_published_goes_though_the_operation_was_ended_meanwhile(bench: Bench) {
    bench.store.bury(&[raw(1, "bulk", DeadReason::Undecodable, 2)]).await.expect("buried");
    start(&bench, Action::Retry, everything()).await;
    let handed = step(&bench, 60, 10).await.raw;
    assert!(bench.store.cancel_operation(ID, &line("cancel")).await.expect("cancelled"));
    let answer = RawAnswer {
        instance: handed[0].letter.instance,
        died_at: handed[0].letter.died_at,
        copies: handed[0].letter.copies,
        outcome: Ok(()),
    };
    assert_eq!(bench.store.tell_raw(ID, &wish(62, 10), &[answer]).await.expect("answered"), None);
    assert_eq!(letters(&bench).await, [], "it would be published once more");
}

async fn letters_are_discarded_and_nothing_else(bench: Bench) {
    for (instance, seconds) in [(1, 1), (2, 2), (3, 3)] {
        died(&bench, instance, seconds).await;
    }
    bench.store.bury(&[raw(4, "bulk", DeadReason::Undecodable, 2)]).await.expect("buried");
    bench.store.bury(&[raw(5, "realtime", DeadReason::Undecodable, 2)]).await.expect("buried");
    bench.job_in(State::Waiting, false, 6, "w", at(1)).await;
    start(&bench, Action::Discard, Selection { lane: Some(lane("bulk")), ..everything() }).await;
    let first = step(&bench, 60, 3).await;
    assert_eq!((first.operation.tally, first.raw.len()), (tally(3, 0, 0), 0), "their bytes need no broker");
    assert_eq!(step(&bench, 61, 3).await.operation.phase, Phase::Done);
    assert_eq!(letters(&bench).await, [5]);
    assert_eq!(bench.state(Uuid::from_u128(1)).await, State::Dead, "its row goes by its own rule");
    assert_eq!(bench.state(Uuid::from_u128(6)).await, State::Waiting);
    assert_eq!(bench.store.attempts(Uuid::from_u128(1)).await.expect("journal"), []);
}

async fn what_waits_is_cancelled_and_what_runs_is_not_found(bench: Bench) {
    for instance in 1..=3 {
        bench.job_in(State::Waiting, false, instance, &format!("w{instance}"), at(1)).await;
    }
    bench.job_in(State::Queued, false, 4, "q", at(1)).await;
    bench.job_in(State::Run, false, 5, "r", at(1)).await;
    let follower = claim(6, "r", at(900));
    assert_eq!(bench.fresh(at(900), &follower).await, Claimed::Parked);
    start(&bench, Action::Cancel, Selection::all(at(1_000))).await;
    let first = step(&bench, 1_000, 3).await;
    assert_eq!((first.operation.tally, first.cancelled), (tally(3, 0, 0), vec![(lane("bulk"), 3)]));
    let last = step(&bench, 1_001, 3).await;
    assert_eq!((last.operation.phase, last.operation.tally), (Phase::Done, tally(5, 0, 0)));
    for instance in [1, 2, 3, 4, 6] {
        assert_eq!(bench.state(Uuid::from_u128(instance)).await, State::Cancelled, "{instance}");
    }
    let row = bench.row(Uuid::from_u128(5)).await;
    assert_eq!((row.state, row.cancel_requested), (State::Run, false));
    assert_eq!(bench.store.payload(Uuid::from_u128(1)).await.expect("read"), None);
    assert_eq!(bench.release(at(2_000)).await, []);
}

async fn what_came_after_the_plan_is_not_part_of_it(bench: Bench) {
    died(&bench, 1, 1).await;
    died(&bench, 2, 31).await;
    start(&bench, Action::Retry, Selection::all(at(30))).await;
    let stepped = step(&bench, 60, 10).await.operation;
    assert_eq!((stepped.phase, stepped.tally), (Phase::Done, tally(1, 0, 0)));
    assert_eq!(letters(&bench).await, [2]);
    bench.job_in(State::Waiting, false, 3, "later", at(31)).await;
    let found = plan(&bench, Action::Cancel, &Selection::all(at(30))).await;
    assert_eq!(found.iter().map(|group| (group.reason.as_str(), group.items)).collect::<Vec<_>>(), [("replay", 1)]);
}

async fn an_operation_is_started_once_with_its_line(bench: Bench) {
    let selection = Selection {
        lane: Some(lane("bulk")),
        endpoint: Some(EndpointName::new("crm").expect("legal")),
        tenant: Some(Tenant::new("acme").expect("legal")),
        reason: Some("exhausted".to_owned()),
        not_lanes: vec![lane("old"), lane("older")],
        not_endpoints: vec!["\"gone\"".to_owned()],
        ..everything()
    };
    start(&bench, Action::Retry, selection.clone()).await;
    start(&bench, Action::Retry, selection).await;
    let lines = bench.store.audit(&AuditFilter::default(), LIST_MAX).await.expect("read");
    assert_eq!(lines.into_iter().map(|row| row.entry).collect::<Vec<_>>(), [line("start")]);
    assert_eq!(bench.store.operations(10).await.expect("read").len(), 1);
    assert_eq!(bench.store.operation(Uuid::from_u128(1)).await.expect("read"), None);
}

async fn only_so_many_run_at_a_time(bench: Bench) {
    let begin = async |id: u128| {
        let new =
            NewOperation { started_at: at(i64::try_from(id).expect("small")), ..new(id, Action::Retry, everything()) };
        bench.store.start_operation(&new, None, &line("start")).await.expect("answered")
    };
    let most = OPERATIONS_RUNNING_MAX as u128;
    for id in 1..=most {
        assert!(begin(id).await);
    }
    assert!(!begin(most + 1).await);
    let listed = bench.store.operations(2).await.expect("read");
    assert_eq!(listed.iter().map(|one| one.begun.id.as_u128()).collect::<Vec<_>>(), [most, most - 1], "newest first");
    assert!(bench.store.cancel_operation(Uuid::from_u128(3), &line("cancel")).await.expect("cancelled"));
    assert!(begin(most + 1).await, "there is room again");
}

async fn nobody_works_on_what_another_has_claimed(bench: Bench) {
    let claimed = async |token: u128, seconds: i64| {
        let claim = Claim { token: Uuid::from_u128(token), until: at(seconds + 20) };
        let operation = bench.store.claim_operation(claim, at(seconds)).await.expect("answered");
        operation.map(|operation| operation.begun.id.as_u128())
    };
    assert_eq!(claimed(1, 50).await, None, "there is none");
    for (id, seconds) in [(1, 51), (2, 50)] {
        let new = NewOperation { started_at: at(seconds), ..new(id, Action::Retry, everything()) };
        assert!(bench.store.start_operation(&new, None, &line("start")).await.expect("started"));
    }
    assert_eq!(claimed(1, 49).await, None, "not before they are due");
    assert_eq!((claimed(1, 60).await, claimed(2, 60).await, claimed(3, 60).await), (Some(2), Some(1), None));
    assert_eq!((claimed(3, 79).await, claimed(3, 80).await), (None, Some(2)), "whoever is silent has lost it");
    let wish = |token| StepWish { claim: Claim { token: Uuid::from_u128(token), until: at(200) }, ..wish(90, 5) };
    let step = async |token| bench.store.step_operation(Uuid::from_u128(2), &wish(token)).await.expect("answered");
    assert_eq!(step(1).await, None, "it is not his any more");
    assert_eq!(bench.store.tell_raw(Uuid::from_u128(2), &wish(1), &[]).await.expect("answered"), None);
    bench.store.leave_operation(Uuid::from_u128(1), Uuid::from_u128(9)).await.expect("answered");
    assert_eq!(claimed(4, 79).await, None, "whoever has not claimed it can't let it go");
    bench.store.leave_operation(Uuid::from_u128(1), Uuid::from_u128(2)).await.expect("answered");
    assert_eq!(claimed(4, 79).await, Some(1));
    assert_eq!(step(3).await.expect("his").operation.phase, Phase::Done, "there is nothing to do");
    assert_eq!(claimed(5, 300).await, Some(1), "what has ended is not claimed");
}

async fn a_cancelled_operation_goes_no_further(bench: Bench) {
    for (instance, seconds) in [(1, 1), (2, 2), (3, 3)] {
        died(&bench, instance, seconds).await;
    }
    start(&bench, Action::Retry, everything()).await;
    step(&bench, 60, 1).await;
    let cancel = AuditEntry { at: at(61), ..line("cancel") };
    assert!(bench.store.cancel_operation(ID, &cancel).await.expect("cancelled"));
    assert!(!bench.store.cancel_operation(ID, &cancel).await.expect("cancelled"), "it has ended");
    assert_eq!(bench.store.step_operation(ID, &wish(62, 5)).await.expect("answered"), None);
    let operation = bench.store.operation(ID).await.expect("read").expect("it is there");
    assert_eq!(
        (operation.phase, operation.tally, operation.ended_at),
        (Phase::Cancelled, tally(1, 0, 0), Some(at(61)))
    );
    assert_eq!(letters(&bench).await, [2, 3], "what was done stays done, the others stay letters");
    let lines = bench.store.audit(&AuditFilter::default(), LIST_MAX).await.expect("read");
    assert_eq!(lines.iter().map(|row| row.entry.action.as_str()).collect::<Vec<_>>(), ["cancel", "start"]);
}

async fn old_operations_are_forgotten(bench: Bench) {
    start(&bench, Action::Discard, everything()).await;
    assert_eq!(bench.store.purge_operations(at(9_999)).await.expect("purged"), 0, "it runs");
    step(&bench, 60, 1).await;
    assert_eq!(bench.store.purge_operations(at(60)).await.expect("purged"), 0);
    assert_eq!(bench.store.purge_operations(at(61)).await.expect("purged"), 1);
    assert_eq!(bench.store.operation(ID).await.expect("read"), None);
    let none: Timestamp = Timestamp::EPOCH;
    assert_eq!(bench.store.purge_operations(none).await.expect("purged"), 0);
}
