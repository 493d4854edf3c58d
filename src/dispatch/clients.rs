//! The HTTP clients of one endpoint, one per lane: no lane's calls wait for a connection that another lane has filled.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use super::address::{FilteringResolver, Lookup};
use super::http::{Target, describe};
use crate::job::LaneName;

/// Most lanes with connections of their own to one endpoint; the lanes beyond share one more client.
pub const LANE_CLIENTS_MAX: usize = 100;
/// How long an unused connection is kept: below the keep-alive time of the usual servers and proxies.
const POOL_IDLE_TIMEOUT: Duration = Duration::from_secs(20);

/// An HTTP/2 connection takes only so many calls at a time, and a client keeps one connection per host: with one client
/// for all lanes a full bulk lane would hold back real-time calls inside the client. Idle clients cost no connection.
pub(super) struct Clients {
    recipe: Recipe,
    of_lanes: RwLock<HashMap<LaneName, reqwest::Client>>,
    /// Held while a client is made, so that a lane's first burst makes one; finding a client never waits for it.
    making: Mutex<()>,
    /// Made at the start, which proves that the recipe works.
    spare: reqwest::Client,
}

/// What a client is made from.
struct Recipe {
    connect_timeout: Duration,
    connections_idle_max: usize,
    is_plain: bool,
    http1_only: bool,
    /// `None`: every address is allowed, the client looks names up by itself.
    lookup: Option<Lookup>,
}

impl Clients {
    /// # Errors
    /// A sentence for a person when no client can be made.
    pub fn new(target: &Target, lookup: &Lookup) -> Result<Self, String> {
        let is_plain = target.url.scheme() == "http";
        let recipe = Recipe {
            // connecting ends before the whole call may, so that a silent host is known not to have got the request; only
            // a job that asks for less time than `connect_timeout` blurs this, towards "it may have had its effect"
            connect_timeout: target.connect_timeout.min(target.timeout / 5 * 4),
            connections_idle_max: target.connections_idle_max,
            is_plain,
            http1_only: target.http1_only || is_plain,
            lookup: (!target.allow_metadata).then(|| lookup.clone()),
        };
        let spare = recipe.make()?;
        Ok(Self { recipe, of_lanes: RwLock::default(), making: Mutex::default(), spare })
    }

    /// The client that the lanes beyond the bound share.
    pub fn spare(&self) -> &reqwest::Client {
        &self.spare
    }

    /// The client of `lane`, made at its first call.
    ///
    /// # Errors
    /// A sentence for a person when it cannot be made now.
    pub fn of(&self, lane: &LaneName) -> Result<reqwest::Client, String> {
        if let Some(client) = self.known(lane) {
            return Ok(client);
        }
        let _making = self.making.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(client) = self.known(lane) {
            return Ok(client);
        }
        let client = self.recipe.make()?;
        self.of_lanes.write().unwrap_or_else(PoisonError::into_inner).insert(lane.clone(), client.clone());
        Ok(client)
    }

    /// The lane's own client if there is one; the spare one when no more are made.
    fn known(&self, lane: &LaneName) -> Option<reqwest::Client> {
        let of_lanes = self.of_lanes.read().unwrap_or_else(PoisonError::into_inner);
        let is_full = of_lanes.len() >= LANE_CLIENTS_MAX;
        of_lanes.get(lane).or_else(|| is_full.then_some(&self.spare)).cloned()
    }
}

impl Recipe {
    fn make(&self) -> Result<reqwest::Client, String> {
        let mut builder = reqwest::Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            .retry(reqwest::retry::never())
            .referer(false)
            .no_proxy()
            .connect_timeout(self.connect_timeout)
            .pool_idle_timeout(POOL_IDLE_TIMEOUT)
            .pool_max_idle_per_host(self.connections_idle_max);
        if let Some(lookup) = &self.lookup {
            builder = builder.dns_resolver(Arc::new(FilteringResolver::new(lookup.clone())));
        }
        if self.http1_only {
            builder = builder.http1_only();
        }
        if self.is_plain {
            builder = builder.tls_certs_only([]); // no TLS here: works where the machine has no root certificates
        }
        builder.build().map_err(|error| format!("no HTTP client can be made: {}", describe(error)))
    }
}
