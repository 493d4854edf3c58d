//! Bad input and dying parts: a dead letter with everything in it, and the lane goes on.

use std::time::Duration;

use bytes::Bytes;
use lanes::broker::Outgoing;
use lanes::job::verdict::DeadReason;
use lanes::message::{HeaderValue, Message, Properties};
use lanes::store::{Replayed, State};

use super::on_every_backend;
use super::rig::{Backend, Reply, Rig, settings};

on_every_backend!(
    garbage_becomes_dead_letters_and_the_lane_goes_on,
    a_dead_workers_job_is_taken_over,
    a_job_that_kills_its_workers_is_quarantined,
    a_cancelled_job_is_not_called_again,
);

fn message(headers: &[(&str, HeaderValue)], body: &'static [u8]) -> Message {
    Message {
        properties: Properties { message_id: Some("x".to_owned()), ..Properties::default() },
        headers: headers.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect(),
        body: Bytes::from_static(body),
    }
}

async fn garbage_becomes_dead_letters_and_the_lane_goes_on(backend: Backend) {
    let rig = Rig::new(backend, |_, _| Reply::status(200)).await;
    let endpoint = ("lanes-endpoint", HeaderValue::from("crm"));
    let large: &'static [u8] = Box::leak(vec![b'x'; 5_000].into_boxed_slice());
    let bad = [
        (message(&[], b"no endpoint"), DeadReason::UnknownEndpoint),
        (message(&[("lanes-endpoint", "nowhere".into())], b"unknown endpoint"), DeadReason::UnknownEndpoint),
        (message(&[("lanes-endpoint", HeaderValue::Int(5))], b"wrong type"), DeadReason::Undecodable),
        (
            message(&[endpoint.clone(), ("lanes-tenant", HeaderValue::Binary(vec![0xff, 0xfe]))], b"bad UTF-8"),
            DeadReason::Undecodable,
        ),
        (message(&[endpoint.clone(), ("lanes-not-before", "soon".into())], b"bad time"), DeadReason::Undecodable),
        (message(&[endpoint], large), DeadReason::TooLarge),
    ];
    let outgoing = bad.iter().map(|(message, _)| Outgoing { route: "bulk".to_owned(), message: message.clone() });
    for answer in rig.backing.broker.publish(outgoing.collect()).await {
        answer.expect("confirmed");
    }
    let worker = rig.start();
    let letters = rig.until_letters(bad.len()).await;
    for (message, reason) in &bad {
        let found = letters
            .iter()
            .any(|letter| letter.reason == *reason && letter.raw && letter.body_bytes == message.body.len() as u64);
        assert!(found, "no {reason} letter of {} bytes in {letters:#?}", message.body.len());
    }
    for letter in &letters {
        let kept = rig.backing.store.letter(letter.instance).await.expect("answers").expect("is there");
        let original = lanes::job::wire::unpack_raw(&kept.payload.meta, kept.payload.body).expect("readable");
        let sent = bad.iter().find(|(message, _)| message.body == original.body).expect("was sent");
        assert_eq!(original.headers, sent.0.headers, "headers as they came");
        let answer = rig.backing.store.replay(letter.instance, rig.now()).await.expect("answers");
        assert!(matches!(answer, Replayed::Raw(_)), "{answer:?}");
    }
    rig.barrier("bulk").await;
    worker.stop().await;
}

/// A worker that is gone without a word: its lease passes, another takes over, the attempt counts.
async fn a_dead_workers_job_is_taken_over(backend: Backend) {
    let (open, gate) = tokio::sync::watch::channel(false);
    let rig =
        Rig::new(backend, move |_, nth| if nth == 1 { Reply::status(200).gated(&gate) } else { Reply::status(200) })
            .await;
    let lease = Duration::from_secs(15);
    let short = lanes::engine::settings::WorkerSettings { lease, ..settings() };
    let dying = rig.start_with(short.clone());
    let job = rig.publish("realtime", "a").await;
    rig.api.until_calls(1).await;
    dying.abort();
    let heir = rig.start_with(short);
    rig.until_taken_over(&job, 1).await;
    let row = rig.until_state(&job, State::Done).await;
    assert_eq!((row.attempt, row.takeovers, row.effect_possible), (2, 1, true));
    let calls = rig.api.calls();
    assert_eq!(calls.len(), 2);
    assert_eq!(calls[0].key, calls[1].key, "the endpoint can close the gap");
    assert!(calls[1].at.since(calls[0].at) >= lease, "not before the lease was over");
    drop(open);
    heir.stop().await;
}

async fn a_job_that_kills_its_workers_is_quarantined(backend: Backend) {
    let (open, gate) = tokio::sync::watch::channel(false);
    let rig = Rig::new(backend, move |seen, _| match seen.job_id.as_str() {
        "poison" => Reply::status(200).gated(&gate),
        _ => Reply::status(200),
    })
    .await;
    let short = lanes::engine::settings::WorkerSettings { lease: Duration::from_secs(15), ..settings() };
    let job = rig.publish("realtime", "poison").await;
    for death in 1..=3 {
        let dying = rig.start_with(short.clone());
        rig.until_with_clock("the poison's call", |seen| seen.iter().filter(|c| c.job_id == "poison").count() == death)
            .await;
        dying.abort();
    }
    let heir = rig.start_with(short);
    rig.until_taken_over(&job, 3).await;
    let row = rig.until_state(&job, State::Dead).await;
    assert_eq!((row.reason.as_str(), row.takeovers), ("poison", 3));
    assert_eq!(rig.until_letters(1).await[0].reason, DeadReason::Poison);
    // its neighbours go on
    rig.publish("realtime", "neighbour").await;
    rig.until_with_clock("the neighbour's call", |seen| seen.iter().any(|call| call.job_id == "neighbour")).await;
    assert_eq!(rig.api.calls_of("poison").len(), 3);
    drop(open);
    heir.stop().await;
}

async fn a_cancelled_job_is_not_called_again(backend: Backend) {
    let rig = Rig::new(backend, |_, _| Reply::status(503)).await;
    let worker = rig.start();
    let job = rig.publish("realtime", "a").await;
    rig.until_state(&job, State::Waiting).await;
    rig.backing.store.cancel(job.instance, rig.now()).await.expect("answers");
    rig.clock.advance(Duration::from_secs(3_600));
    rig.barrier("realtime").await;
    assert_eq!(rig.api.calls_of("a").len(), 1);
    assert_eq!(rig.row(&job).await.expect("kept").state, State::Cancelled);
    worker.stop().await;
}
