//! Slots for calls in flight: what every store has to do with them.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use lanes::clock::Timestamp;
use lanes::job::budget::Slot;
use lanes::store::slots::{Holding, ROTATE, STALE, plan};
use lanes::store::{Holder, SlotAsk, SlotUse, Store, WorkerId};
use tokio::task::JoinSet;

use super::store::{Bench, lane, on_every_store};

on_every_store! {
    slots_are_granted_counted_and_given_back,
    slots_are_shared_as_the_arithmetic_says,
    two_holders_come_to_equal_shares,
    calls_in_flight_are_never_cut,
    two_lanes_of_a_worker_are_two_holders,
    many_holders_of_a_hot_key_never_have_more_than_there_are,
    holders_of_crossing_keys_do_not_get_in_each_others_way,
    the_dead_and_those_who_left_hold_nothing,
    who_is_not_registered_gets_nothing,
    more_holders_than_slots_take_turns,
    what_a_silent_holder_does_not_use_goes_to_others_in_time,
}

const LONGEST_CALL: Duration = Duration::from_secs(30);

fn at(millis: i64) -> Timestamp {
    Timestamp::from_secs(1_800_000_000).plus(Duration::from_millis(u64::try_from(millis).expect("not negative")))
}

fn holder(worker: WorkerId, lane_name: &str) -> Holder {
    Holder { worker, lane: lane(lane_name), longest_call: LONGEST_CALL }
}

/// So many holders, each a worker of its own.
async fn holders(bench: &Bench, count: usize) -> Vec<Holder> {
    let mut holders = Vec::new();
    for nth in 0..count {
        let worker = bench.store.register(&format!("host:{nth}"), "bulk", at(0)).await.expect("registered");
        holders.push(holder(worker, "bulk"));
    }
    holders
}

fn ask(key: &str, max: u32, in_use: u32, wanted: u32) -> SlotAsk {
    SlotAsk { slot: Slot { key: key.to_owned(), max }, in_use, wanted }
}

/// Asks for slots of one key, of which there are ten.
async fn renew(bench: &Bench, holder: &Holder, now: Timestamp, in_use: u32, wanted: u32) -> u32 {
    let asks = [ask("crm", 10, in_use, wanted)];
    bench.store.renew_slots(holder, now, &asks).await.expect("answered").remove(0)
}

async fn uses(store: &dyn Store, key: &str) -> (u32, u32, u32) {
    let uses = store.slots(&[key.to_owned()]).await.expect("answered").remove(0);
    assert_eq!(uses.key, key);
    (uses.in_use, uses.held, uses.wanted)
}

async fn slots_are_granted_counted_and_given_back(bench: Bench) {
    let me = holder(bench.worker, "bulk");
    let asks = [ask("b", 3, 0, 99), ask("a", 10, 2, 4), ask("c", 5, 0, 0)];
    assert_eq!(bench.store.renew_slots(&me, at(0), &asks).await.expect("answered"), [3, 4, 0]);
    assert_eq!(bench.store.renew_slots(&me, at(0), &asks).await.expect("answered"), [3, 4, 0], "sent again");
    assert_eq!(bench.store.renew_slots(&me, at(0), &[]).await.expect("answered"), Vec::<u32>::new());
    let keys = ["c", "b", "a", "unknown"].map(str::to_owned);
    let of = |key: &str, in_use, held, wanted| SlotUse { key: key.to_owned(), in_use, held, wanted };
    let expected = [of("c", 0, 0, 0), of("b", 0, 3, 99), of("a", 2, 4, 4), of("unknown", 0, 0, 0)];
    assert_eq!(bench.store.slots(&keys).await.expect("answered"), expected);
    assert_eq!(bench.store.slots(&[]).await.expect("answered"), []);

    let asks = [ask("a", 10, 0, 0), ask("b", 3, 1, 1)];
    assert_eq!(bench.store.renew_slots(&me, at(1), &asks).await.expect("answered"), [0, 1]);
    assert_eq!(uses(&*bench.store, "a").await, (0, 0, 0));
    assert_eq!(uses(&*bench.store, "b").await, (1, 1, 1));
    let asks = [ask("a", u32::MAX, u32::MAX, u32::MAX)];
    assert_eq!(bench.store.renew_slots(&me, at(1), &asks).await.expect("answered"), [u32::MAX], "kept as it is");
    assert_eq!(uses(&*bench.store, "a").await, (u32::MAX, u32::MAX, u32::MAX));
}

