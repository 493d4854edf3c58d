//! Budgets and turns: what every store has to do with them.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use lanes::clock::Timestamp;
use lanes::job::budget::{Take, Taken, Window};
use lanes::job::verdict::WaitReason;
use lanes::job::{DedupKey, EndpointName, Tenant};
use lanes::store::{CancelAnswer, FreshClaim, Gate, IN_TURN, Next, State, Turn, gcra};

use super::store::{Bench, claim, lane, on_every_store};

on_every_store! {
    tokens_are_counted_as_the_arithmetic_says,
    many_takers_get_no_more_than_there_is,
    takers_of_crossing_windows_do_not_get_in_each_others_way,
    rested_windows_are_forgotten,
    jobs_in_turn_come_back_by_their_turn_alone,
    jobs_in_turn_can_be_cancelled,
}

fn at(millis: i64) -> Timestamp {
    Timestamp::from_secs(1_800_000_000).plus(Duration::from_millis(u64::try_from(millis).expect("not negative")))
}

fn window(key: &str, interval_ms: u64, burst: u32) -> Window {
    let interval = Duration::from_millis(interval_ms);
    Window::new(key.to_owned(), interval, interval * (burst - 1))
}

fn wish(windows: &[&Window], tokens: u32, now_ms: i64, ahead_ms: u64) -> Take {
    let windows = windows.iter().map(|window| (*window).clone()).collect();
    Take { windows, tokens, now: at(now_ms), until: at(now_ms).plus(Duration::from_millis(ahead_ms)) }
}

async fn take(bench: &Bench, wish: &Take) -> Taken {
    bench.store.take(wish).await.expect("answered")
}

/// A walk over windows that are asked for together and alone, beside the pure arithmetic.
async fn tokens_are_counted_as_the_arithmetic_says(bench: Bench) {
    let all = [window("a", 7, 3), window("b", 50, 1), window("c", 20, 10)];
    let mut due: HashMap<String, Timestamp> = HashMap::new();
    for step in 0..60_u32 {
        let picked: Vec<&Window> =
            all.iter().enumerate().filter(|(nth, _)| (step + 1) & (1 << nth) != 0).map(|(_, window)| window).collect();
        let wish = wish(&picked, 1 + step % 9, i64::from(step * 11), u64::from(step % 4) * 40);
        let known: Vec<_> = wish.windows.iter().map(|window| due.get(&window.key).copied()).collect();
        let (expected, after) = gcra::take(&wish, &known);
        assert_eq!(take(&bench, &wish).await, expected, "step {step}");
        if expected.granted > 0 {
            due.extend(wish.windows.iter().map(|window| window.key.clone()).zip(after));
        }
    }
    for (key, due) in bench.store.peek(&due.keys().cloned().collect::<Vec<_>>()).await.expect("answered") {
        assert!(all.iter().any(|window| window.key == key) && due > at(0));
    }
    assert_eq!(bench.store.peek(&["unknown".to_owned()]).await.expect("answered"), []);
}

async fn many_takers_get_no_more_than_there_is(bench: Bench) {
    const TAKERS: usize = 8;
    let hot = window("hot", 1, 50);
    let mut takers = tokio::task::JoinSet::new();
    for _ in 0..TAKERS {
        let (store, hot) = (Arc::clone(&bench.store), hot.clone());
        takers.spawn(async move {
            let mut granted = 0;
            for _ in 0..20 {
                granted += store.take(&wish(&[&hot], 20, 1_000, 99)).await.expect("answered").granted;
            }
            granted
        });
    }
    let granted: u32 = takers.join_all().await.into_iter().sum();
    assert_eq!(granted, 50 + 99, "its burst, and one for each millisecond ahead: none lost, none twice");
}

async fn takers_of_crossing_windows_do_not_get_in_each_others_way(bench: Bench) {
    let (left, right) = (window("left", 1, 1_000), window("right", 1, 1_000));
    let mut takers = tokio::task::JoinSet::new();
    for nth in 0..6 {
        let store = Arc::clone(&bench.store);
        let (left, right) = (left.clone(), right.clone());
        takers.spawn(async move {
            let windows = if nth % 2 == 0 { [&left, &right] } else { [&right, &left] };
            let mut granted = 0;
            for _ in 0..20 {
                granted += store.take(&wish(&windows, 3, 1_000, 0)).await.expect("answered").granted;
            }
            granted
        });
    }
    let granted: u32 = takers.join_all().await.into_iter().sum();
    assert_eq!(granted, 6 * 20 * 3);
    let due = bench.store.peek(&["left".to_owned(), "right".to_owned()]).await.expect("answered");
    assert!(due.iter().all(|(_, due)| *due == at(1_360)), "{due:?}");
}

