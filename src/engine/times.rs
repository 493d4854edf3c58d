//! How long the calls to each endpoint take, as this lane sees it: so many more can be called while some are in flight.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::job::EndpointName;

/// What is assumed of an endpoint that was not called yet.
const UNKNOWN: Duration = Duration::from_secs(1);
/// The weight of the last call in the average.
const NEW: f64 = 0.1;

/// Moving averages.
#[derive(Debug, Default)]
pub(super) struct CallTimes {
    seconds: Mutex<HashMap<EndpointName, f64>>,
}

impl CallTimes {
    /// A call has ended. Endpoints are those that are configured, so there is no bound beside that.
    pub fn add(&self, endpoint: &EndpointName, took: Duration) {
        let took = took.as_secs_f64();
        let mut seconds = self.seconds.lock().unwrap_or_else(PoisonError::into_inner);
        match seconds.get_mut(endpoint) {
            Some(average) => *average += NEW * (took - *average),
            None => drop(seconds.insert(endpoint.clone(), took)),
        }
    }

    /// The average.
    pub fn of(&self, endpoint: &EndpointName) -> Duration {
        let seconds = self.seconds.lock().unwrap_or_else(PoisonError::into_inner);
        seconds.get(endpoint).map_or(UNKNOWN, |seconds| Duration::from_secs_f64(seconds.max(0.0)))
    }
}
