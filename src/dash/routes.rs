//! Every route of the dashboard as data: who may use it and what answers.

use axum::extract::DefaultBodyLimit;
use axum::routing::{MethodRouter, get, post};
use axum::{Router, middleware};

use super::access::Role;
use super::{Shared, assets, deep, events, guard, login, pages};

/// Most bytes of a request's body.
const BODY_BYTES_MAX: usize = 8 * 1024;

/// One route.
pub struct Route {
    /// `GET` or `POST`.
    pub method: &'static str,
    /// Its path, as the router takes it.
    pub path: &'static str,
    /// The least role that it takes; `None` = anybody, also who has not said who he is.
    pub least: Option<Role>,
    answer: fn() -> MethodRouter<Shared>,
}

const fn page(path: &'static str, least: Role, answer: fn() -> MethodRouter<Shared>) -> Route {
    Route { method: "GET", path, least: Some(least), answer }
}

/// All routes. What changes anything is a POST.
pub const ROUTES: &[Route] = &[
    page("/", Role::Viewer, || get(pages::overview::show)),
    page("/lanes", Role::Viewer, || get(pages::lanes::list)),
    page("/lanes/{lane}", Role::Viewer, || get(pages::lanes::show)),
    page("/jobs", Role::Viewer, || get(pages::jobs::list)),
    page("/jobs/{job}", Role::Viewer, || get(pages::job::show)),
    page("/jobs/{job}/body", Role::Operator, || get(pages::job::body)),
    page("/limits", Role::Viewer, || get(pages::limits::show)),
    page("/dead", Role::Viewer, || get(pages::dead::show)),
    page("/workers", Role::Viewer, || get(pages::workers::show)),
    page("/tenant", Role::Viewer, || get(pages::tenant::show)),
    page("/healthz/deep", Role::Viewer, || get(deep::show)),
    page("/events", Role::Viewer, || get(events::stream)),
    Route { method: "GET", path: "/login", least: None, answer: || get(login::ask) },
    Route { method: "POST", path: "/login", least: None, answer: || post(login::enter) },
    Route { method: "POST", path: "/logout", least: None, answer: || post(login::leave) },
    Route { method: "GET", path: "/assets/{name}", least: None, answer: || get(assets::serve) },
    Route { method: "GET", path: "/favicon.ico", least: None, answer: || get(assets::favicon) },
];

/// The router of [`ROUTES`].
pub(super) fn router(dash: Shared) -> Router {
    let mut router = Router::new();
    for route in ROUTES {
        let guarded = middleware::from_fn_with_state((dash.clone(), route.least), guard::admit);
        router = router.route(route.path, (route.answer)().layer(guarded));
    }
    router
        .fallback(guard::not_found)
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .layer(middleware::map_response(guard::add_headers))
        .with_state(dash)
}
