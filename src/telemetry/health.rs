//! Whether this process is ready: one entry per component, written by those who know, read by `/readyz`.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

/// What a component says before it has said anything.
const STARTING: &str = "starting";

/// Shared state of the components that must work for the process to be ready. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Health(Arc<Mutex<BTreeMap<String, Result<(), String>>>>);

impl Health {
    /// Health of components that have yet to say that they work.
    pub fn expecting<I: IntoIterator<Item: Into<String>>>(components: I) -> Self {
        let state = components.into_iter().map(|name| (name.into(), Err(STARTING.to_owned()))).collect();
        Self(Arc::new(Mutex::new(state)))
    }

    /// Notes how a component is: `Err` says why it does not work, without secrets.
    pub fn set(&self, component: &str, state: Result<(), String>) {
        let mut components = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match components.get_mut(component) {
            Some(entry) => *entry = state,
            None => drop(components.insert(component.to_owned(), state)),
        }
    }

    /// Forgets a component, such as a lane that is no longer consumed.
    pub fn remove(&self, component: &str) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(component);
    }

    /// Every component in name order.
    pub fn snapshot(&self) -> Vec<(String, Result<(), String>)> {
        let components = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        components.iter().map(|(name, state)| (name.clone(), state.clone())).collect()
    }

    /// True when every component works. Without any component nothing has started yet.
    pub fn is_ready(&self) -> bool {
        let components = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        !components.is_empty() && components.values().all(Result::is_ok)
    }
}