/// A walk of holders over keys, beside the pure arithmetic.
async fn slots_are_shared_as_the_arithmetic_says(bench: Bench) {
    const KEYS: [&str; 3] = ["a", "b", "c"];
    let holders = holders(&bench, 4).await;
    let mut rows: Vec<Holding> = Vec::new();
    for step in 0..120_u32 {
        let me = &holders[(step * 7 % 4) as usize];
        let now = at(i64::from(step * 331 + if step > 60 { 60_000 } else { 0 })); // once all fall silent
        let mut asks: Vec<SlotAsk> = Vec::new();
        for (nth, key) in (1..).zip(KEYS).filter(|(nth, _)| (step + 1) & nth != 0) {
            let mine = rows.iter().find(|row| (row.worker, row.key.as_str()) == (me.worker, key));
            let in_use = mine.map_or(0, |row| row.held * (step % 3) / 2).min(mine.map_or(0, |row| row.held));
            asks.push(ask(key, 5 + nth, in_use, in_use + (step * nth) % 6));
        }
        let of_keys = |row: &&Holding| asks.iter().any(|ask| ask.slot.key == row.key);
        let plan = plan(me, now, &asks, rows.iter().filter(of_keys).cloned().collect());
        let granted = bench.store.renew_slots(me, now, &asks).await.expect("answered");
        assert_eq!(granted, plan.granted, "step {step}");
        let asked = |key: &str| asks.iter().any(|ask| ask.slot.key == key);
        rows.retain(|row| row.worker != me.worker || !asked(&row.key));
        for row in rows.iter_mut().filter(|row| plan.lapsed.contains(&row.key) && row.counts(now) < row.held) {
            row.held = row.in_use;
        }
        rows.extend(plan.kept);
        let mut sums: HashMap<&str, (u32, u32, u32)> = HashMap::new();
        for row in &rows {
            let sum = sums.entry(&row.key).or_default();
            *sum = (sum.0 + row.in_use, sum.1 + row.held, sum.2 + row.wanted);
        }
        for key in KEYS {
            assert_eq!(
                uses(&*bench.store, key).await,
                sums.get(key).copied().unwrap_or_default(),
                "step {step}: {key}"
            );
        }
    }
}

async fn two_holders_come_to_equal_shares(bench: Bench) {
    let [one, other] = <[Holder; 2]>::try_from(holders(&bench, 2).await).expect("two");
    assert_eq!(renew(&bench, &one, at(0), 0, 50).await, 10, "alone it may have all");
    assert_eq!(renew(&bench, &other, at(100), 0, 3).await, 0);
    assert_eq!(renew(&bench, &one, at(200), 4, 50).await, 7, "all but what the other wants");
    assert_eq!(renew(&bench, &other, at(300), 0, 50).await, 3);
    assert_eq!(renew(&bench, &one, at(400), 5, 50).await, 5, "now the other wants more");
    assert_eq!(renew(&bench, &other, at(500), 3, 50).await, 5);
    assert_eq!(renew(&bench, &one, at(600), 0, 0).await, 0);
    assert_eq!(renew(&bench, &other, at(700), 5, 50).await, 10);
}