async fn rested_windows_are_forgotten(bench: Bench) {
    let (old, young) = (window("old", 100, 1), window("young", 100, 1));
    take(&bench, &wish(&[&old], 1, 0, 0)).await;
    take(&bench, &wish(&[&young], 1, 5_000, 0)).await;
    assert_eq!(bench.store.purge_budgets(at(1_000)).await.expect("purged"), 1);
    let left = bench.store.peek(&["old".to_owned(), "young".to_owned()]).await.expect("answered");
    assert_eq!(left, [("young".to_owned(), at(5_100))]);
}

fn of_tenant(instance: u128, tenant: &str, published_at: Timestamp) -> FreshClaim {
    let claim = claim(instance, &format!("job-{instance}"), published_at);
    let tenant = Tenant::new(tenant).expect("a tenant");
    FreshClaim { key: DedupKey::of(&claim.lane, &tenant, &claim.id), tenant, ..claim }
}

fn crm() -> EndpointName {
    EndpointName::new("crm").expect("an endpoint")
}

fn turn(tenant: &str, jobs: u32) -> Turn {
    Turn { endpoint: crm(), tenant: Tenant::new(tenant).expect("a tenant"), jobs, queued: 0 }
}

fn gate(tenant: &str, queued: u64) -> Gate {
    Gate { endpoint: crm(), tenant: Tenant::new(tenant).expect("a tenant"), queued }
}

async fn parked(bench: &Bench, claims: &[FreshClaim]) {
    for claim in claims {
        bench.run(at(1_000), claim).await;
        let next = Next::Waiting { reason: WaitReason::Budget, resume_at: IN_TURN, counted: false };
        bench.settle(at(1_000), claim, next).await;
    }
}

async fn jobs_in_turn_come_back_by_their_turn_alone(bench: Bench) {
    let bulk = lane("bulk");
    // parked in another order than published
    let acme = [3, 1, 2].map(|nth| of_tenant(nth, "acme", at(i64::try_from(nth).expect("small"))));
    let globex = [10, 11].map(|nth| of_tenant(nth, "globex", at(i64::try_from(nth).expect("small"))));
    parked(&bench, &acme).await;
    parked(&bench, &globex).await;
    let far = Timestamp::from_secs(100 * 365 * 86_400);
    assert_eq!(bench.release(far).await, [], "no clock brings them back");
    let gates = bench.store.gates(&bulk, None, 10).await.expect("read");
    assert_eq!(gates, [gate("acme", 0), gate("globex", 0)]);
    assert_eq!(bench.store.gates(&bulk, None, 1).await.expect("read").len(), 1);
    let rest = bench.store.gates(&bulk, Some(&gates[0]), 10).await.expect("read");
    assert_eq!(rest, [gate("globex", 0)]);
    assert_eq!(bench.store.gates(&lane("realtime"), None, 10).await.expect("read"), []);

    let turns = [turn("acme", 2), turn("globex", 9), turn("nobody", 1)];
    let wakes = bench.store.release_turns(&bulk, at(2_000), &turns).await.expect("released");
    let released: Vec<u128> = wakes.iter().map(|wake| wake.instance.as_u128()).collect();
    assert_eq!(released, [1, 2, 10, 11], "of each those published first");
    assert_eq!(bench.store.gates(&bulk, None, 10).await.expect("read"), [gate("acme", 2)]);
    // another worker that had seen the same gates and budgets
    let again = bench.store.release_turns(&bulk, at(2_000), &[turn("acme", 2)]).await.expect("released");
    assert_eq!(again, [], "those are on their way already");
    for wake in &wakes {
        bench.wake(at(2_000), wake).await;
    }
    assert_eq!(bench.state(acme[1].instance).await, State::Run);
    assert_eq!(bench.store.gates(&bulk, None, 10).await.expect("read"), [gate("acme", 0)]);
    let row = bench.store.job(acme[1].instance).await.expect("read").expect("is there");
    assert_eq!(row.attempt, 1, "a turn that was waited for spent no attempt");
}

async fn jobs_in_turn_can_be_cancelled(bench: Bench) {
    let job = of_tenant(1, "acme", at(1));
    parked(&bench, std::slice::from_ref(&job)).await;
    let answer = bench.store.cancel(job.instance, at(2_000)).await.expect("answered");
    assert_eq!(answer, CancelAnswer::Cancelled);
    assert_eq!(bench.store.gates(&lane("bulk"), None, 10).await.expect("read"), []);
    assert_eq!(bench.store.release_turns(&lane("bulk"), at(2_000), &[turn("acme", 5)]).await.expect("released"), []);
}
