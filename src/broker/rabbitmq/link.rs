//! One connection to the broker: opened on demand, watched, and reopened with a jittered, growing delay after it was lost.

use std::fmt;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use futures_util::{Stream, StreamExt};
use lapin::{Channel, Connection, ConnectionProperties, Event};
use tokio_util::task::AbortOnDropHandle;

use super::address::Address;
use crate::broker::{BrokerError, BrokerLimits};
use crate::clock::{self, SharedClock, within};

/// First delay before a lost connection is opened again without anybody asking for it.
const FIRST_REOPEN_DELAY: Duration = Duration::from_millis(200);
/// Longest delay between two such attempts.
const MAX_REOPEN_DELAY: Duration = Duration::from_secs(10);
/// Waits on one unanswered attempt before a new one is made.
const MAX_WAITS_PER_ATTEMPT: u32 = 12;
/// Longest wait for the broker's goodbye.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);

/// The purpose of the connection that messages are published on.
pub(super) const PUBLISHING: &str = "publishing";
/// Largest frame of that connection unless the url says `frame_max`: the client keeps room for 64 of them. Bodies take many
/// frames, properties and headers of a message have to fit one. A consumer has to take whatever others have published.
const PUBLISHING_FRAME_MAX: u32 = 32 * 1024;

/// A connection with one purpose.
pub(super) struct Link {
    purpose: &'static str,
    address: Arc<Address>,
    limits: BrokerLimits,
    clock: SharedClock,
    state: Mutex<State>,
    /// Held while connecting, so that many callers make one attempt; what is in it was not answered in time.
    opening: tokio::sync::Mutex<Option<Attempt>>,
}

#[derive(Default)]
struct State {
    open: Option<Arc<Open>>,
    failure: Option<BrokerError>,
    attempts: u64,
    /// A task is opening it again.
    trying: bool,
    closed: bool,
}

/// An attempt to connect that nothing has answered yet.
///
/// The client's thread for it ends only with an answer, so a broker that accepts and stays silent must not cost a thread per
/// attempt: the next caller goes on waiting for this one.
struct Attempt {
    task: AbortOnDropHandle<lapin::Result<Connection>>,
    waits: u32,
}

/// An open connection.
pub(super) struct Open {
    connection: Connection,
    blocked: Arc<Mutex<Option<String>>>,
}

impl Open {
    /// Whether it can still carry anything.
    pub(super) fn is_connected(&self) -> bool {
        self.connection.status().connected()
    }

    /// The broker's reason for not reading from this connection.
    pub(super) fn blocked(&self) -> Option<String> {
        lock(&self.blocked).clone()
    }

    /// The largest frame; properties and headers of a message have to fit one.
    pub(super) fn frame_max(&self) -> usize {
        usize::try_from(self.connection.configuration().frame_max()).unwrap_or(usize::MAX)
    }
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Link").field("purpose", &self.purpose).field("health", &self.health()).finish_non_exhaustive()
    }
}

impl Link {
    pub(super) fn new(
        purpose: &'static str,
        address: Arc<Address>,
        limits: BrokerLimits,
        clock: SharedClock,
    ) -> Arc<Self> {
        let opening = tokio::sync::Mutex::default();
        Arc::new(Self { purpose, address, limits, clock, state: Mutex::default(), opening })
    }

    /// Whether anybody has wanted this connection.
    pub(super) fn was_opened(&self) -> bool {
        lock(&self.state).attempts > 0
    }

    /// Why it cannot be used, if it is wanted and cannot.
    pub(super) fn health(&self) -> Result<(), String> {
        let state = lock(&self.state);
        if state.closed {
            return Err("this broker handle was closed".to_owned());
        }
        match (&state.open, &state.failure) {
            (Some(open), _) if open.is_connected() => match open.blocked() {
                Some(why) => Err(format!("blocked: {why}")),
                None => Ok(()),
            },
            (_, Some(failure)) => Err(failure.to_string()),
            (Some(_), None) => Err("the connection was lost".to_owned()),
            (None, None) => Ok(()),
        }
    }

    /// The connection; opened now when there is none. Whoever asks while somebody else is connecting shares the result.
    pub(super) async fn get(self: &Arc<Self>) -> Result<Arc<Open>, BrokerError> {
        let seen = {
            let state = lock(&self.state);
            if let Some(open) = usable(&state) {
                return Ok(open);
            }
            if state.closed {
                return Err(self.address.unavailable("this broker handle was closed"));
            }
            state.attempts
        };
        let mut attempt = self.opening.lock().await;
        {
            let state = lock(&self.state);
            if let Some(open) = usable(&state) {
                return Ok(open);
            }
            if let (true, Some(failure)) = (state.attempts > seen, &state.failure) {
                return Err(failure.clone());
            }
        }
        let result = self.open(&mut attempt).await;
        let mut state = lock(&self.state);
        state.attempts += 1;
        match result {
            Ok(_) if state.closed => Err(self.address.unavailable("this broker handle was closed")),
            Ok(open) => {
                state.failure = None;
                state.open = Some(open.clone());
                Ok(open)
            }
            Err(error) => {
                state.failure = Some(error.clone());
                drop(state);
                self.keep_trying();
                Err(error)
            }
        }
    }

