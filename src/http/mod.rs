//! The worker's own HTTP server: binds, guards, serves a router, stops in order.

mod guard;
mod listener;
pub mod status;

use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::time::Duration;

use axum::{Router, middleware};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use self::listener::{Bounded, Peer};
use crate::clock;

/// Longest wait for open requests when the server stops.
const DRAIN_MAX: Duration = Duration::from_secs(5);

/// Why the server cannot start.
#[derive(Debug, thiserror::Error)]
#[error(
    "cannot listen on {listen}: {why}; set `http.listen` in lanes.toml (or LANES_HTTP__LISTEN) to another address, \
     or start with --no-http"
)]
pub struct HttpError {
    listen: SocketAddr,
    why: String,
}

/// A server that has its port and does not answer yet.
#[derive(Debug)]
pub struct Server {
    listener: TcpListener,
    address: SocketAddr,
}

impl Server {
    /// Takes the port. Port 0 takes a free one: see [`Server::address`].
    ///
    /// # Errors
    /// [`HttpError`] when the address cannot be taken, with what to change.
    pub async fn bind(listen: SocketAddr) -> Result<Self, HttpError> {
        let bound = async {
            let listener = TcpListener::bind(listen).await?;
            let address = listener.local_addr()?;
            io::Result::Ok(Self { listener, address })
        };
        bound.await.map_err(|error| HttpError { listen, why: reason(&error) })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves `router` until `stop`, then finishes open requests, for [`DRAIN_MAX`] at most.
    ///
    /// Requests to a loopback address must name a loopback host, so that no web page can reach it by DNS rebinding.
    pub async fn run(self, router: Router, stop: CancellationToken) {
        let mut router =
            router.layer(middleware::map_response(guard::add_headers)).layer(middleware::from_fn(listener::tell_peer));
        if self.address.ip().is_loopback() {
            router = router.layer(middleware::from_fn(guard::require_local_host));
        }
        let serving = axum::serve(Bounded::new(self.listener), router.into_make_service_with_connect_info::<Peer>())
            .with_graceful_shutdown(stop.clone().cancelled_owned())
            .into_future();
        let mut serving = pin!(serving);
        tokio::select! {
            ended = &mut serving => return log_end(ended),
            () = stop.cancelled() => {}
        }
        match clock::within(DRAIN_MAX, serving).await {
            Ok(ended) => log_end(ended),
            Err(late) => warn!(address = %self.address, "HTTP requests still open after {:?} were cut off", late.0),
        }
    }
}

fn log_end(ended: io::Result<()>) {
    if let Err(error) = ended {
        warn!(%error, "the HTTP server ended");
    }
}

fn reason(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::AddrInUse => "the port is in use, perhaps by another lanes worker".to_owned(),
        io::ErrorKind::AddrNotAvailable => "this machine does not have that address".to_owned(),
        io::ErrorKind::PermissionDenied => "no permission (ports below 1024 need it)".to_owned(),
        _ => error.to_string(),
    }
}
