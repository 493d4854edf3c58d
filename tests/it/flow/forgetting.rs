//! Ended rows are forgotten once nothing can be a duplicate of them any more; a lane without work moves on as well.

use std::sync::Arc;
use std::time::Duration;

use lanes::store::State;
use tokio::sync::watch;

use super::on_every_backend;
use super::rig::{Backend, Reply, Rig, Running};
use super::weather::{self, Asked, Weather};

/// Retention has a round every half minute.
const ALMOST_A_ROUND: Duration = Duration::from_secs(29);
/// The window, the slack of publishers, and the consuming minutes after which everything unacked has been decided.
const KEPT_AT_LEAST: Duration = Duration::from_secs((10 + 2 + 35) * 60);

on_every_backend!(an_idle_lane_forgets, a_lane_with_work_in_hand_does_not_count_as_idle);

/// Starts a worker, and tells how many rounds of retention it has done.
fn start(rig: &Rig) -> (Running, watch::Receiver<u32>) {
    let (tell, rounds) = watch::channel(0);
    let store = Weather::before(&rig.backing.store);
    store.turns(Arc::new(move |asked| {
        tell.send_modify(|count| *count += u32::from(matches!(asked, Asked::PurgeLetters)));
        weather::ready(Ok(()))
    }));
    (rig.start_before(rig.settings.clone(), &store), rounds)
}

/// Lets half a minute pass, and the round of retention that belongs to it.
async fn pass_a_round(rig: &Rig, rounds: &watch::Receiver<u32>) {
    let before = *rounds.borrow();
    rig.clock.advance(ALMOST_A_ROUND);
    rig.until_in_time("round of retention", async || *rounds.borrow() > before).await;
}

async fn an_idle_lane_forgets(backend: Backend) {
    let rig = Rig::new(backend, |_, _| Reply::status(200)).await;
    let (worker, rounds) = start(&rig);
    let job = rig.publish("realtime", "a").await;
    let row = rig.until_state(&job, State::Done).await;
    // far more than it takes: the clock goes on while a busy machine does its rounds
    let most = row.published_at.plus(10 * KEPT_AT_LEAST);
    while rig.row(&job).await.is_some() {
        assert!(rig.now() < most, "nothing comes any more, and still it is kept at {}", rig.now());
        pass_a_round(&rig, &rounds).await;
    }
    let kept = rig.now().since(row.published_at);
    assert!(kept >= KEPT_AT_LEAST, "a duplicate could still be on its way: kept for {kept:?}");
    worker.stop().await;
}

async fn a_lane_with_work_in_hand_does_not_count_as_idle(backend: Backend) {
    let (open, gate) = watch::channel(false);
    let rig = Rig::new(backend, move |seen, _| match seen.job_id.as_str() {
        "stuck" => Reply::status(200).gated(&gate),
        _ => Reply::status(200),
    })
    .await;
    let (worker, rounds) = start(&rig);
    let ended = rig.publish("realtime", "a").await;
    rig.until_state(&ended, State::Done).await;
    let stuck = rig.publish("realtime", "stuck").await;
    rig.api.until_calls(2).await;
    let until = rig.now().plus(2 * KEPT_AT_LEAST);
    while rig.now() < until {
        pass_a_round(&rig, &rounds).await;
    }
    assert_eq!(rig.row(&stuck).await.expect("is there").state, State::Run);
    assert!(rig.row(&ended).await.is_some(), "a copy of it may be among what is in hand");
    open.send(true).expect("the API listens");
    rig.until_state(&stuck, State::Done).await;
    worker.stop().await;
}
