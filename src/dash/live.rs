//! One look for all: a task that looks while somebody watches, and shares what it saw.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

use super::Source;
use crate::clock::{self, SharedClock, Timestamp};
use crate::observe::Picture;

/// Time between two looks.
const EVERY: Duration = Duration::from_secs(2);
/// After a page was asked for, somebody is taken to look at it for so long.
const LOOKED_AT_FOR: Duration = Duration::from_secs(10);
/// A look that is older is not shown to somebody who comes.
const FRESH: Duration = Duration::from_secs(5);
/// Longest wait of a page for a look.
const WAIT_MAX: Duration = Duration::from_secs(5);

/// What was seen.
#[derive(Debug)]
pub(super) struct Snapshot {
    /// Higher with each look.
    pub number: u64,
    /// When, by this process's clock.
    pub taken_at: Timestamp,
    /// Of how many changes of ours it knows.
    changes: u64,
    /// What.
    pub picture: Picture,
}

/// The latest look, and who wants the next one.
#[derive(Debug)]
pub(super) struct Live {
    latest: watch::Sender<Option<Arc<Snapshot>>>,
    wanted: Notify,
    /// How often somebody has changed something here: what was seen before is old then.
    changes: AtomicU64,
    look_now: Notify,
    watchers: AtomicUsize,
    /// When a page was asked for last.
    asked_at: AtomicI64,
    /// Somebody wants one look, and no more after it.
    glanced: AtomicBool,
    clock: SharedClock,
}

impl Live {
    pub fn new(clock: SharedClock) -> Self {
        let (latest, _) = watch::channel(None);
        let asked_at = AtomicI64::new(i64::MIN);
        let (wanted, changes, look_now) = Default::default();
        let (watchers, glanced) = (AtomicUsize::new(0), AtomicBool::new(false));
        Self { latest, wanted, changes, look_now, watchers, asked_at, glanced, clock }
    }

    /// Looks while somebody watches, until `stop`.
    pub async fn run(self: Arc<Self>, source: Arc<dyn Source>, stop: CancellationToken) {
        for number in 1.. {
            let look = async {
                while !self.is_watched() {
                    self.wanted.notified().await;
                }
                let changes = self.changes.load(Ordering::Acquire);
                (changes, source.look().await)
            };
            let (changes, picture) = tokio::select! {
                () = stop.cancelled() => return,
                seen = look => seen,
            };
            let taken_at = self.clock.now();
            // whoever asked while it was taken gets this one
            if self.changes.load(Ordering::Acquire) == changes {
                self.glanced.store(false, Ordering::Release);
            }
            self.latest.send_replace(Some(Arc::new(Snapshot { number, taken_at, changes, picture })));
            tokio::select! {
                () = stop.cancelled() => return,
                () = self.look_now.notified() => {}
                () = clock::sleep(&*self.clock, EVERY) => {}
            }
        }
    }

    fn is_watched(&self) -> bool {
        let asked_at = Timestamp::from_micros(self.asked_at.load(Ordering::Acquire));
        self.watchers.load(Ordering::Acquire) > 0
            || self.glanced.load(Ordering::Acquire)
            || self.clock.now().since(asked_at) <= LOOKED_AT_FOR
    }

    /// What was seen a moment ago, for a page; waits for a look when nobody has watched. `None` = it takes too long.
    pub async fn fresh(&self) -> Option<Arc<Snapshot>> {
        self.asked_at.store(self.clock.now().as_micros(), Ordering::Release);
        self.wanted.notify_one();
        self.latest_fresh().await
    }

    /// The same for a probe, which will not look again soon: at most one look is made for it, and none after it.
    pub async fn glance(&self) -> Option<Arc<Snapshot>> {
        let is_fresh = self.latest.borrow().as_ref().is_some_and(|snapshot| self.is_fresh(snapshot));
        if !is_fresh {
            self.glanced.store(true, Ordering::Release);
            self.wanted.notify_one();
        }
        self.latest_fresh().await
    }

    fn is_fresh(&self, snapshot: &Snapshot) -> bool {
        let is_late = self.clock.now().since(snapshot.taken_at) > FRESH;
        !is_late && snapshot.changes >= self.changes.load(Ordering::Acquire)
    }

    async fn latest_fresh(&self) -> Option<Arc<Snapshot>> {
        let mut seen = self.latest.subscribe();
        let is_fresh =
            |snapshot: &Option<Arc<Snapshot>>| snapshot.as_ref().is_some_and(|snapshot| self.is_fresh(snapshot));
        clock::within(WAIT_MAX, seen.wait_for(is_fresh)).await.ok()?.ok()?.clone()
    }

    /// Somebody has changed something: he is not shown what was before.
    pub fn change(&self) {
        self.changes.fetch_add(1, Ordering::AcqRel);
        self.look_now.notify_one();
    }