    async fn open(self: &Arc<Self>, unanswered: &mut Option<Attempt>) -> Result<Arc<Open>, BrokerError> {
        let mut attempt = match unanswered.take() {
            Some(old) if old.waits < MAX_WAITS_PER_ATTEMPT => old,
            _ => Attempt {
                task: AbortOnDropHandle::new(tokio::spawn(dial(self.address.clone(), self.purpose))),
                waits: 0,
            },
        };
        let Ok(answer) = within(self.limits.connect_timeout, &mut attempt.task).await else {
            attempt.waits += 1;
            *unanswered = Some(attempt);
            return Err(self
                .address
                .unavailable(format!("connecting: no answer within {:?}", self.limits.connect_timeout)));
        };
        let connection = answer
            .map_err(|error| self.address.unavailable(format!("connecting: {error}")))?
            .map_err(|error| self.address.explain("connecting", &error))?;
        let blocked = Arc::new(Mutex::new(None));
        tokio::spawn(watch(Arc::downgrade(self), connection.events_listener(), blocked.clone()));
        Ok(Arc::new(Open { connection, blocked }))
    }

    /// A new channel on the connection.
    pub(super) async fn channel(self: &Arc<Self>) -> Result<(Arc<Open>, Channel), BrokerError> {
        let open = self.get().await?;
        let channel = within(self.limits.confirm_timeout, open.connection.create_channel())
            .await
            .map_err(|late| self.address.unavailable(format!("opening a channel: {late}")))?
            .map_err(|error| self.address.explain("opening a channel", &error))?;
        Ok((open, channel))
    }

    /// Ends the connection in order; it is not opened again.
    pub(super) async fn close(&self) {
        let open = {
            let mut state = lock(&self.state);
            state.closed = true;
            state.open.take()
        };
        if let Some(open) = open
            && open.is_connected()
        {
            let goodbye = open.connection.close(200, "OK".into());
            match within(CLOSE_TIMEOUT, goodbye).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => {
                    tracing::debug!(%error, purpose = self.purpose, "the broker connection did not close in order");
                }
                Err(late) => {
                    tracing::debug!(%late, purpose = self.purpose, "the broker connection did not close in order");
                }
            }
        }
    }

    /// Opens the connection without anybody asking, so that health tells the truth even when nobody uses it meanwhile.
    fn keep_trying(self: &Arc<Self>) {
        let mut state = lock(&self.state);
        if !state.closed && !std::mem::replace(&mut state.trying, true) {
            tokio::spawn(Self::reopen(Arc::downgrade(self)));
        }
    }

    async fn reopen(weak: Weak<Self>) {
        let mut delay = FIRST_REOPEN_DELAY;
        loop {
            let Some(clock) = weak.upgrade().map(|link| link.clock.clone()) else { return };
            clock::sleep(&*clock, jittered(delay)).await;
            let Some(link) = weak.upgrade() else { return };
            if link.get().await.is_ok() || lock(&link.state).closed {
                let lost_again = {
                    let mut state = lock(&link.state);
                    state.trying = false;
                    !state.closed && usable(&state).is_none()
                };
                if lost_again {
                    link.keep_trying();
                }
                return;
            }
            delay = (delay * 2).min(MAX_REOPEN_DELAY);
        }
    }
}

/// A new connection, named after its purpose in the broker's list of connections.
async fn dial(address: Arc<Address>, purpose: &'static str) -> lapin::Result<Connection> {
    if address.is_tls() && rustls::crypto::CryptoProvider::get_default().is_none() {
        // whoever was first decides; both are the same provider
        drop(rustls::crypto::ring::default_provider().install_default());
    }
    let name = format!("lanes {purpose} ({})", std::process::id());
    let properties = ConnectionProperties::default().with_connection_name(name.into());
    let mut uri = address.uri();
    if purpose == PUBLISHING {
        uri.query.frame_max.get_or_insert(PUBLISHING_FRAME_MAX);
    }
    Connection::connect_uri(uri, properties).await
}

/// A connection of one's own, for a purpose that ends it.
pub(super) async fn connect(
    address: &Arc<Address>,
    limits: BrokerLimits,
    purpose: &'static str,
) -> Result<Connection, BrokerError> {
    within(limits.connect_timeout, dial(address.clone(), purpose))
        .await
        .map_err(|late| address.unavailable(format!("connecting: {late}")))?
        .map_err(|error| address.explain("connecting", &error))
}

fn usable(state: &State) -> Option<Arc<Open>> {
    state.open.as_ref().filter(|open| open.is_connected()).cloned()
}

/// Follows one connection to its end, then opens the next. Holds nothing that keeps the connection or the link alive.
fn watch(
    link: Weak<Link>,
    events: impl Stream<Item = Event> + Send + 'static,
    blocked: Arc<Mutex<Option<String>>>,
) -> futures_util::future::BoxFuture<'static, ()> {
    Box::pin(async move {
        let mut events = pin!(events);
        while let Some(event) = events.next().await {
            match event {
                Event::ConnectionBlocked(why) => {
                    tracing::warn!(%why, "the broker stopped reading what is published");
                    *lock(&blocked) = Some(why);
                }
                Event::ConnectionUnblocked => {
                    tracing::info!("the broker reads again what is published");
                    *lock(&blocked) = None;
                }
                Event::Error(error) => {
                    tracing::debug!(%error, "broker connection lost");
                    break;
                }
                _ => {}
            }
        }
        if let Some(link) = link.upgrade() {
            link.keep_trying();
        }
    })
}

/// Between `delay` and one and a half times it, so that many workers do not come back in one moment.
fn jittered(delay: Duration) -> Duration {
    // seeded anew by the system
    let per_mille = u32::try_from(RandomState::new().build_hasher().finish() % 1_000).unwrap_or(0);
    delay + delay / 2_000 * per_mille
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
