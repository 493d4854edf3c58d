//! What happens after a call: success, 429 with doubling delays, Retry-After as a floor, exhaustion, permanent failure.

use std::time::Duration;

use lanes::job::verdict::DeadReason;
use lanes::store::{Replayed, State};

use super::on_every_backend;
use super::rig::{Backend, Reply, Rig, new_job};

const MINUTE: Duration = Duration::from_secs(60);
const ALMOST: Duration = Duration::from_millis(1);

on_every_backend!(
    ok,
    two_429s_then_200_with_doubling_gaps,
    retry_after_is_a_floor,
    exhausted_after_the_last_attempt,
    a_permanent_failure_is_dead_at_once,
    a_replay_is_a_new_generation,
    due_jobs_overtake_the_backlog,
);

async fn ok(backend: Backend) {
    let rig = Rig::new(backend, |_, _| Reply::status(200)).await;
    let worker = rig.start();
    let job = rig.publish("realtime", "a").await;
    let row = rig.until_state(&job, State::Done).await;
    assert_eq!((row.attempt, row.generation, row.takeovers), (1, 1, 0));
    let call = &rig.api.calls()[0];
    assert_eq!((call.job_id.as_str(), call.attempt.as_str(), call.lane.as_str()), ("a", "1", "realtime"));
    assert_eq!(call.key, job.instance.to_string());
    assert_eq!(&call.body[..], b"{\"n\":1}");
    worker.stop().await;
    assert_eq!(rig.api.calls().len(), 1);
}

async fn two_429s_then_200_with_doubling_gaps(backend: Backend) {
    let rig = Rig::new(backend, |_, nth| Reply::status(if nth <= 2 { 429 } else { 200 })).await;
    let worker = rig.start();
    let job = rig.publish("bulk", "a").await;
    for (attempt, minutes) in [(1, 2), (2, 4)] {
        let row = rig.until_row(&job, "the wait", |row| row.state == State::Waiting && row.attempt == attempt).await;
        let ended_at = rig.now();
        assert_eq!(row.resume_at, Some(ended_at.plus(minutes * MINUTE)), "doubling from two minutes");
        assert_eq!(row.reason, "rate_limited");
        rig.clock.advance((minutes * MINUTE).saturating_sub(ALMOST));
        rig.barrier("bulk").await;
        assert_eq!(rig.api.calls_of("a").len(), attempt as usize, "never before its time");
        rig.clock.advance(ALMOST);
        rig.api
            .until("the retry", |seen| seen.iter().filter(|call| call.job_id == "a").count() > attempt as usize)
            .await;
    }
    let row = rig.until_state(&job, State::Done).await;
    assert_eq!(row.attempt, 3);
    let calls = rig.api.calls_of("a");
    assert_eq!(calls.iter().map(|call| call.attempt.as_str()).collect::<Vec<_>>(), ["1", "2", "3"]);
    assert!(calls.iter().all(|call| call.key == job.instance.to_string()), "one Idempotency-Key for all attempts");
    let journal = rig.backing.store.attempts(job.instance).await.expect("answers");
    assert_eq!(
        journal.iter().map(|entry| entry.class.as_str()).collect::<Vec<_>>(),
        ["rate_limited", "rate_limited", "ok"]
    );
    worker.stop().await;
}

async fn retry_after_is_a_floor(backend: Backend) {
    let rig = Rig::new(backend, |_, nth| match nth {
        1 => Reply::status(429).header("retry-after", 300).header("x-ratelimit-remaining", 0),
        2 => Reply::status(429).header("retry-after", 1),
        _ => Reply::status(200),
    })
    .await;
    let worker = rig.start();
    let job = rig.publish("realtime", "a").await;
    let wait =
        |attempt| rig.until_row(&job, "the wait", move |row| row.state == State::Waiting && row.attempt == attempt);
    let row = wait(1).await;
    assert_eq!(row.resume_at, Some(rig.now().plus(5 * MINUTE)), "longer than our own two minutes");
    rig.clock.advance(5 * MINUTE);
    let row = wait(2).await;
    assert_eq!(row.resume_at, Some(rig.now().plus(4 * MINUTE)), "shorter than our own four minutes");
    let journal = rig.backing.store.attempts(job.instance).await.expect("answers");
    assert_eq!(journal[0].retry_after_ms, Some(300_000));
    assert!(journal[0].rate_headers.iter().any(|(name, value)| name == "x-ratelimit-remaining" && value == "0"));
    worker.stop().await;
}