    /// Watches until dropped.
    pub fn watch(self: &Arc<Self>) -> Watching {
        self.watchers.fetch_add(1, Ordering::AcqRel);
        self.wanted.notify_one();
        // what was seen before is no news: the page has shown it
        Watching { live: Arc::clone(self), seen: self.latest.subscribe() }
    }
}

/// Somebody who watches.
#[derive(Debug)]
pub(super) struct Watching {
    live: Arc<Live>,
    seen: watch::Receiver<Option<Arc<Snapshot>>>,
}

impl Watching {
    /// The next look.
    pub async fn next(&mut self) -> Option<Arc<Snapshot>> {
        self.seen.changed().await.ok()?;
        self.seen.borrow_and_update().clone()
    }
}

impl Drop for Watching {
    fn drop(&mut self) {
        self.live.watchers.fetch_sub(1, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use async_trait::async_trait;

    use super::*;
    use crate::clock::ManualClock;
    use crate::observe::Scope;
    use crate::store::Store;

    /// Counts how often it is looked at.
    #[derive(Debug)]
    struct Counting {
        scope: Scope,
        looks: AtomicUsize,
    }

    #[async_trait]
    impl Source for Counting {
        fn scope(&self) -> &Scope {
            &self.scope
        }

        async fn store(&self) -> Result<Arc<dyn Store>, String> {
            Err("there is none".to_owned())
        }

        async fn look(&self) -> Picture {
            self.looks.fetch_add(1, Ordering::SeqCst);
            Picture::unseen(Timestamp::EPOCH)
        }
    }

    #[tokio::test]
    async fn fifty_who_watch_are_one_reader_and_nobody_is_none() {
        let clock = Arc::new(ManualClock::new(Timestamp::from_secs(1_000)));
        let scope = Scope {
            lanes: Vec::new(),
            concurrency: std::collections::BTreeMap::new(),
            lease: Duration::from_secs(15),
            budgets: crate::policy::pacing::Budgets::default(),
            recent: crate::observe::Recent::default(),
        };
        let source = Arc::new(Counting { scope, looks: AtomicUsize::new(0) });
        let live = Arc::new(Live::new(clock.clone()));
        let stop = CancellationToken::new();
        let running = tokio::spawn(Arc::clone(&live).run(source.clone(), stop.clone()));
        let mut watching: Vec<Watching> = (0..50).map(|_| live.watch()).collect();
        for round in 1..=5 {
            for watcher in &mut watching {
                assert_eq!(watcher.next().await.expect("a look").number, round);
            }
            assert_eq!(source.looks.load(Ordering::SeqCst) as u64, round, "one look for all of them");
            clock.advance(EVERY);
        }
        for watcher in &mut watching {
            watcher.next().await.expect("the look that was under way");
        }
        drop(watching);
        clock.advance(EVERY);
        let looks = source.looks.load(Ordering::SeqCst);
        clock.advance(LOOKED_AT_FOR);
        tokio::task::yield_now().await;
        assert_eq!(source.looks.load(Ordering::SeqCst), looks, "nobody watches");
        let number = live.fresh().await.expect("a look").number;
        assert_eq!(number, looks as u64 + 1, "a page wants a new look");
        stop.cancel();
        running.await.expect("it ends");
    }

    #[tokio::test]
    async fn fifty_probes_are_one_look_and_none_after_it() {
        let clock = Arc::new(ManualClock::new(Timestamp::from_secs(1_000)));
        let scope = Scope {
            concurrency: std::collections::BTreeMap::new(),
            lanes: Vec::new(),
            lease: Duration::from_secs(15),
            budgets: crate::policy::pacing::Budgets::default(),
            recent: crate::observe::Recent::default(),
        };
        let source = Arc::new(Counting { scope, looks: AtomicUsize::new(0) });
        let live = Arc::new(Live::new(clock.clone()));
        let stop = CancellationToken::new();
        let running = tokio::spawn(Arc::clone(&live).run(source.clone(), stop.clone()));
        for round in 1..=3 {
            let probes = futures_util::future::join_all((0..50).map(|_| live.glance())).await;
            for seen in probes {
                assert_eq!(seen.expect("a look").number, round);
            }
            assert_eq!(source.looks.load(Ordering::SeqCst) as u64, round, "one look for all of them");
            clock.advance(EVERY);
            tokio::task::yield_now().await;
            assert_eq!(source.looks.load(Ordering::SeqCst) as u64, round, "and none after it");
            assert_eq!(live.glance().await.expect("that look").number, round, "it is fresh");
            clock.advance(FRESH);
        }
        stop.cancel();
        running.await.expect("it ends");
    }
}
