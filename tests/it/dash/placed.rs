//! A dashboard below a base path: every address that it names is there, and is answered.

use super::*;

const BASE: &str = "/ops/lanes";

async fn placed() -> Bench {
    let place = Place { base: BASE.to_owned(), environment: "PRODUCTION <b>".to_owned() };
    bench_at(tokens(), false, place).await
}

/// Addresses in a page.
fn addresses(page: &str) -> Vec<String> {
    let mut found = Vec::new();
    // where forms lead is read by html::check_below: what changes something is not walked
    for attribute in [" href=\"", " src=\"", " data-events=\""] {
        let parts = page.split(attribute).skip(1).filter_map(|rest| rest.split('"').next());
        found.extend(parts.filter(|address| !address.starts_with('#')).map(|address| address.replace("&amp;", "&")));
    }
    found
}

#[tokio::test]
async fn every_address_is_below_the_base_path_and_answers() {
    let bench = placed().await;
    let mut wanted = vec![format!("{BASE}/"), format!("{BASE}/login")];
    let mut walked = std::collections::BTreeSet::new();
    while let Some(path) = wanted.pop() {
        // a page's filters lead to themselves; one of each kind is enough
        let kind = path.split('?').next().unwrap_or_default().to_owned();
        if !walked.insert(kind.clone()) || kind.ends_with("/events") {
            continue;
        }
        let response = bench.get(&path, ALICE).await;
        assert_eq!(response.status(), StatusCode::OK, "{path}");
        let is_page = response.headers()["content-type"].to_str().expect("text").starts_with("text/html");
        let page = text(response).await;
        if is_page {
            html::check_below(BASE, &path, &page);
            assert!(page.contains("PRODUCTION &lt;b&gt;"), "{path} says where it is");
            wanted.extend(addresses(&page));
        }
    }
    for page in [
        "/",
        "/lanes",
        "/lanes/bulk",
        "/jobs",
        "/limits",
        "/dead",
        "/workers",
        "/tenant",
        "/audit",
        "/settings",
        "/pause",
        "/help",
        "/login",
    ] {
        assert!(walked.contains(&format!("{BASE}{page}")), "{page} was not reached: {walked:?}");
    }
}

#[tokio::test]
async fn redirects_and_cookies_stay_below_the_base_path() {
    let bench = placed().await;
    let location = |response: &Response<Body>| response.headers()["location"].to_str().expect("text").to_owned();
    assert_eq!(location(&bench.get("/", ALICE).await), format!("{BASE}/"));
    assert_eq!(
        location(&bench.get(&format!("{BASE}/jobs/contact-42"), ALICE).await),
        format!("{BASE}/jobs?id=contact-42")
    );
    assert_eq!(
        location(&bench.get(&format!("{BASE}/jobs?q=contact-42"), ALICE).await),
        format!("{BASE}/jobs?id=contact-42")
    );
    assert!(location(&bench.get(&format!("{BASE}/favicon.ico"), ALICE).await).starts_with(&format!("{BASE}/assets/")));
    let entered = bench.ask("POST", &format!("{BASE}/login"), &[], &format!("token={ALICE}")).await;
    assert_eq!(location(&entered), format!("{BASE}/"));
    let left = bench.ask("POST", &format!("{BASE}/logout"), &[], "").await;
    assert_eq!(location(&left), format!("{BASE}/login"));
    let auth = format!("Bearer {ALICE}");
    let paused = bench
        .ask(
            "POST",
            &format!("{BASE}/pause"),
            &[("authorization", &auth), ("content-type", "application/x-www-form-urlencoded")],
            "lane=bulk&for=15m",
        )
        .await;
    assert!(location(&paused).starts_with(&format!("{BASE}/lanes/bulk?done=")), "{paused:?}");
    let cookie = entered.headers()["set-cookie"].to_str().expect("text");
    assert!(cookie.contains(&format!("; Path={BASE}/;")), "{cookie}");
    assert_eq!(bench.get("/jobs", ALICE).await.status(), StatusCode::NOT_FOUND, "nothing is beside it");
    let lost = bench.get(&format!("{BASE}/nothing"), ALICE).await;
    assert_eq!(lost.status(), StatusCode::NOT_FOUND);
    html::check_below(BASE, "/nothing", &text(lost).await);
}

#[tokio::test]
async fn a_stream_names_addresses_below_the_base_path() {
    let bench = placed().await;
    let response = bench.get(&format!("{BASE}/events?view=overview"), ALICE).await;
    let mut body = response.into_body();
    let frame = body.frame().await.expect("an event").expect("read");
    let event = String::from_utf8(frame.into_data().expect("data").to_vec()).expect("UTF-8");
    let named = addresses(&event);
    assert!(!named.is_empty() && named.iter().all(|address| address.starts_with(&format!("{BASE}/"))), "{named:?}");
    assert!(event.contains("id=\"charts\""), "charts are sent once");
    bench.stop.cancel();
}