async fn calls_in_flight_are_never_cut(bench: Bench) {
    let [one, other] = <[Holder; 2]>::try_from(holders(&bench, 2).await).expect("two");
    renew(&bench, &one, at(0), 0, 50).await;
    renew(&bench, &other, at(100), 0, 50).await;
    assert_eq!(renew(&bench, &one, at(200), 9, 50).await, 5, "no new one takes the place of one that ends");
    assert_eq!(uses(&*bench.store, "crm").await, (9, 9, 100));
    assert_eq!(renew(&bench, &other, at(300), 0, 50).await, 1);
    let fewer = [ask("crm", 2, 9, 9)];
    assert_eq!(bench.store.renew_slots(&one, at(400), &fewer).await.expect("answered"), [1], "the limit was lowered");
    assert_eq!(uses(&*bench.store, "crm").await, (9, 10, 59));
    assert_eq!(renew(&bench, &other, at(500), 0, 50).await, 1);
}

async fn two_lanes_of_a_worker_are_two_holders(bench: Bench) {
    let (bulk, realtime) = (holder(bench.worker, "bulk"), holder(bench.worker, "realtime"));
    assert_eq!(renew(&bench, &bulk, at(0), 0, 6).await, 6);
    assert_eq!(renew(&bench, &realtime, at(0), 0, 6).await, 4);
    assert_eq!(uses(&*bench.store, "crm").await, (0, 10, 12));
    assert_eq!(renew(&bench, &bulk, at(0), 0, 0).await, 0);
    assert_eq!(uses(&*bench.store, "crm").await, (0, 4, 6));
}

/// Renews a key again and again, keeping to the contract; `spent`: what all holders together may use.
async fn spends(store: Arc<dyn Store>, me: Holder, key: &'static str, max: u32, spent: Arc<AtomicU32>) {
    let mut mine = 0;
    for round in 0..40_u32 {
        let in_use = mine * (round % 4) / 3;
        spent.fetch_sub(mine - in_use, Ordering::SeqCst); // asking gives the grant back
        let wanted = if round % 3 == 0 { max } else { in_use }; // all of them or no more, so that somebody grows all the time
        let asks = [ask(key, max, in_use, wanted)];
        let granted = store.renew_slots(&me, at(i64::from(round) * 400), &asks).await.expect("answered").remove(0);
        mine = granted.max(in_use);
        let all = spent.fetch_add(mine - in_use, Ordering::SeqCst) + mine - in_use;
        assert!(all <= max, "{all} of {max}");
        let held = uses(&*store, key).await.1;
        assert!(held <= max, "{held} held of {max}");
    }
}

async fn many_holders_of_a_hot_key_never_have_more_than_there_are(bench: Bench) {
    let spent = Arc::new(AtomicU32::new(0));
    let mut spenders = JoinSet::new();
    for me in holders(&bench, 8).await {
        spenders.spawn(spends(Arc::clone(&bench.store), me, "hot", 11, Arc::clone(&spent)));
    }
    spenders.join_all().await;
    let (_, held, _) = uses(&*bench.store, "hot").await;
    assert_eq!(spent.load(Ordering::SeqCst), held, "what they go by is what is kept");
}

async fn holders_of_crossing_keys_do_not_get_in_each_others_way(bench: Bench) {
    let mut crossing = JoinSet::new();
    for (nth, me) in holders(&bench, 6).await.into_iter().enumerate() {
        let store = Arc::clone(&bench.store);
        crossing.spawn(async move {
            for round in 0..20 {
                let mut asks = [ask("left", 100, 0, 5), ask("middle", 100, 0, round % 2), ask("right", 100, 0, 5)];
                asks.rotate_left(nth % 3);
                if nth % 2 == 0 {
                    asks.reverse();
                }
                store.renew_slots(&me, at(0), &asks).await.expect("answered");
            }
        });
    }
    crossing.join_all().await;
    assert_eq!(uses(&*bench.store, "left").await, (0, 30, 30));
    assert_eq!(uses(&*bench.store, "right").await, (0, 30, 30));
}

