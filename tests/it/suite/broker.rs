//! What every broker promises, run against memory, SQLite and RabbitMQ; and what each promises alone.

use std::collections::BTreeSet;
use std::ops::RangeInclusive;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use lanes::broker::memory::MemoryBroker;
use lanes::broker::rabbitmq::{RabbitMq, UNREADABLE_QUEUE};
use lanes::broker::sqlite::{DEFAULT_LEASE, SqliteBroker};
use lanes::broker::{
    Broker, BrokerError, BrokerLimits, DEAD_QUEUE, Deliveries, Delivery, Outgoing, PublishError, QueueSpec,
    Subscription, ack, give_back,
};
use lanes::clock::{ManualClock, SharedClock, SystemClock, Timestamp, within};
use lanes::db;
use lanes::message::{HeaderValue, Message, Properties};

use crate::services::{Rabbit, fresh_vhost, rabbit};

/// Far longer than anything here takes on a busy machine.
const PATIENCE: Duration = Duration::from_mins(1);
/// Long enough for a delivery that must not come to have come.
const A_WHILE: Duration = Duration::from_millis(300);

/// Opens another handle of the broker under test, as another process would.
type Make<'a> = &'a (dyn Fn() -> Arc<dyn Broker> + Sync);

async fn conforms(make: Make<'_>) {
    order_and_bytes_are_kept(make).await;
    every_field_comes_back(make).await;
    prefetch_bounds_what_is_unsettled(make).await;
    an_ack_removes(make).await;
    acks_in_any_order_remove_only_what_was_acked(make).await;
    a_dropped_session_gives_back(make).await;
    dropped_deliveries_give_back_what_nobody_saw(make).await;
    what_is_given_back_goes_to_others_at_once(make).await;
    giving_back_makes_room(make).await;
    a_late_ack_does_nothing(make).await;
    giving_back_late_does_nothing(make).await;
    only_the_unroutable_are_refused(make).await;
    two_sessions_share_a_queue(make).await;
    one_session_reads_two_queues(make).await;
    a_batch_may_exceed_the_window(make).await;
    publishers_do_not_disturb_each_other(make).await;
    waiting_can_be_given_up(make).await;
    a_consumer_that_waits_is_woken(make).await;
    depth_counts(make).await;
    closing_ends_the_handle(make).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn memory_conforms() {
    let broker = MemoryBroker::new();
    conforms(&|| Arc::new(broker.another_handle())).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sqlite_conforms() {
    let dir = tempfile::tempdir().expect("a directory");
    // one open file, as the broker's handles of one process share it
    let db = open(dir.path()).await;
    conforms(&|| Arc::new(SqliteBroker::new(db.clone(), clock(), DEFAULT_LEASE))).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rabbitmq_conforms() {
    let url = fresh_vhost().await;
    conforms(&|| Arc::new(rabbitmq(&url))).await;
}

fn clock() -> SharedClock {
    Arc::new(SystemClock::new())
}

async fn open(dir: &std::path::Path) -> db::Sqlite {
    db::open_sqlite(&format!("sqlite:{}", dir.join("lanes.db").display())).await.expect("the file opens")
}

fn rabbitmq(url: &str) -> RabbitMq {
    RabbitMq::new(url, BrokerLimits::default(), clock()).expect("a valid url")
}

async fn declared(broker: &dyn Broker, name: &str) {
    let spec = QueueSpec { name: format!("q.{name}"), route: name.to_owned() };
    broker.declare(&[spec]).await.expect("the queue is declared");
}

fn to(route: &str, body: impl Into<Vec<u8>>) -> Outgoing {
    let body: Vec<u8> = body.into();
    Outgoing { route: route.to_owned(), message: Message { body: body.into(), ..Message::default() } }
}

fn numbered(route: &str, count: u32) -> Vec<Outgoing> {
    (0..count).map(|number| to(route, number.to_string())).collect()
}

async fn published(broker: &dyn Broker, messages: Vec<Outgoing>) {
    let results = within(PATIENCE, broker.publish(messages)).await.expect("publishing ends");
    for result in results {
        result.expect("stored");
    }
}

async fn subscribed(broker: &dyn Broker, name: &str, prefetch: u16) -> Box<dyn Deliveries> {
    let subscription = Subscription { queue: format!("q.{name}"), prefetch };
    broker.subscribe(&[subscription]).await.expect("subscribed").pop().expect("one per subscription")
}

async fn received(from: &mut Box<dyn Deliveries>, count: usize) -> Vec<Delivery> {
    let mut all = Vec::new();
    while all.len() < count {
        let wanted = count - all.len();
        let some = within(PATIENCE, from.next(wanted)).await.expect("a delivery comes").expect("the session lives");
        assert!(!some.is_empty() && some.len() <= wanted, "{} of at most {wanted}", some.len());
        all.extend(some);
    }
    all
}

async fn nothing_comes(from: &mut Box<dyn Deliveries>) {
    assert!(within(A_WHILE, from.next(1)).await.is_err(), "nothing was to come");
}

fn bodies(deliveries: &[Delivery]) -> Vec<String> {
    deliveries.iter().map(|delivery| String::from_utf8_lossy(&delivery.message.body).into_owned()).collect()
}

async fn acked(deliveries: impl IntoIterator<Item = Delivery>) {
    ack(deliveries.into_iter().map(|delivery| delivery.receipt).collect()).await;
}

async fn order_and_bytes_are_kept(make: Make<'_>) {
    let broker = make();
    declared(&*broker, "order").await;
    declared(&*broker, "order").await; // idempotent
    published(&*broker, numbered("order", 100)).await;
    let everything: Vec<u8> = (0..=255).collect();
    published(&*broker, vec![to("order", everything.clone()), to("order", ""), to("order", vec![7; 300_000])]).await;
    let mut deliveries = subscribed(&*broker, "order", 500).await;
    let got = received(&mut deliveries, 103).await;
    assert_eq!(bodies(&got[..100]), (0..100).map(|number| number.to_string()).collect::<Vec<_>>());
    assert_eq!(got[100].message.body, everything);
    assert!(got[101].message.body.is_empty());
    assert_eq!(got[102].message.body, vec![7; 300_000], "a body of several frames");
    assert!(got.iter().all(|delivery| !delivery.redelivered));
    acked(got).await;
}

async fn every_field_comes_back(make: Make<'_>) {
    let broker = make();
    declared(&*broker, "fields").await;
    let full = Message {
        properties: Properties {
            message_id: Some("id-ü".to_owned()),
            content_type: Some("application/json".to_owned()),
            correlation_id: Some("corr".to_owned()),
            app_id: Some("shop".to_owned()),
            kind: Some("order.created".to_owned()),
            timestamp: Some(1_795_000_000),
            durable: Some(true),
        },
        headers: [
            ("text", HeaderValue::Text("grün 🌱".to_owned())),
            ("empty", HeaderValue::Text(String::new())),
            ("binary", HeaderValue::Binary(vec![0xff, 0xfe, 0])),
            ("int", HeaderValue::Int(i64::MIN)),
            ("float", HeaderValue::Float(0.1)),
            ("bool", HeaderValue::Bool(true)),
            ("timestamp", HeaderValue::Timestamp(u64::from(u32::MAX) + 1)),
            ("null", HeaderValue::Null),
        ]
        .map(|(name, value)| (name.to_owned(), value))
        .into(),
        body: "{}".into(),
    };
    published(&*broker, vec![Outgoing { route: "fields".to_owned(), message: full.clone() }]).await;
    let mut deliveries = subscribed(&*broker, "fields", 1).await;
    let got = received(&mut deliveries, 1).await;
    assert_eq!(got[0].message, full);
    acked(got).await;
}

async fn prefetch_bounds_what_is_unsettled(make: Make<'_>) {
    let broker = make();
    declared(&*broker, "prefetch").await;
    published(&*broker, numbered("prefetch", 10)).await;
    let mut deliveries = subscribed(&*broker, "prefetch", 3).await;
    let mut got = received(&mut deliveries, 3).await;
    nothing_comes(&mut deliveries).await;
    acked(got.drain(..1)).await;
    let next = received(&mut deliveries, 1).await;
    assert_eq!(bodies(&next), ["3"]);
    nothing_comes(&mut deliveries).await;
}

async fn an_ack_removes(make: Make<'_>) {
    let broker = make();
    declared(&*broker, "ack").await;
    published(&*broker, numbered("ack", 3)).await;
    let mut deliveries = subscribed(&*broker, "ack", 10).await;
    let got = received(&mut deliveries, 3).await;
    acked(got).await;
    drop(deliveries);
    published(&*broker, vec![to("ack", "after")]).await;
    let mut deliveries = subscribed(&*broker, "ack", 10).await;
    let got = received(&mut deliveries, 1).await;
    assert_eq!(bodies(&got), ["after"], "acked messages do not come back");
    acked(got).await;
}

async fn acks_in_any_order_remove_only_what_was_acked(make: Make<'_>) {
    let broker = make();
    declared(&*broker, "gaps").await;
    published(&*broker, numbered("gaps", 50)).await;
    let mut deliveries = subscribed(&*broker, "gaps", 100).await;
    let mut got = received(&mut deliveries, 50).await;
    // from the back, in threes, by two tasks at a time, leaving out every tenth
    let mut acks = Vec::new();
    let mut kept = Vec::new();
    while let Some(delivery) = got.pop() {
        if bodies(std::slice::from_ref(&delivery))[0].ends_with('0') {
            kept.push(delivery);
        } else {
            acks.push(delivery.receipt);
        }
        if acks.len() == 6 {
            let (left, right) = (acks.drain(..3).collect(), std::mem::take(&mut acks));
            tokio::join!(ack(left), ack(right));
        }
    }
    ack(acks).await;
    drop((kept, deliveries));
    let mut deliveries = subscribed(&*broker, "gaps", 100).await;
    let got = received(&mut deliveries, 5).await;
    assert_eq!(bodies(&got), ["0", "10", "20", "30", "40"], "in their old places");
    nothing_comes(&mut deliveries).await;
    acked(got).await;
}

async fn a_dropped_session_gives_back(make: Make<'_>) {
    let broker = make();
    declared(&*broker, "drop").await;
    published(&*broker, numbered("drop", 4)).await;
    let mut deliveries = subscribed(&*broker, "drop", 2).await;
    drop(received(&mut deliveries, 2).await);
    drop(deliveries);
    let mut deliveries = subscribed(&*broker, "drop", 10).await;
    let mut got = received(&mut deliveries, 4).await;
    got.sort_by_key(|delivery| delivery.message.body.clone()); // the two may arrive while the others are being delivered
    assert_eq!(bodies(&got), ["0", "1", "2", "3"]);
    assert_eq!(got.iter().map(|delivery| delivery.redelivered).collect::<Vec<_>>(), [true, true, false, false]);
    acked(got).await;
}

async fn dropped_deliveries_give_back_what_nobody_saw(make: Make<'_>) {
    let broker = make();
    declared(&*broker, "unseen").await;
    published(&*broker, numbered("unseen", 5)).await;
    let mut deliveries = subscribed(&*broker, "unseen", 5).await;
    let in_hand = received(&mut deliveries, 1).await;
    drop(deliveries);
    // the first is still being worked on: the session lives, but holds nothing else
    let mut others = subscribed(&*broker, "unseen", 10).await;
    let got = received(&mut others, 4).await;
    assert_eq!(bodies(&got).into_iter().collect::<BTreeSet<_>>(), ["1", "2", "3", "4"].map(str::to_owned).into());
    nothing_comes(&mut others).await;
    acked(in_hand).await;
    acked(got).await;
    drop(others);
    published(&*broker, vec![to("unseen", "after")]).await;
    let got = received(&mut subscribed(&*broker, "unseen", 10).await, 1).await;
    assert_eq!(bodies(&got), ["after"]);
    acked(got).await;
}

async fn given_back(deliveries: impl IntoIterator<Item = Delivery>) {
    give_back(deliveries.into_iter().map(|delivery| delivery.receipt).collect()).await;
}

async fn what_is_given_back_goes_to_others_at_once(make: Make<'_>) {
    let (stopping, living) = (make(), make());
    declared(&*stopping, "back").await;
    published(&*stopping, numbered("back", 6)).await;
    let mut deliveries = subscribed(&*stopping, "back", 6).await;
    let got = received(&mut deliveries, 6).await;
    drop(deliveries);
    let mut others = subscribed(&*living, "back", 10).await;
    nothing_comes(&mut others).await;
    let (in_hand, untouched): (Vec<_>, Vec<_>) =
        got.into_iter().partition(|delivery| ["0", "3"].iter().any(|body| delivery.message.body == *body));
    given_back(untouched).await;
    let returned = received(&mut others, 4).await;
    assert_eq!(bodies(&returned).into_iter().collect::<BTreeSet<_>>(), ["1", "2", "4", "5"].map(str::to_owned).into());
    assert!(returned.iter().all(|delivery| delivery.redelivered));
    nothing_comes(&mut others).await;
    acked(in_hand).await; // the session went on, and its acks reach over nothing that was given back
    drop((returned, others));
    let mut others = subscribed(&*living, "back", 10).await;
    let again = received(&mut others, 4).await;
    assert_eq!(bodies(&again).into_iter().collect::<BTreeSet<_>>(), ["1", "2", "4", "5"].map(str::to_owned).into());
    nothing_comes(&mut others).await;
    acked(again).await;
}

async fn giving_back_makes_room(make: Make<'_>) {
    let broker = make();
    declared(&*broker, "room").await;
    published(&*broker, numbered("room", 2)).await;
    let mut deliveries = subscribed(&*broker, "room", 1).await;
    for round in 0..5 {
        let got = received(&mut deliveries, 1).await;
        assert_eq!((bodies(&got), got[0].redelivered), (vec!["0".to_owned()], round > 0), "it keeps its place");
        nothing_comes(&mut deliveries).await;
        given_back(got).await;
    }
    for body in ["0", "1"] {
        let got = received(&mut deliveries, 1).await;
        assert_eq!(bodies(&got), [body]);
        acked(got).await;
    }
    nothing_comes(&mut deliveries).await;
}

async fn giving_back_late_does_nothing(make: Make<'_>) {
    let (first, second) = (make(), make());
    declared(&*first, "late-back").await;
    published(&*first, vec![to("late-back", "job")]).await;
    let early = received(&mut subscribed(&*first, "late-back", 1).await, 1).await;
    first.close().await;
    let mut deliveries = subscribed(&*second, "late-back", 2).await;
    let again = received(&mut deliveries, 1).await;
    given_back(early).await; // too late: it is in other hands
    nothing_comes(&mut deliveries).await;
    acked(again).await;
}

async fn a_late_ack_does_nothing(make: Make<'_>) {
    let (first, second) = (make(), make());
    declared(&*first, "late").await;
    published(&*first, vec![to("late", "job")]).await;
    let mut deliveries = subscribed(&*first, "late", 1).await;
    let early = received(&mut deliveries, 1).await;
    first.close().await;
    within(PATIENCE, deliveries.next(1)).await.expect("it is told").expect_err("the session is over");
    let mut deliveries = subscribed(&*second, "late", 1).await;
    let again = received(&mut deliveries, 1).await;
    assert!(again[0].redelivered);
    acked(early).await; // too late
    drop((again, deliveries));
    let mut deliveries = subscribed(&*second, "late", 1).await;
    acked(received(&mut deliveries, 1).await).await;
}

async fn only_the_unroutable_are_refused(make: Make<'_>) {
    let broker = make();
    declared(&*broker, "known").await;
    let batch = ["known", "unknown", "known", "nowhere", "unknown", "known"];
    let messages = batch.iter().enumerate().map(|(at, route)| to(route, at.to_string())).collect();
    let results = broker.publish(messages).await;
    for (route, result) in batch.iter().zip(&results) {
        match result {
            Ok(()) => assert_eq!(*route, "known"),
            Err(PublishError::Unroutable { route: named }) => assert_eq!(named, route),
            Err(other) => panic!("{route}: {other}"),
        }
    }
    assert_eq!(results.iter().filter(|result| result.is_ok()).count(), 3);
    let mut deliveries = subscribed(&*broker, "known", 10).await;
    let got = received(&mut deliveries, 3).await;
    assert_eq!(bodies(&got), ["0", "2", "5"]);
    acked(got).await;
    assert!(broker.publish(Vec::new()).await.is_empty());
}

async fn two_sessions_share_a_queue(make: Make<'_>) {
    let (left, right) = (make(), make());
    declared(&*left, "shared").await;
    let mut one = subscribed(&*left, "shared", 1).await;
    let mut two = subscribed(&*right, "shared", 1).await;
    published(&*left, numbered("shared", 2)).await;
    let mut got = received(&mut one, 1).await;
    got.extend(received(&mut two, 1).await);
    let mut seen = bodies(&got);
    seen.sort();
    assert_eq!(seen, ["0", "1"], "each message to one of them");
    acked(got).await;
}

async fn one_session_reads_two_queues(make: Make<'_>) {
    let broker = make();
    declared(&*broker, "fresh").await;
    declared(&*broker, "due").await;
    published(&*broker, numbered("fresh", 3)).await;
    published(&*broker, vec![to("due", "a"), to("due", "b")]).await;
    let both = ["fresh", "due"].map(|name| Subscription { queue: format!("q.{name}"), prefetch: 2 });
    let mut deliveries = broker.subscribe(&both).await.expect("subscribed");
    assert_eq!(deliveries.len(), 2);
    let due = received(&mut deliveries[1], 2).await;
    let fresh = received(&mut deliveries[0], 2).await;
    assert_eq!((bodies(&due), bodies(&fresh)), (vec!["a".into(), "b".into()], vec!["0".into(), "1".into()]));
    acked(due.into_iter().chain(fresh)).await; // one call, receipts of both queues
    acked(received(&mut deliveries[0], 1).await).await;
    let missing = Subscription { queue: "q.missing".to_owned(), prefetch: 1 };
    match broker.subscribe(&[missing]).await.map(|_| ()) {
        Err(BrokerError::Refused { why, .. }) => assert!(why.contains("q.missing"), "{why}"),
        other => panic!("a missing queue is refused, not {other:?}"),
    }
}

async fn a_batch_may_exceed_the_window(make: Make<'_>) {
    let broker = make();
    declared(&*broker, "window").await;
    let count = u32::try_from(BrokerLimits::default().publish_window * 2 + 345).expect("small");
    published(&*broker, numbered("window", count)).await;
    let mut deliveries = subscribed(&*broker, "window", 2_000).await;
    for number in 0..count {
        let got = received(&mut deliveries, 1).await;
        assert_eq!(bodies(&got), [number.to_string()]);
        if number % 500 == 0 {
            tokio::spawn(acked(got)); // while receiving goes on
        } else {
            acked(got).await;
        }
    }
}

async fn publishers_do_not_disturb_each_other(make: Make<'_>) {
    let broker = make();
    declared(&*broker, "many").await;
    let publishing = (0..20).map(|task| {
        let broker = broker.clone();
        tokio::spawn(async move {
            let mut messages: Vec<_> = (0..50).map(|number| to("many", format!("{task}/{number:02}"))).collect();
            messages.push(to(&format!("nobody-{task}"), "x"));
            let results = broker.publish(messages).await;
            assert!(results[..50].iter().all(Result::is_ok), "{results:?}");
            match &results[50] {
                Err(PublishError::Unroutable { route }) => assert_eq!(*route, format!("nobody-{task}")),
                other => panic!("{other:?}"),
            }
        })
    });
    for task in publishing.collect::<Vec<_>>() {
        task.await.expect("published");
    }
    let mut deliveries = subscribed(&*broker, "many", 2_000).await;
    let got = received(&mut deliveries, 1_000).await;
    let mut seen = bodies(&got);
    for task in 0..20 {
        let own: Vec<_> = seen.iter().filter(|body| body.starts_with(&format!("{task}/"))).collect();
        assert!(own.is_sorted(), "order is kept within a call");
    }
    seen.sort();
    seen.dedup();
    assert_eq!(seen.len(), 1_000);
    acked(got).await;
}

async fn waiting_can_be_given_up(make: Make<'_>) {
    let broker = make();
    declared(&*broker, "cancel").await;
    let mut deliveries = subscribed(&*broker, "cancel", 300).await;
    let publishing = tokio::spawn({
        let broker = broker.clone();
        async move {
            for part in 0..20 {
                published(&*broker, (0..10).map(|number| to("cancel", (part * 10 + number).to_string())).collect())
                    .await;
            }
        }
    });
    let mut got = Vec::new();
    for round in 0_u32.. {
        if got.len() == 200 {
            break;
        }
        assert!(round < 1_000_000, "only {} came", got.len());
        if round.is_multiple_of(3) {
            got.extend(deliveries.next(7).now_or_never().transpose().expect("the session lives").unwrap_or_default());
            tokio::task::yield_now().await;
        } else if let Ok(some) = within(Duration::from_millis(2), deliveries.next(7)).await {
            got.extend(some.expect("the session lives"));
        }
    }
    publishing.await.expect("published");
    assert_eq!(bodies(&got), (0..200).map(|number| number.to_string()).collect::<Vec<_>>(), "none lost, none twice");
    acked(got).await;
}

async fn a_consumer_that_waits_is_woken(make: Make<'_>) {
    let (consumer, publisher) = (make(), make());
    declared(&*consumer, "wake").await;
    let mut deliveries = subscribed(&*consumer, "wake", 10).await;
    for number in 0..5 {
        assert!(deliveries.next(1).now_or_never().is_none());
        published(&*publisher, vec![to("wake", number.to_string())]).await;
        let got = received(&mut deliveries, 1).await;
        assert_eq!(bodies(&got), [number.to_string()]);
        acked(got).await;
    }
}

async fn depth_counts(make: Make<'_>) {
    let broker = make();
    assert_eq!(broker.depth("q.depth").await.expect("answered"), None);
    declared(&*broker, "depth").await;
    published(&*broker, numbered("depth", 3)).await;
    let depth = broker.depth("q.depth").await.expect("answered").expect("it exists");
    assert_eq!((depth.ready, depth.consumers), (3, 0));
    let mut deliveries = subscribed(&*broker, "depth", 2).await;
    let got = received(&mut deliveries, 2).await;
    let depth = broker.depth("q.depth").await.expect("answered").expect("it exists");
    assert_eq!((depth.ready, depth.consumers), (1, 1));
    assert!(depth.unacked.is_none_or(|unacked| unacked == 2), "{depth:?}");
    assert!(broker.depth(DEAD_QUEUE).await.expect("answered").is_some());
    assert_eq!(broker.health(), Ok(()));
    acked(got).await;
}

async fn closing_ends_the_handle(make: Make<'_>) {
    let (broker, other) = (make(), make());
    declared(&*broker, "close").await;
    published(&*broker, numbered("close", 2)).await;
    let mut deliveries = subscribed(&*broker, "close", 1).await;
    let held = received(&mut deliveries, 1).await;
    broker.close().await;
    assert!(broker.health().is_err());
    assert!(matches!(broker.publish(numbered("close", 1)).await[..], [Err(PublishError::Unavailable(_))]));
    assert!(broker.subscribe(&[Subscription { queue: "q.close".to_owned(), prefetch: 1 }]).await.is_err());
    let got = received(&mut subscribed(&*other, "close", 10).await, 2).await;
    assert_eq!(got.iter().filter(|delivery| delivery.redelivered).count(), 1);
    drop(held);
    acked(got).await;
}

mod sqlite {
    use super::*;

    /// Far more than the 100 ms in which a message of another process is seen, far less than the fallback poll would need
    /// for all of them.
    const SOON: Duration = Duration::from_secs(10);

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_publish_of_another_process_is_noticed() {
        let dir = tempfile::tempdir().expect("a directory");
        let here = SqliteBroker::new(open(dir.path()).await, clock(), DEFAULT_LEASE);
        let elsewhere = SqliteBroker::new(open(dir.path()).await, clock(), DEFAULT_LEASE);
        declared(&here, "far").await;
        let mut deliveries = subscribed(&here, "far", 10).await;
        let exchanged = within(SOON, async {
            for number in 0..50 {
                assert!(deliveries.next(1).now_or_never().is_none());
                published(&elsewhere, vec![to("far", number.to_string())]).await;
                acked(received(&mut deliveries, 1).await).await;
            }
        });
        exchanged.await.expect("fifty wakes by watching; polling alone takes a second each");
    }

    #[test]
    fn messages_of_a_crashed_process_come_back_after_its_lease() {
        let dir = tempfile::tempdir().expect("a directory");
        let manual = ManualClock::new(Timestamp::from_secs(1_000));
        let broker_in = |path: std::path::PathBuf| {
            let clock = Arc::new(manual.clone());
            async move { SqliteBroker::new(open(&path).await, clock, DEFAULT_LEASE) }
        };
        let crashing = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
        let held = crashing.block_on(async {
            let broker = broker_in(dir.path().to_owned()).await;
            declared(&broker, "crash").await;
            published(&broker, numbered("crash", 3)).await;
            let mut deliveries = subscribed(&broker, "crash", 2).await;
            let got = received(&mut deliveries, 2).await;
            (broker, deliveries, got)
        });
        crashing.shutdown_background(); // nobody renews, nobody says goodbye
        std::mem::forget(held);
        let living = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
        living.block_on(async {
            let broker = broker_in(dir.path().to_owned()).await;
            let mut deliveries = subscribed(&broker, "crash", 10).await;
            let third = received(&mut deliveries, 1).await;
            assert_eq!(bodies(&third), ["2"], "the others are in hand elsewhere");
            nothing_comes(&mut deliveries).await;
            let mut back = Vec::new();
            while back.len() < 2 {
                manual.advance(DEFAULT_LEASE / 4); // in steps, so that the living one renews
                if let Ok(some) = within(A_WHILE, deliveries.next(2)).await {
                    back.extend(some.expect("the living session is not swept"));
                }
            }
            assert_eq!(bodies(&back), ["0", "1"]);
            assert!(back.iter().all(|delivery| delivery.redelivered));
            acked(third.into_iter().chain(back)).await;
            assert_eq!(broker.depth("q.crash").await.expect("answered").expect("exists").unacked, Some(0));
        });
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn writers_of_two_processes_do_not_starve_each_other() {
        let dir = tempfile::tempdir().expect("a directory");
        let (one, two) = (open(dir.path()).await, open(dir.path()).await);
        let brokers = [one, two].map(|db| Arc::new(SqliteBroker::new(db, clock(), DEFAULT_LEASE)));
        declared(&*brokers[0], "busy").await;
        let writing = brokers.iter().cloned().map(|broker| {
            tokio::spawn(async move {
                for part in 0..50 {
                    published(&*broker, vec![to("busy", part.to_string())]).await;
                }
            })
        });
        for writer in writing.collect::<Vec<_>>() {
            writer.await.expect("every publish was stored");
        }
        assert_eq!(brokers[1].depth("q.busy").await.expect("answered").expect("exists").ready, 100);
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_dropped_broker_leaves_no_thread() {
        let dir = tempfile::tempdir().expect("a directory");
        let db = open(dir.path()).await;
        let watchers = || {
            let tasks = std::fs::read_dir("/proc/self/task").expect("/proc is mounted").filter_map(Result::ok);
            let names = tasks.filter_map(|task| std::fs::read_to_string(task.path().join("comm")).ok());
            names.filter(|name| name.contains("notify")).count()
        };
        let broker = SqliteBroker::new(db.clone(), clock(), DEFAULT_LEASE);
        declared(&broker, "gone").await;
        let deliveries = subscribed(&broker, "gone", 1).await;
        assert!(watchers() > 0, "the file is being watched");
        drop((deliveries, broker));
        within(PATIENCE, async {
            while watchers() > 0 {
                tokio::task::yield_now().await; // other tests of this process have watchers of their own for a while
            }
        })
        .await
        .expect("the watcher's thread ends");
    }
}

mod rabbit_alone {
    use super::*;

    async fn restart(server: &Arc<Rabbit>) {
        let server = server.clone();
        tokio::task::spawn_blocking(move || server.restart()).await.expect("it starts again");
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn messages_survive_a_killed_broker() {
        let server = Arc::new(tokio::task::spawn_blocking(Rabbit::start).await.expect("it starts"));
        let url = server.fresh_vhost();
        declared(&rabbitmq(&url), "kill").await;
        // RabbitMQ writes the directory of its quorum queues up to half a second late: a crash right after a declaration loses
        // the queue's contents, so bring it to the disk in order first
        restart(&server).await;
        let broker = rabbitmq(&url);
        let again = Subscription { queue: "q.kill".to_owned(), prefetch: 100 };
        published(&broker, numbered("kill", 50)).await;
        let mut deliveries = subscribed(&broker, "kill", 10).await;
        let early = received(&mut deliveries, 10).await;
        let killed = server.clone();
        tokio::task::spawn_blocking(move || killed.kill9()).await.expect("it dies");
        within(PATIENCE, deliveries.next(1)).await.expect("it is noticed").expect_err("the session is over");
        assert!(broker.health().is_err());
        acked(early).await; // harmless
        let refused = broker.publish(numbered("kill", 2)).await;
        assert!(refused.iter().all(|result| matches!(result, Err(PublishError::Unavailable(_)))), "{refused:?}");
        restart(&server).await;
        let mut deliveries = within(PATIENCE, async {
            loop {
                // right after the start the queue has no leader yet
                if let Ok(mut all) = broker.subscribe(std::slice::from_ref(&again)).await {
                    break all.pop().expect("one");
                }
            }
        })
        .await
        .expect("subscribed again");
        let got = received(&mut deliveries, 50).await;
        // each once, in any order: what the dead consumer held comes back when its end is noticed, which may be after the rest
        let mut numbers: Vec<u32> = bodies(&got).iter().map(|body| body.parse().expect("a number")).collect();
        numbers.sort_unstable();
        assert_eq!(numbers, (0..50).collect::<Vec<_>>());
        acked(got).await;
        published(&broker, vec![to("kill", "after")]).await;
        assert_eq!(bodies(&received(&mut deliveries, 1).await), ["after"]);
        assert_eq!(broker.health(), Ok(()));
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_lost_connection_is_opened_again_by_itself() {
        let server = Arc::new(tokio::task::spawn_blocking(Rabbit::start).await.expect("it starts"));
        let broker = rabbitmq(&server.fresh_vhost());
        declared(&broker, "idle").await;
        published(&broker, numbered("idle", 1)).await;
        restart(&server).await;
        within(PATIENCE, async {
            while broker.health().is_err() {
                tokio::task::yield_now().await;
            }
        })
        .await
        .expect("nobody used it, and yet it is healthy again");
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_blocked_publisher_is_told_and_acks_go_on() {
        let server = Arc::new(tokio::task::spawn_blocking(Rabbit::start).await.expect("it starts"));
        let limits = BrokerLimits { confirm_timeout: Duration::from_secs(2), ..BrokerLimits::default() };
        let broker = RabbitMq::new(&server.fresh_vhost(), limits, clock()).expect("valid");
        declared(&broker, "blocked").await;
        published(&broker, numbered("blocked", 2)).await;
        let mut deliveries = subscribed(&broker, "blocked", 1).await;
        let got = received(&mut deliveries, 1).await;
        let control = async |arguments: &'static [&'static str]| {
            let server = server.clone();
            tokio::task::spawn_blocking(move || server.ctl(arguments)).await.expect("it is told");
        };
        control(&["set_vm_memory_high_watermark", "0.0001"]).await;
        let blocked = broker.publish(numbered("blocked", 3)).await;
        assert!(blocked.iter().all(|result| matches!(result, Err(PublishError::Unconfirmed(_)))), "{blocked:?}");
        let why = broker.health().expect_err("blocked");
        assert!(why.contains("blocked: low on memory"), "{why}");
        let refused = broker.publish(numbered("blocked", 1)).await; // known to be blocked: nothing is sent
        assert!(matches!(refused[..], [Err(PublishError::Unavailable(_))]), "{refused:?}");
        acked(got).await;
        let second = received(&mut deliveries, 1).await;
        assert_eq!(bodies(&second), ["1"], "the ack arrived, or the prefetch would keep this one back");
        acked(second).await;
        control(&["set_vm_memory_high_watermark", "0.6"]).await;
        within(PATIENCE, async {
            while broker.health().is_err() {
                tokio::task::yield_now().await;
            }
        })
        .await
        .expect("unblocked");
        published(&broker, vec![to("blocked", "after")]).await;
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_silent_broker_is_answered_for_in_time() {
        let server = Arc::new(tokio::task::spawn_blocking(Rabbit::start).await.expect("it starts"));
        let limits = BrokerLimits {
            confirm_timeout: Duration::from_secs(1),
            connect_timeout: Duration::from_secs(1),
            ..BrokerLimits::default()
        };
        let url = server.fresh_vhost();
        let broker = RabbitMq::new(&url, limits, clock()).expect("valid");
        declared(&broker, "silent").await;
        published(&broker, numbered("silent", 1)).await;
        server.pause();
        let results = within(PATIENCE, broker.publish(numbered("silent", 5))).await.expect("bounded");
        assert!(results.iter().all(|result| matches!(result, Err(PublishError::Unconfirmed(_)))), "{results:?}");
        let fresh = RabbitMq::new(&url, limits, clock()).expect("valid");
        let results = within(PATIENCE, fresh.publish(numbered("silent", 1))).await.expect("bounded");
        assert!(matches!(results[..], [Err(PublishError::Unavailable(_))]), "{results:?}");
        server.resume();
        published(&broker, vec![to("silent", "after")]).await;
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_full_queue_nacks() {
        let url = fresh_vhost().await;
        let broker = rabbitmq(&url);
        declared(&broker, "full").await;
        let vhost = url.rsplit('/').next().expect("a vhost").to_owned();
        tokio::task::spawn_blocking(move || {
            rabbit().ctl(&[
                "set_policy",
                "-p",
                &vhost,
                "small",
                "^q.full$",
                r#"{"max-length":1}"#,
                "--apply-to",
                "queues",
            ])
        })
        .await
        .expect("limited");
        let (mut stored, mut nacked) = (0, 0);
        for _ in 0..100 {
            // the queue tells its publishers that it is full a little after it is
            for result in broker.publish(numbered("full", 5)).await {
                match result {
                    Ok(()) => stored += 1,
                    Err(PublishError::Nacked(_)) => nacked += 1,
                    Err(other) => panic!("{other}"),
                }
            }
        }
        assert!(stored > 0 && nacked > 0, "{nacked} nacked, {stored} stored");
        let depth = broker.depth("q.full").await.expect("answered").expect("exists");
        assert_eq!(depth.ready, stored, "what was nacked was not stored");
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_message_that_cannot_be_read_goes_to_the_dead_queue_alone() {
        let url = fresh_vhost().await;
        let broker = rabbitmq(&url);
        declared(&broker, "bad").await;
        published(&broker, numbered("bad", 3)).await;
        publish_raw(&url, "lanes", "bad", "fffe", "poison").await;
        published(&broker, vec![to("bad", "3"), to("bad", "4")]).await;
        let mut seen = BTreeSet::new();
        let mut sessions = 0;
        within(PATIENCE, async {
            while seen.len() < 5 {
                sessions += 1;
                let mut deliveries = subscribed(&broker, "bad", 10).await;
                while let Ok(some) = deliveries.next(1).await {
                    seen.extend(bodies(&some));
                    acked(some).await;
                    if seen.len() == 5 {
                        break;
                    }
                }
            }
        })
        .await
        .expect("the good ones come");
        assert!((2..=5).contains(&sessions), "{sessions} sessions");
        assert_eq!(seen, ["0", "1", "2", "3", "4"].map(str::to_owned).into());
        has_ready(&broker, DEAD_QUEUE, 1..=2).await;
    }

    /// Publishes what the client would not: a message id of any bytes, here in hex. Debian's pika takes them as they are.
    async fn publish_raw(url: &str, exchange: &str, route: &str, message_id: &str, body: &str) {
        const SCRIPT: &str = "import pika, sys\n\
            url, exchange, route, message_id, body = sys.argv[1:]\n\
            properties = pika.BasicProperties(message_id=bytes.fromhex(message_id), delivery_mode=2)\n\
            channel = pika.BlockingConnection(pika.URLParameters(url)).channel()\n\
            channel.confirm_delivery()\n\
            channel.basic_publish(exchange, route, body, properties, mandatory=True)";
        let mut python = Command::new("/usr/bin/python3");
        python.args(["-c", SCRIPT, url, exchange, route, message_id, body]);
        let output = tokio::task::spawn_blocking(move || python.output()).await.expect("it ends").expect("it runs");
        assert!(output.status.success(), "apt-get install -y python3-pika, or run scripts/test: {output:?}");
    }

    /// A search that races with a returning message may leave a copy beside what it moved, never less.
    async fn has_ready(broker: &RabbitMq, queue: &str, wanted: RangeInclusive<u64>) {
        within(PATIENCE, async {
            while !wanted.contains(&broker.depth(queue).await.expect("answered").expect("exists").ready) {}
        })
        .await
        .unwrap_or_else(|late| panic!("{queue} never had {wanted:?} ready: {late}"));
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn what_cannot_be_read_in_the_dead_queue_is_parked_and_disturbs_no_lane() {
        let url = fresh_vhost().await;
        let broker = rabbitmq(&url);
        declared(&broker, "calm").await;
        let mut lane = subscribed(&broker, "calm", 10).await;
        published(&broker, vec![to("calm", "in hand")]).await;
        let in_hand = received(&mut lane, 1).await;
        for (message_id, body) in [("61", "one"), ("ff", "bad"), ("62", "two"), ("fe", "worse")] {
            publish_raw(&url, DEAD_QUEUE, "calm", message_id, body).await;
        }
        let dead = Subscription { queue: DEAD_QUEUE.to_owned(), prefetch: 10 };
        let mut seen = BTreeSet::new();
        within(PATIENCE, async {
            loop {
                let Ok(mut streams) = broker.subscribe(std::slice::from_ref(&dead)).await else { continue };
                // the session ends at the next unreadable one; when it is quiet there is none left
                loop {
                    match within(A_WHILE * 3, streams[0].next(1)).await {
                        Ok(Ok(some)) => {
                            seen.extend(bodies(&some));
                            acked(some).await;
                        }
                        Ok(Err(_)) => break,
                        Err(_quiet) if seen.len() < 2 => {}
                        Err(_quiet) => return,
                    }
                }
            }
        })
        .await
        .expect("the readable ones come");
        assert_eq!(seen, ["one", "two"].map(str::to_owned).into());
        has_ready(&broker, UNREADABLE_QUEUE, 2..=4).await;
        has_ready(&broker, DEAD_QUEUE, 0..=0).await;
        published(&broker, vec![to("calm", "after")]).await;
        let after = received(&mut lane, 1).await;
        assert_eq!((bodies(&after), after[0].redelivered), (vec!["after".to_owned()], false), "the same session");
        acked(in_hand.into_iter().chain(after)).await;
        nothing_comes(&mut lane).await;
        assert_eq!(broker.health(), Ok(()));
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_deleted_queue_ends_the_session() {
        let url = fresh_vhost().await;
        let broker = rabbitmq(&url);
        declared(&broker, "deleted").await;
        let mut deliveries = subscribed(&broker, "deleted", 1).await;
        let vhost = url.rsplit('/').next().expect("a vhost").to_owned();
        tokio::task::spawn_blocking(move || rabbit().ctl(&["delete_queue", "-p", &vhost, "q.deleted"]))
            .await
            .expect("deleted");
        let error = within(PATIENCE, deliveries.next(1)).await.expect("it is noticed").expect_err("over");
        assert!(error.to_string().contains("cancelled the consumer"), "{error}");
        let lost = broker.publish(numbered("deleted", 1)).await;
        assert!(matches!(lost[..], [Err(PublishError::Unroutable { .. })]), "{lost:?}");
        declared(&broker, "deleted").await;
        let mut deliveries = subscribed(&broker, "deleted", 1).await;
        published(&broker, numbered("deleted", 1)).await;
        acked(received(&mut deliveries, 1).await).await;
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_queue_with_other_settings_is_refused_with_advice() {
        let url = fresh_vhost().await;
        let vhost = url.rsplit('/').next().expect("a vhost").to_owned();
        tokio::task::spawn_blocking(move || {
            let declare = format!(
                "rabbit_amqqueue:declare(rabbit_misc:r(<<\"{vhost}\">>, queue, <<\"q.other\">>), true, false, \
                 [{{<<\"x-queue-type\">>, longstr, <<\"quorum\">>}}], none, <<\"guest\">>)."
            );
            rabbit().ctl(&["eval", &declare])
        })
        .await
        .expect("declared");
        let broker = rabbitmq(&url);
        let spec = QueueSpec { name: "q.other".to_owned(), route: "other".to_owned() };
        let error = broker.declare(&[spec]).await.expect_err("other settings");
        let text = error.to_string();
        assert!(matches!(error, BrokerError::Refused { .. }), "{text}");
        for part in ["q.other", "inequivalent arg", "delete_queue"] {
            assert!(text.contains(part), "{part} is not in: {text}");
        }
        declared(&broker, "fine").await; // the handle is none the worse
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn refusals_say_what_to_do_and_hide_the_password() {
        let url = fresh_vhost().await;
        let base = url.rsplit_once('/').expect("a vhost").0.to_owned();
        let cases = [
            (format!("{base}/nowhere"), "%2f"),
            (format!("{base}/"), "%2f"),
            (url.replace("guest:guest", "guest:wr0ng"), "password"),
            ("amqp://guest:wr0ng@127.0.0.1:1/%2f".to_owned(), "connecting"),
        ];
        for (url, advice) in cases {
            let broker = rabbitmq(&url);
            let error = broker.declare(&[]).await.expect_err("refused").to_string();
            assert!(error.contains(advice), "{advice} is not in: {error}");
            assert!(!error.contains("wr0ng") && !error.contains("guest:guest"), "{error}");
        }
    }
}
