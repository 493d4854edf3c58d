//! Puts together who is told of incidents: sinks that can be called, connections of their own, one who looks.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use secrecy::ExposeSecret;

use super::backends::Stores;
use super::{AppError, scope};
use crate::broker::Broker;
use crate::clock::SharedClock;
use crate::config::Specs;
use crate::config::specs::{NotifyKind, NotifySpec};
use crate::dispatch::http::{HttpDispatch, Target};
use crate::dispatch::signature::Signer;
use crate::notices::{Form, Parts, Receiver, SEND_MAX};
use crate::observe::{self, Look, Picture, Scope};
use crate::policy::notices::Sink;
use crate::store::Store;
use crate::telemetry::Telemetry;

/// Connections of the one who looks: nothing else waits for it, and it slows nothing.
const CONNECTIONS: u32 = 1;
/// Most time to get a connection to a sink.
const CONNECT_MAX: Duration = Duration::from_secs(3);

#[derive(Debug)]
struct Eyes {
    scope: Scope,
    store: Arc<dyn Store>,
    broker: Arc<dyn Broker>,
    clock: SharedClock,
}

#[async_trait]
impl Look for Eyes {
    async fn look(&self) -> Picture {
        observe::look(&self.scope, Ok(&*self.store), Ok(&*self.broker), self.clock.now()).await
    }
}

/// What telling takes; `None` when nobody wants to be told.
pub(super) async fn parts(
    specs: &Specs,
    broker: &Arc<dyn Broker>,
    telemetry: &Telemetry,
    clock: &SharedClock,
) -> Result<Option<Parts>, AppError> {
    if specs.notify.is_empty() {
        return Ok(None);
    }
    let stores = Stores::open(specs.store.url.expose_secret()).await?;
    let store = stores.handle_apart("notices", CONNECTIONS)?;
    let targets = specs.notify.iter().map(target).collect();
    let receivers = specs.notify.iter().map(receiver).collect::<Result<_, _>>()?;
    let eyes =
        Eyes { scope: scope(specs), store: Arc::clone(&store), broker: Arc::clone(broker), clock: Arc::clone(clock) };
    Ok(Some(Parts {
        eyes: Arc::new(eyes),
        store,
        dispatch: Arc::new(HttpDispatch::new(targets, Arc::clone(clock))?),
        receivers,
        public_url: specs.http.public_url.clone(),
        mask: crate::dash::mask::text,
        telemetry: telemetry.clone(),
        clock: Arc::clone(clock),
    }))
}

fn target(spec: &NotifySpec) -> Target {
    Target {
        timeout: SEND_MAX,
        connect_timeout: CONNECT_MAX,
        connections_idle_max: 1,
        ..Target::new(spec.name.clone(), spec.url.clone())
    }
}

fn receiver(spec: &NotifySpec) -> Result<Receiver, AppError> {
    let signer = spec.secret.as_ref().map(Signer::new).transpose();
    let signer = signer.map_err(|why| AppError::Sink { sink: spec.name.to_string(), why })?;
    let sink =
        Sink { name: spec.name.to_string(), least: spec.min_severity, kinds: spec.kinds.clone(), repeat: spec.repeat };
    let form = match spec.kind {
        NotifyKind::Webhook => Form::Webhook(signer),
        NotifyKind::Slack => Form::Slack,
    };
    Ok(Receiver { name: spec.name.clone(), sink, form })
}
