//! Puts the dashboard together: its own connections to the store, the broker's depths, and who may see it.

use std::net::SocketAddr;
use std::sync::Arc;

use async_trait::async_trait;
use axum::Router;
use secrecy::ExposeSecret;
use tokio::sync::{OnceCell, oneshot};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::backends::Stores;
use super::{AppError, open_broker, scope};
use crate::broker::Broker;
use crate::clock::SharedClock;
use crate::config::specs::{AuthMode, AuthSpec, UserRole, UserSpec};
use crate::config::{Loaded, Specs};
use crate::dash::access::{Access, Passwords, Proxy, Role, Tokens, User};
use crate::dash::place::Place;
use crate::dash::{self, Parts, Setting, Settings, Source};
use crate::governor::operator;
use crate::http::{Server, status};
use crate::job::{NewJob, wire};
use crate::observe::{self, Picture, Recent, Scope};
use crate::publish::Publisher;
use crate::store::{RawLetter, Store};
use crate::telemetry::Telemetry;

/// Connections of the dashboard to the store.
const DASH_CONNECTIONS: u32 = 2;

/// Where the dashboard reads from.
#[derive(Debug)]
struct Doors {
    scope: Scope,
    url: secrecy::SecretString,
    broker: Arc<dyn Broker>,
    /// Opened when the first page is asked for: nobody may ever ask.
    store: OnceCell<Arc<dyn Store>>,
    clock: SharedClock,
}

#[async_trait]
impl Source for Doors {
    fn scope(&self) -> &Scope {
        &self.scope
    }

    async fn store(&self) -> Result<Arc<dyn Store>, String> {
        let open = async || Stores::open(self.url.expose_secret()).await?.handle_apart("dash", DASH_CONNECTIONS);
        self.store.get_or_try_init(open).await.cloned().map_err(|error: AppError| error.to_string())
    }

    async fn look(&self) -> Picture {
        let store = self.store().await;
        let store = store.as_deref().map_err(Clone::clone);
        observe::look(&self.scope, store, Ok(&*self.broker), self.clock.now()).await
    }
}

/// Publishes what people want called again.
#[derive(Debug)]
pub struct Outlet(pub Publisher);

#[async_trait]
impl operator::jobs::Outlet for Outlet {
    async fn publish(&self, job: NewJob) -> Result<Uuid, String> {
        let published = self.0.publish_one(job).await.map_err(|error| error.to_string())?;
        Ok(published.instance)
    }

    async fn republish(&self, found: RawLetter) -> Result<(), String> {
        let RawLetter { letter, payload } = found;
        let message = wire::unpack_raw(&payload.meta, payload.body)?;
        self.0.republish(&letter.lane, message).await.map_err(|error| error.to_string())
    }
}

/// The configuration as people are shown it.
pub fn settings(loaded: &Loaded) -> Settings {
    let setting = |setting: &crate::config::Setting| Setting {
        key: setting.path.join("."),
        value: match &setting.value {
            serde_json::Value::String(text) => text.clone(),
            value => value.to_string(),
        },
        origin: setting.origin.clone(),
    };
    Settings {
        source: loaded.source.clone(),
        warnings: loaded.warnings.clone(),
        rows: loaded.settings.iter().map(setting).collect(),
    }
}

/// What a dashboard is fed with.
pub(super) struct Feed<'a> {
    pub specs: &'a Specs,
    pub settings: Settings,
    pub telemetry: &'a Telemetry,
    pub broker: Arc<dyn Broker>,
    pub clock: &'a SharedClock,
}

/// Whether the dashboard may be served at `address`: where others can reach it, only to those who say who they are.
pub(super) fn is_guarded(specs: &Specs, address: SocketAddr) -> bool {
    address.ip().is_loopback() || specs.http.auth.mode != AuthMode::None
}

/// The dashboard's routes, fed until `stop`.
pub(super) fn router(feed: Feed<'_>, read_only: bool, stop: &CancellationToken) -> Router {
    let Feed { specs, settings, telemetry, broker, clock } = feed;
    let (url, clock) = (specs.store.url.clone(), Arc::clone(clock));
    let outlet = Outlet(Publisher::new(Arc::clone(&broker), telemetry.clone(), Arc::clone(&clock), "dash"));
    let scope = Scope { recent: Recent::with_charts(), ..scope(specs) };
    let doors = Doors { scope, url, broker, store: OnceCell::new(), clock: Arc::clone(&clock) };
    let access = access(&specs.http.auth);
    let (source, outlet) = (Arc::new(doors), Arc::new(outlet));
    let place = Place { base: specs.http.base_path.clone(), environment: specs.http.environment.clone() };
    dash::router(Parts { source, outlet, settings, access, read_only, place, clock }, stop)
}

fn access(spec: &AuthSpec) -> Access {
    let user = |user: &UserSpec| User { name: user.name.as_str().into(), role: role(user.role) };
    let users = || spec.users.iter().map(|spec| (user(spec), spec.secret.clone()));
    match spec.mode {
        AuthMode::None => Access::Open,
        AuthMode::Token => Access::Token(Tokens::new(users())),
        AuthMode::Basic => Access::Basic(Passwords::new(users())),
        AuthMode::Proxy => Access::Proxy(Proxy {
            header: spec.header.clone(),
            from: spec.from.clone(),
            others: role(spec.role),
            users: spec.users.iter().map(|user| (user.name.clone(), role(user.role))).collect(),
        }),
    }
}

fn role(role: UserRole) -> Role {
    match role {
        UserRole::Viewer => Role::Viewer,
        UserRole::Operator => Role::Operator,
        UserRole::Admin => Role::Admin,
    }
}

/// Serves the dashboard alone, of an installation whose workers run elsewhere, until `stop`; tells `bound` where.
///
/// # Errors
/// The address cannot be taken, or others can reach it and nobody is asked who they are.
pub async fn run_dash(
    loaded: &Loaded,
    listen: SocketAddr,
    read_only: bool,
    telemetry: &Telemetry,
    clock: &SharedClock,
    bound: oneshot::Sender<SocketAddr>,
    stop: CancellationToken,
) -> Result<(), AppError> {
    let specs = &loaded.specs;
    if !is_guarded(specs, listen) {
        return Err(AppError::Unguarded(listen));
    }
    let server = Server::bind(listen).await?;
    // nobody may be waiting for it any more
    let _unheard = bound.send(server.address());
    let broker = open_broker(specs, clock).await?;
    let feed = Feed { specs, settings: settings(loaded), telemetry, broker: Arc::clone(&broker), clock };
    let router = router(feed, read_only, &stop).merge(status::alive());
    server.run(router, stop).await;
    broker.close().await;
    Ok(())
}