async fn exhausted_after_the_last_attempt(backend: Backend) {
    let rig = Rig::new(backend, |_, _| Reply::status(503)).await;
    let worker = rig.start();
    let job = rig.publish("realtime", "a").await;
    for attempt in 1..5 {
        let row = rig.until_row(&job, "the wait", |row| row.state == State::Waiting && row.attempt == attempt).await;
        rig.clock.advance(row.resume_at.expect("waiting").since(rig.now()));
    }
    rig.until_state(&job, State::Dead).await;
    let letters = rig.until_letters(1).await;
    assert_eq!((letters[0].reason, letters[0].attempts), (DeadReason::Exhausted, 5));
    assert_eq!(letters[0].instance, job.instance);
    assert_eq!(rig.backing.store.attempts(job.instance).await.expect("answers").len(), 5, "full history");
    assert_eq!(rig.api.calls().len(), 5);
    // certainly failed does not block: a corrected publish of the same id goes through
    let second = rig.publish("realtime", "a").await;
    rig.api.until_calls(6).await;
    assert_ne!(second.instance, job.instance);
    worker.stop().await;
}

async fn a_permanent_failure_is_dead_at_once(backend: Backend) {
    let rig =
        Rig::new(backend, |_, _| Reply { body: "{\"error\":\"no such field\"}".to_owned(), ..Reply::status(422) })
            .await;
    let worker = rig.start();
    let job = rig.publish("realtime", "a").await;
    rig.until_state(&job, State::Dead).await;
    let letters = rig.until_letters(1).await;
    assert_eq!((letters[0].reason, letters[0].attempts), (DeadReason::Failed, 1));
    assert!(letters[0].detail.contains("422") && letters[0].detail.contains("no such field"), "{}", letters[0].detail);
    let letter = rig.backing.store.letter(job.instance).await.expect("answers").expect("is there");
    assert_eq!(&letter.payload.body[..], b"{\"n\":1}", "the letter keeps the payload");
    worker.stop().await;
    assert_eq!(rig.api.calls().len(), 1);
}

async fn a_replay_is_a_new_generation(backend: Backend) {
    let rig = Rig::new(backend, |_, nth| Reply::status(if nth == 1 { 400 } else { 200 })).await;
    let worker = rig.start();
    let job = rig.publish("realtime", "a").await;
    rig.until_state(&job, State::Dead).await;
    let answer = rig.backing.store.replay(job.instance, rig.now()).await.expect("answers");
    assert_eq!(answer, Replayed::Waiting(2));
    rig.clock.advance(Duration::from_secs(2)); // the releaser looks once a second at what others parked
    let row = rig.until_state(&job, State::Done).await;
    assert_eq!((row.generation, row.attempt), (2, 1));
    let calls = rig.api.calls();
    assert_ne!(calls[0].key, calls[1].key, "a saved failure must not answer the replay");
    assert!(rig.letters().await.is_empty());
    worker.stop().await;
}

async fn due_jobs_overtake_the_backlog(backend: Backend) {
    let (open, gate) = tokio::sync::watch::channel(false);
    let rig = Rig::new(backend, move |seen, nth| match (seen.job_id.as_str(), nth) {
        ("first", 1) => Reply::status(429),
        ("first", _) => Reply::status(200),
        _ => Reply::status(200).gated(&gate),
    })
    .await;
    let worker = rig.start();
    let first = rig.publish("bulk", "first").await;
    rig.until_state(&first, State::Waiting).await;
    let backlog = (0..200).map(|n| new_job("bulk", &format!("later-{n}"))).collect();
    for answer in rig.publisher.publish(backlog).await {
        answer.expect("confirmed");
    }
    rig.api.until_calls(3).await; // both slots are taken by the backlog
    rig.clock.advance(2 * MINUTE);
    rig.until_row(&first, "its release", |row| row.state != State::Waiting).await;
    open.send(true).expect("the API listens");
    let calls = rig.api.until("the retry", |seen| seen.iter().filter(|call| call.job_id == "first").count() == 2).await;
    let position = calls.iter().rposition(|call| call.job_id == "first").expect("was called");
    assert!(position < 100, "the due job was number {position} of 201: it queued behind the backlog");
    worker.stop().await;
}
