//! A store that fails: as a whole the lane waits for it, one entry that it rejects fails alone.

use std::collections::HashSet;
use std::sync::Arc;

use lanes::broker::Outgoing;
use lanes::job::verdict::DeadReason;
use lanes::job::wire;
use lanes::message::{Message, Properties};
use lanes::publish::Published;
use lanes::store::{FreshClaim, Settlement, State, StoreError};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

use super::on_every_backend;
use super::rig::{Backend, Reply, Rig, lane};
use super::weather::{self, Asked, Forecast, Weather};

on_every_backend!(
    a_store_that_cannot_be_reached_costs_no_job,
    a_store_that_needs_an_operator_costs_no_job,
    a_rejected_claim_fails_alone,
    a_rejected_journal_entry_does_not_keep_its_job,
    a_rejected_settlement_fails_alone,
    a_rejected_letter_fails_alone,
);

async fn a_store_that_cannot_be_reached_costs_no_job(backend: Backend) {
    an_outage_costs_no_job(backend, weather::unavailable()).await;
}

async fn a_store_that_needs_an_operator_costs_no_job(backend: Backend) {
    an_outage_costs_no_job(backend, weather::failed()).await;
}

/// Jobs are called, claimed and still queued when the store fails, and more come while it does.
async fn an_outage_costs_no_job(backend: Backend, error: StoreError) {
    let (open, gate) = tokio::sync::watch::channel(false);
    let rig = Rig::new(backend, move |_, _| Reply::status(200).gated(&gate)).await;
    let store = Weather::before(&rig.backing.store);
    let mut jobs = publish(&rig, "before", 20).await;
    // of three slots each one that frees up is claimed for at once, however the messages arrive
    let mut settings = rig.settings.clone();
    settings.lanes[0].concurrency = 3;
    let worker = rig.start_before(settings, &store);
    rig.api.until_calls(3).await;
    rig.until("claims of all that may be owned", async || rig.rows().await.len() == 6).await;

    let (down, mut claims, mut settles) = refusing(error);
    store.turns(down);
    jobs.extend(publish(&rig, "during", 20).await);
    open.send(true).expect("the API listens");
    for _ in 0..3 {
        refused(&rig, &mut settles).await;
        refused(&rig, &mut claims).await;
    }
    assert_eq!(rig.api.calls().len(), 6, "what was claimed before, and nothing else");
    assert!(rig.rows().await.iter().all(|row| row.state == State::Run), "nothing ended");
    assert_eq!(rig.letters().await, []);

    store.turns(weather::clear());
    rig.until_with_clock("call of every job", |seen| seen.len() >= jobs.len()).await;
    for job in &jobs {
        let row = rig.until_state(job, State::Done).await;
        assert_eq!((row.attempt, row.takeovers), (1, 0));
    }
    worker.stop().await;
    let called: HashSet<_> = rig.api.calls().into_iter().map(|call| call.job_id).collect();
    assert_eq!((called.len(), rig.api.calls().len()), (jobs.len(), jobs.len()), "each once");
    assert_eq!(rig.letters().await, []);
}

async fn publish(rig: &Rig, name: &str, count: usize) -> Vec<Published> {
    let mut jobs = Vec::new();
    for n in 0..count {
        jobs.push(rig.publish("realtime", &format!("{name}-{n}")).await);
    }
    jobs
}

/// Weather that ends everything with `error`, and tells of each claim and of each settlement.
fn refusing(error: StoreError) -> (Forecast, UnboundedReceiver<()>, UnboundedReceiver<()>) {
    let (tell_claim, claims) = unbounded_channel();
    let (tell_settle, settles) = unbounded_channel();
    let down: Forecast = Arc::new(move |asked| {
        match asked {
            Asked::ClaimFresh(_) => tell_claim.send(()).expect("the test listens"),
            Asked::Settle(_) => tell_settle.send(()).expect("the test listens"),
            _ => {}
        }
        weather::ready(Err(error.clone()))
    });
    (down, claims, settles)
}

/// Waits, while the clock goes on, until the store has refused once more.
async fn refused(rig: &Rig, told: &mut UnboundedReceiver<()>) {
    let told = std::sync::Mutex::new(told);
    let again = async || told.lock().expect("not poisoned").try_recv().is_ok();
    rig.until_in_time("refusal", again).await;
}

fn names_bad(claim: &FreshClaim) -> bool {
    claim.id.as_str() == "bad"
}

