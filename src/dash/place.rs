//! Where the dashboard is served and what the installation is called: every address that a page names comes from here.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::Response;

tokio::task_local! {
    /// The place of the request that is answered: it belongs to a request like its user does, and every part of a page has links.
    static PLACE: Arc<Place>;
}

/// Where and what.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Place {
    /// Begins every path: empty, or like `/lanes`.
    pub base: String,
    /// Shown on every page, like `PRODUCTION`; empty = nothing.
    pub environment: String,
}

/// Answers a request as from this place.
pub(super) async fn at(State(place): State<Arc<Place>>, request: Request, next: Next) -> Response {
    PLACE.scope(place, next.run(request)).await
}

/// The place of this request, for what goes on after its answer has begun.
pub(super) fn here() -> Arc<Place> {
    PLACE.try_with(Arc::clone).unwrap_or_default()
}

/// Renders as from this place.
pub(super) fn within<T>(place: &Arc<Place>, render: impl FnOnce() -> T) -> T {
    PLACE.sync_scope(Arc::clone(place), render)
}

/// The address of a path of the dashboard (`/jobs?state=dead`): for links, forms, assets and redirects alike.
pub(super) fn link(path: impl AsRef<str>) -> String {
    let path = path.as_ref();
    PLACE.try_with(|place| format!("{}{path}", place.base)).unwrap_or_else(|_| path.to_owned())
}

/// What the installation is called.
pub(super) fn environment() -> String {
    PLACE.try_with(|place| place.environment.clone()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_path_is_below_the_base() {
        let place = Arc::new(Place { base: "/lanes".to_owned(), environment: "PRODUCTION".to_owned() });
        let seen = within(&place, || (link("/"), link("/jobs?id=1"), environment(), here()));
        assert_eq!(seen, ("/lanes/".to_owned(), "/lanes/jobs?id=1".to_owned(), "PRODUCTION".to_owned(), place));
        assert_eq!((link("/jobs"), environment()), ("/jobs".to_owned(), String::new()), "elsewhere there is none");
    }
}