async fn the_dead_and_those_who_left_hold_nothing(bench: Bench) {
    let [dead, left, alive] = <[Holder; 3]>::try_from(holders(&bench, 3).await).expect("three");
    assert_eq!(renew(&bench, &dead, at(0), 0, 3).await, 3);
    assert_eq!(renew(&bench, &left, at(0), 0, 3).await, 3);
    assert_eq!(renew(&bench, &alive, at(0), 0, 50).await, 4);
    bench.store.deregister(left.worker).await.expect("left");
    assert_eq!(uses(&*bench.store, "crm").await, (0, 7, 53));
    assert_eq!(renew(&bench, &alive, at(100), 4, 50).await, 7);
    for survivor in [alive.worker, bench.worker] {
        assert!(bench.store.heartbeat(survivor, at(60_000)).await.expect("renewed"));
    }
    assert_eq!(bench.store.bury_workers(at(30_000), alive.worker).await.expect("buried"), 1);
    assert_eq!(uses(&*bench.store, "crm").await, (4, 7, 50));
    assert_eq!(renew(&bench, &alive, at(200), 7, 50).await, 10);
    assert_eq!(bench.store.bury_workers(at(30_000), alive.worker).await.expect("buried"), 0);
    assert_eq!(uses(&*bench.store, "crm").await, (7, 10, 50));
}

async fn who_is_not_registered_gets_nothing(bench: Bench) {
    let [one, other] = <[Holder; 2]>::try_from(holders(&bench, 2).await).expect("two");
    assert_eq!(renew(&bench, &one, at(0), 0, 8).await, 8);
    bench.store.deregister(one.worker).await.expect("left");
    let asks = [ask("crm", 10, 3, 8), ask("erp", 10, 0, 8)];
    assert_eq!(bench.store.renew_slots(&one, at(100), &asks).await.expect("answered"), [0, 0]);
    assert_eq!(uses(&*bench.store, "crm").await, (0, 0, 0));
    assert_eq!(renew(&bench, &one, at(200), 0, 0).await, 0, "nothing to give back");
    assert_eq!(renew(&bench, &other, at(200), 0, 50).await, 10);
}

async fn more_holders_than_slots_take_turns(bench: Bench) {
    let holders = holders(&bench, 5).await;
    let mut turns = [0; 5];
    let mut now = at(0);
    for _ in 0..6 {
        for _ in 0..2 {
            for (me, turns) in holders.iter().zip(&mut turns) {
                let asks = [ask("crm", 2, 0, 9)]; // its calls have ended
                *turns += bench.store.renew_slots(me, now, &asks).await.expect("answered")[0];
            }
            let (_, held, _) = uses(&*bench.store, "crm").await;
            assert!(held <= 2, "{held} held of 2");
            now = now.plus(ROTATE / 2);
        }
        assert_eq!(uses(&*bench.store, "crm").await.1, 2, "after two rounds none lies idle");
    }
    assert!(turns.iter().all(|turns| *turns > 0), "{turns:?}");
}

async fn what_a_silent_holder_does_not_use_goes_to_others_in_time(bench: Bench) {
    let [silent, other] = <[Holder; 2]>::try_from(holders(&bench, 2).await).expect("two");
    assert_eq!(renew(&bench, &silent, at(0), 2, 8).await, 8);
    let lapses = at(0).plus(STALE).plus(LONGEST_CALL);
    assert_eq!(renew(&bench, &other, lapses, 0, 50).await, 2, "calls of its grant may be in flight");
    let later = lapses.plus(Duration::from_millis(1));
    assert_eq!(renew(&bench, &other, later, 2, 50).await, 8, "those it told of count on");
    assert_eq!(uses(&*bench.store, "crm").await, (4, 10, 58));
    assert_eq!(renew(&bench, &silent, later, 2, 8).await, 2, "back again, it has what is left");
    assert_eq!(renew(&bench, &other, later, 0, 50).await, 5);
    assert_eq!(renew(&bench, &silent, later, 2, 8).await, 5);
}