async fn a_rejected_claim_fails_alone(backend: Backend) {
    let rig = Rig::new(backend, |_, _| Reply::status(200)).await;
    let store = Weather::before(&rig.backing.store);
    let (tell, mut batches) = unbounded_channel();
    store.turns(Arc::new(move |asked| {
        let Asked::ClaimFresh(claims) = asked else { return weather::ready(Ok(())) };
        if !claims.iter().any(names_bad) {
            return weather::ready(Ok(()));
        }
        tell.send(claims.len()).expect("the test listens");
        weather::ready(Err(weather::rejected()))
    }));
    let mut good = publish(&rig, "good", 3).await;
    rig.publish("realtime", "bad").await;
    good.extend(publish(&rig, "more", 4).await);
    let worker = rig.start_before(rig.settings.clone(), &store);
    for job in &good {
        rig.until_state(job, State::Done).await;
    }
    let letters = rig.until_letters(1).await;
    worker.stop().await;
    assert_eq!(letters.len(), 1);
    assert_eq!((letters[0].reason, letters[0].id.as_deref()), (DeadReason::Undecodable, Some("bad")));
    assert!(letters[0].detail.contains("hail"), "{}", letters[0].detail);
    assert_eq!(rig.api.calls().len(), good.len(), "each once");
    assert!(batches.try_recv().expect("a batch with the bad one") > 1, "it had neighbours");
}

/// Weather that rejects batches of settlements with one of `bad` in it that `meets`.
fn rejecting(bad: &Published, meets: fn(&Settlement) -> bool) -> Forecast {
    let instance = bad.instance;
    Arc::new(move |asked| match asked {
        Asked::Settle(batch) if batch.iter().any(|one| one.instance == instance && meets(one)) => {
            weather::ready(Err(weather::rejected()))
        }
        _ => weather::ready(Ok(())),
    })
}

/// A rig with one job that ends as a dead letter after a call, and others around it that succeed.
async fn one_dies(backend: Backend) -> (Rig, Published, Vec<Published>) {
    let rig = Rig::new(backend, |seen, _| Reply::status(if seen.job_id == "bad" { 422 } else { 200 })).await;
    let mut good = publish(&rig, "good", 3).await;
    let bad = rig.publish("realtime", "bad").await;
    good.extend(publish(&rig, "more", 20).await);
    (rig, bad, good)
}

async fn a_rejected_journal_entry_does_not_keep_its_job(backend: Backend) {
    let (rig, bad, good) = one_dies(backend).await;
    let store = Weather::before(&rig.backing.store);
    store.turns(rejecting(&bad, |settlement| settlement.attempt.is_some()));
    let worker = rig.start_before(rig.settings.clone(), &store);
    rig.until_state(&bad, State::Dead).await;
    for job in &good {
        rig.until_state(job, State::Done).await;
    }
    worker.stop().await;
    assert_eq!(rig.api.calls().len(), good.len() + 1, "each once");
    assert_eq!(rig.backing.store.attempts(bad.instance).await.expect("answers"), []);
}

async fn a_rejected_settlement_fails_alone(backend: Backend) {
    let (rig, bad, good) = one_dies(backend).await;
    let store = Weather::before(&rig.backing.store);
    store.turns(rejecting(&bad, |_| true));
    let worker = rig.start_before(rig.settings.clone(), &store);
    for job in &good {
        rig.until_state(job, State::Done).await;
    }
    worker.stop().await;
    assert_eq!(rig.row(&bad).await.expect("is there").state, State::Run, "whoever is next takes it over");
    assert_eq!(rig.api.calls().len(), good.len() + 1, "each once");
}

async fn a_rejected_letter_fails_alone(backend: Backend) {
    let rig = Rig::new(backend, |_, _| Reply::status(200)).await;
    let store = Weather::before(&rig.backing.store);
    store.turns(Arc::new(|asked| match asked {
        Asked::BuryLetters(letters) if letters.iter().any(|letter| letter.letter.id.as_deref() == Some("bad")) => {
            weather::ready(Err(weather::rejected()))
        }
        _ => weather::ready(Ok(())),
    }));
    for id in ["one", "bad", "two"] {
        let properties = Properties { message_id: Some(id.to_owned()), ..Properties::default() };
        let message = Message { properties, body: id.into(), ..Message::default() };
        let outgoing = Outgoing { route: wire::route(&lane("realtime")), message };
        for answer in rig.backing.broker.publish(vec![outgoing]).await {
            answer.expect("confirmed");
        }
    }
    let worker = rig.start_before(rig.settings.clone(), &store);
    let letters = rig.until_letters(2).await;
    let told: HashSet<_> = letters.iter().map(|letter| (letter.id.as_deref(), letter.copies)).collect();
    assert_eq!(told, HashSet::from([(Some("one"), 1), (Some("two"), 1)]));
    rig.barrier("realtime").await;
    worker.stop().await;

    let next = rig.start();
    rig.until_letters(3).await;
    next.stop().await;
}
