//! Every route of the dashboard as data: who may use it and what answers.

use std::sync::Arc;

use axum::extract::DefaultBodyLimit;
use axum::response::Redirect;
use axum::routing::{MethodRouter, get, post};
use axum::{Router, middleware};

use super::access::Role;
use super::place::{self, Place};
use super::{Shared, api, assets, bulk, deep, events, forms, guard, login, pages};

/// Most bytes of a request's body.
const BODY_BYTES_MAX: usize = 8 * 1024;
/// Most bytes of one that holds a payload: the largest that is shown, and what forms make of it.
const EDIT_BYTES_MAX: usize = 4 * super::mask::SHOWN_BYTES_MAX;

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

const fn form(path: &'static str, least: Role, answer: fn() -> MethodRouter<Shared>) -> Route {
    Route { method: "POST", path, least: Some(least), answer }
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
    page("/audit", Role::Viewer, || get(pages::audit::show)),
    page("/settings", Role::Viewer, || get(pages::settings::show)),
    page("/help", Role::Viewer, || get(pages::help::show)),
    page("/healthz/deep", Role::Viewer, || get(deep::show)),
    page("/events", Role::Viewer, || get(events::stream)),
    // what asks changes nothing, and is for those who may
    page("/pause", Role::Operator, || get(pages::ask::pause)),
    page("/limits/set", Role::Admin, || get(pages::ask::set_limits)),
    page("/limits/reset", Role::Admin, || get(pages::ask::reset)),
    page("/jobs/{job}/cancel", Role::Operator, || get(pages::ask::cancel)),
    page("/jobs/{job}/discard", Role::Admin, || get(pages::ask::discard)),
    page("/jobs/{job}/edit", Role::Admin, || get(pages::ask::edit)),
    form("/pause", Role::Operator, || post(forms::pause)),
    form("/resume", Role::Operator, || post(forms::resume)),
    page("/lanes/{lane}/concurrency", Role::Admin, || get(pages::ask::concurrency)),
    form("/lanes/{lane}/concurrency", Role::Admin, || post(forms::set_concurrency)),
    form("/lanes/{lane}/concurrency/reset", Role::Admin, || post(forms::reset_concurrency)),
    form("/limits/set", Role::Admin, || post(forms::set_limits)),
    form("/limits/slow", Role::Admin, || post(forms::slow)),
    form("/limits/reset", Role::Admin, || post(forms::reset)),
    form("/jobs/{job}/retry", Role::Operator, || post(forms::retry)),
    form("/jobs/{job}/cancel", Role::Operator, || post(forms::cancel)),
    form("/jobs/{job}/discard", Role::Admin, || post(forms::discard)),
    form("/jobs/{job}/edit", Role::Admin, || post(forms::edit).layer(DefaultBodyLimit::max(EDIT_BYTES_MAX))),
    page("/ops", Role::Viewer, || get(pages::operations::list)),
    page("/ops/plan", Role::Viewer, || get(pages::operations::plan)),
    page("/ops/{operation}", Role::Viewer, || get(pages::operations::show)),
    // what may be done to many takes the role that one of them takes
    form("/ops", Role::Operator, || post(bulk::start)),
    form("/ops/{operation}/cancel", Role::Operator, || post(bulk::cancel)),
    page("/api/v1/operations", Role::Viewer, || get(api::operations::list)),
    page("/api/v1/operations/{operation}", Role::Viewer, || get(api::operations::show)),
    form("/api/v1/operations", Role::Operator, || post(api::operations::start)),
    form("/api/v1/operations/{operation}/cancel", Role::Operator, || post(api::operations::cancel)),
    page("/api/v1/status", Role::Viewer, || get(api::reads::status)),
    page("/api/v1/lanes", Role::Viewer, || get(api::reads::lanes)),
    page("/api/v1/jobs", Role::Viewer, || get(api::reads::jobs)),
    page("/api/v1/jobs/{job}", Role::Viewer, || get(api::reads::job)),
    page("/api/v1/dead", Role::Viewer, || get(api::reads::dead)),
    page("/api/v1/dead/groups", Role::Viewer, || get(api::reads::groups)),
    page("/api/v1/limits", Role::Viewer, || get(api::reads::limits)),
    page("/api/v1/audit", Role::Viewer, || get(api::reads::audit)),
    form("/api/v1/pause", Role::Operator, || post(api::acts::pause)),
    form("/api/v1/resume", Role::Operator, || post(api::acts::resume)),
    form("/api/v1/limits", Role::Admin, || post(api::acts::set_limits)),
    form("/api/v1/lanes/{lane}/concurrency", Role::Admin, || post(api::acts::set_concurrency)),
    form("/api/v1/lanes/{lane}/concurrency/reset", Role::Admin, || post(api::acts::reset_concurrency)),
    form("/api/v1/limits/slow", Role::Admin, || post(api::acts::slow)),
    form("/api/v1/limits/reset", Role::Admin, || post(api::acts::reset)),
    form("/api/v1/jobs/{job}/retry", Role::Operator, || post(api::acts::retry)),
    form("/api/v1/jobs/{job}/cancel", Role::Operator, || post(api::acts::cancel)),
    form("/api/v1/jobs/{job}/edit", Role::Admin, || post(api::acts::edit).layer(DefaultBodyLimit::max(EDIT_BYTES_MAX))),
    form("/api/v1/dead/{job}/retry", Role::Operator, || post(api::acts::retry)),
    form("/api/v1/dead/{job}/discard", Role::Admin, || post(api::acts::discard)),
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
        .method_not_allowed_fallback(guard::not_allowed)
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .layer(middleware::map_response(guard::add_headers))
        .with_state(dash)
}

/// A router at its place: below the base path, where there is one; what asks for the root is sent there.
pub(super) fn placed(router: Router, place: Place) -> Router {
    let base = place.base.clone();
    let router = router.layer(middleware::from_fn_with_state(Arc::new(place), place::at));
    if base.is_empty() {
        return router;
    }
    let start = format!("{base}/");
    let to_start = move || async move { Redirect::temporary(&start) };
    // nested as a service: routes, guards and handlers see paths without the base
    Router::new().route("/", get(to_start)).nest_service(&base, router)
}
