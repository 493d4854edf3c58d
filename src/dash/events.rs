//! The stream of one tab: what is live on its page, rendered from the look that all tabs share.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::Extension;
use axum::extract::{Query, State as Extract};
use axum::http::{HeaderName, StatusCode, header};
use axum::response::sse::{Event, KeepAlive};
use axum::response::{IntoResponse, Response, Sse};
use futures_util::stream;
use maud::{Markup, PreEscaped, html};
use serde::Deserialize;
use uuid::Uuid;

use super::access::{Role, User};
use super::live::Snapshot;
use super::{Shared, pages, place};
use crate::job::{LaneName, Tenant};

/// A comment keeps the connection open when there is nothing to tell.
const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// A browser that lost its stream comes back after so long.
const RETRY: Duration = Duration::from_secs(2);

/// What a tab shows.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Wish {
    view: String,
    lane: String,
    endpoint: String,
    tenant: String,
    operation: String,
}

/// What of a page is live.
enum View {
    Overview,
    Lanes,
    Lane(LaneName),
    Limits(pages::limits::Wish),
    Workers,
    Operation(Uuid),
    Tenant(Tenant),
    /// Only the line that all pages have.
    Health,
}

impl View {
    fn of(wish: &Wish) -> Option<Self> {
        Some(match wish.view.as_str() {
            "overview" => Self::Overview,
            "lanes" => Self::Lanes,
            "lane" => Self::Lane(LaneName::new(&wish.lane).ok()?),
            "limits" => Self::Limits(pages::limits::Wish::new(&wish.endpoint, &wish.tenant)),
            "workers" => Self::Workers,
            "operation" => Self::Operation(Uuid::parse_str(&wish.operation).ok()?),
            "tenant" => Self::Tenant(Tenant::new(&wish.tenant).ok()?),
            "health" => Self::Health,
            _ => return None,
        })
    }

    fn render(&self, seen: &Snapshot, role: Role) -> Option<Markup> {
        Some(match self {
            Self::Overview => pages::overview::fragment(seen, role),
            Self::Lanes => pages::lanes::all(seen, role),
            Self::Lane(lane) => pages::lanes::one(seen, lane, role),
            Self::Limits(wish) => pages::limits::fragment(seen, wish, role),
            Self::Workers => pages::workers::all(seen),
            Self::Operation(id) => return pages::operations::fragment(seen, *id, role),
            Self::Tenant(tenant) => pages::tenant::fragment(seen, tenant, role),
            Self::Health => return None,
        })
    }

    /// What of it is drawn from the history.
    fn charts(&self, seen: &Snapshot) -> Option<Markup> {
        Some(match self {
            Self::Overview => pages::trends::overview(seen),
            Self::Lane(lane) => pages::trends::of_lane(seen, lane),
            Self::Limits(wish) => pages::trends::of_limits(seen, wish),
            _ => return None,
        })
    }
}

/// `GET /events`
pub(super) async fn stream(
    Extract(dash): Extract<Shared>,
    Extension(user): Extension<User>,
    Query(wish): Query<Wish>,
) -> Response {
    let Some(view) = View::of(&wish) else {
        return (StatusCode::NOT_FOUND, "There is no such view.\n").into_response();
    };
    let Ok(seat) = Arc::clone(&dash.streams).try_acquire_owned() else {
        let later = [(header::RETRY_AFTER, "30")];
        return (StatusCode::SERVICE_UNAVAILABLE, later, "Too many tabs are live.\n").into_response();
    };
    let start = (dash.live.watch(), (view, user.role, place::here()), String::new(), (dash.stop.clone(), seat));
    let events = stream::unfold(start, async |(mut watching, shown, mut drawn, (stop, seat))| {
        let seen = tokio::select! {
            biased;
            () = stop.cancelled() => return None,
            seen = watching.next() => seen?,
        };
        let (view, role, place) = &shown;
        let event = place::within(place, || event(view, &seen, *role, &mut drawn));
        Some((Ok::<_, Infallible>(event), (watching, shown, drawn, (stop, seat))))
    });
    let headers = [(HeaderName::from_static("x-accel-buffering"), "no"), (header::CACHE_CONTROL, "no-store")];
    (headers, Sse::new(events).keep_alive(KeepAlive::new().interval(KEEP_ALIVE))).into_response()
}

/// What is new; charts only where they differ from those that were drawn last.
fn event(view: &View, seen: &Snapshot, role: Role, drawn: &mut String) -> Event {
    let charts = view.charts(seen).map(Markup::into_string).filter(|charts| charts != drawn);
    let page = html! {
        (pages::health(Some(seen)))
        @if let Some(body) = view.render(seen, role) { div #live { (body) } }
        @if let Some(charts) = &charts { div #charts { (PreEscaped(charts)) } }
    };
    if let Some(charts) = &charts {
        drawn.clone_from(charts);
    }
    // a carriage return would end a line of the stream
    let data = page.into_string().replace('\r', " ");
    Event::default().event("page").id(seen.number.to_string()).retry(RETRY).data(data)
}
