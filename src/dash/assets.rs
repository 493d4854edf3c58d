//! Style, script and icon, compiled in; their names hold their hashes, so that browsers may keep them for ever.

use std::sync::LazyLock;

use axum::extract::Path;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Redirect, Response};

use super::access::{hex, sha256};
use super::place::link;

/// Kept for a year, which is for ever: another version has another name.
const FOR_EVER: &str = "public, max-age=31536000, immutable";

/// One file.
pub(super) struct Asset {
    name: String,
    content_type: &'static str,
    text: &'static str,
}

impl Asset {
    fn new(stem: &str, extension: &str, content_type: &'static str, text: &'static str) -> Self {
        let hash = hex(&sha256(text.as_bytes())[..8]);
        Self { name: format!("{stem}.{hash}.{extension}"), content_type, text }
    }

    /// Where it is.
    pub fn url(&self) -> String {
        link(format!("/assets/{}", self.name))
    }
}

/// How pages look.
pub(super) static STYLE: LazyLock<Asset> =
    LazyLock::new(|| Asset::new("dash", "css", "text/css; charset=utf-8", include_str!("assets/dash.css")));
/// What keeps pages up to date.
pub(super) static SCRIPT: LazyLock<Asset> =
    LazyLock::new(|| Asset::new("dash", "js", "text/javascript; charset=utf-8", include_str!("assets/dash.js")));
/// What keeps the theme that somebody has chosen.
pub(super) static THEME: LazyLock<Asset> =
    LazyLock::new(|| Asset::new("theme", "js", "text/javascript; charset=utf-8", include_str!("assets/theme.js")));
/// The icon.
pub(super) static ICON: LazyLock<Asset> =
    LazyLock::new(|| Asset::new("lanes", "svg", "image/svg+xml", include_str!("assets/lanes.svg")));

/// `GET /assets/{name}`
pub(super) async fn serve(Path(name): Path<String>) -> Response {
    let found = [&*STYLE, &*SCRIPT, &*THEME, &*ICON].into_iter().find(|asset| asset.name == name);
    let Some(asset) = found else { return StatusCode::NOT_FOUND.into_response() };
    ([(header::CONTENT_TYPE, asset.content_type), (header::CACHE_CONTROL, FOR_EVER)], asset.text).into_response()
}

/// `GET /favicon.ico`, which browsers ask for by themselves.
pub(super) async fn favicon() -> Response {
    Redirect::permanent(&ICON.url()).into_response()
}
