//! What people do on pages: who may, what is asked first, what is done, and the line of the log.

use lanes::store::{AuditEntry, AuditFilter, State};

use super::*;

const FORM: (&str, &str) = ("content-type", "application/x-www-form-urlencoded");

fn job(number: u128) -> String {
    Uuid::from_u128(number).to_string()
}

fn encoded(text: &str) -> String {
    url::form_urlencoded::byte_serialize(text.as_bytes()).collect()
}

impl Bench {
    async fn send(&self, path: &str, token: &str, form: &str) -> Response<Body> {
        let token = format!("Bearer {token}");
        self.ask("POST", path, &[FORM, ("authorization", &token), ("sec-fetch-site", "same-origin")], form).await
    }

    /// Sends a form that is taken; answers where it leads.
    async fn done(&self, path: &str, token: &str, form: &str) -> String {
        let response = self.send(path, token, form).await;
        let status = response.status();
        let place = response.headers().get("location").map(|place| place.to_str().expect("text").to_owned());
        assert_eq!(status, StatusCode::SEE_OTHER, "{path} {form}: {}", text(response).await);
        place.expect("a place")
    }

    pub async fn log(&self) -> Vec<AuditEntry> {
        let lines = self.source.store.audit(&AuditFilter::default(), 100).await.expect("read");
        lines.into_iter().map(|line| line.entry).collect()
    }

    async fn state(&self, number: u128) -> State {
        self.source.store.job(Uuid::from_u128(number)).await.expect("read").expect("a row").state
    }

    pub async fn is_letter(&self, number: u128) -> bool {
        self.source.store.letter(Uuid::from_u128(number)).await.expect("read").is_some()
    }
}

/// The line: who, from where, what, to what.
fn told(line: &AuditEntry) -> [&str; 4] {
    [&line.actor, line.source.as_str(), &line.action, &line.target]
}

#[tokio::test]
async fn who_may_not_changes_nothing() {
    let changes = || ROUTES.iter().filter(|route| route.method == "POST" && route.least.is_some());
    assert!(changes().count() > 15, "what changes something is a POST");
    let (bench, shown) = (bench(tokens(), false).await, super::bench(tokens(), true).await);
    for route in changes() {
        let path = filled(route.path);
        for kind in ["application/x-www-form-urlencoded", "application/json"] {
            let asked = async |bench: &Bench, token: &str| {
                let token = format!("Bearer {token}");
                let headers = [("content-type", kind), ("authorization", &*token)];
                bench
                    .ask("POST", &path, &headers, "lane=bulk&endpoint=crm&limits=none&percent=50&body=x")
                    .await
                    .status()
            };
            assert_eq!(asked(&bench, VICTOR).await, StatusCode::FORBIDDEN, "a viewer at {path}");
            if route.least == Some(Role::Admin) {
                assert_eq!(asked(&bench, ALICE).await, StatusCode::FORBIDDEN, "an operator at {path}");
            }
            assert_eq!(asked(&shown, ADA).await, StatusCode::FORBIDDEN, "read only: {path}");
        }
    }
    for bench in [&bench, &shown] {
        assert_eq!(bench.log().await, []);
    }
}

#[tokio::test]
async fn nothing_is_written_by_looking() {
    let bench = bench(tokens(), false).await;
    let queries = ["", "?lane=bulk", "?endpoint=crm", "?endpoint=crm&tenant=acme", "?done=paused"];
    for route in ROUTES.iter().filter(|route| route.method == "GET" && route.path != "/events") {
        for query in queries {
            let response = bench.get(&format!("{}{query}", filled(route.path)), ADA).await;
            assert_ne!(response.status(), StatusCode::INTERNAL_SERVER_ERROR, "{}", route.path);
        }
    }
    assert_eq!(bench.log().await, []);
    assert_eq!(bench.source.store.controls().await.expect("read"), []);
    assert_eq!([bench.state(1).await, bench.state(2).await], [State::Waiting; 2]);
    assert!(bench.is_letter(3).await && bench.is_letter(4).await);
    assert!(bench.outlet.jobs.lock().expect("fine").is_empty());
}

#[tokio::test]
async fn a_page_offers_what_its_reader_may_do() {
    let bench = bench(tokens(), false).await;
    let forms = |page: &str| page.matches("<form class=\"act\"").count() + page.matches("class=\"button\"").count();
    for path in ["/", "/lanes", "/lanes/bulk", "/limits", &format!("/jobs/{}", job(3)), &format!("/jobs/{}", job(1))] {
        let [viewer, operator, admin] =
            [bench.page(path, VICTOR).await, bench.page(path, ALICE).await, bench.page(path, ADA).await];
        assert_eq!(forms(&viewer), 0, "{path}");
        assert!(forms(&operator) > 0 && forms(&admin) >= forms(&operator), "{path}");
    }
    let dead = format!("/jobs/{}", job(3));
    let (operator, admin) = (bench.page(&dead, ALICE).await, bench.page(&dead, ADA).await);
    assert!(operator.contains("Retry now") && !operator.contains("Discard") && !operator.contains("another body"));
    assert!(admin.contains("Discard") && admin.contains("another body"));
}

#[tokio::test]
async fn every_target_is_paused_and_resumed() {
    let bench = bench(tokens(), false).await;
    let hostile = &HOSTILE[..60];
    let targets = [
        ("lane=bulk".to_owned(), "lane bulk".to_owned(), "/lanes/bulk?".to_owned()),
        ("endpoint=crm".to_owned(), "endpoint crm".to_owned(), "/limits?endpoint=crm&".to_owned()),
        (
            format!("tenant={}", encoded(hostile)),
            format!("tenant {hostile}"),
            format!("/tenant?name={}&", encoded(hostile)),
        ),
        (
            "endpoint=crm&tenant=acme".to_owned(),
            "tenant acme at crm".to_owned(),
            "/limits?endpoint=crm&tenant=acme&".to_owned(),
        ),
    ];
    for (fields, name, place) in targets {
        let asks = bench.page(&format!("/pause?{fields}"), ALICE).await;
        html::check("/pause", &asks);
        assert!(asks.contains("15 minutes") && asks.contains("Do nothing"), "{asks}");
        let to = bench.done("/pause", ALICE, &format!("{fields}&for=15m&note=+it+is+on+fire+")).await;
        assert_eq!(to, format!("{place}done=paused"));
        let page = bench.page(&to, ALICE).await;
        assert!(page.contains("Paused. Workers follow within a second") && page.contains("Resume"), "{page}");
        let line = bench.log().await.remove(0);
        assert_eq!((told(&line), &*line.note), (["alice", "page", "pause", &name], "it is on fire"));
        assert!(line.before == "not paused" && line.after.starts_with("paused until 2"), "{line:?}");
        assert_eq!(bench.done("/resume", ALICE, &format!("{fields}&from=overview")).await, "/?done=resumed");
        assert_eq!(bench.log().await[0].action, "resume");
        assert_eq!(bench.send("/resume", ALICE, &fields).await.status(), StatusCode::NOT_FOUND, "it is not paused");
    }
    for (form, status) in [
        ("lane=bluk", 404),
        ("endpoint=hubspot", 404),
        ("", 422),
        ("lane=bulk&endpoint=crm", 422),
        ("lane=a b", 422),
        ("lane=bulk&for=soon", 422),
        ("lane=bulk&for=9999d", 422),
    ] {
        let response = bench.send("/pause", ALICE, form).await;
        assert_eq!(response.status().as_u16(), status, "{form}");
        html::check(form, &text(response).await);
    }
    assert_eq!(bench.log().await.len(), 8, "what is refused has no line");
}

#[tokio::test]
async fn limits_are_set_lowered_and_reset() {
    let bench = bench(tokens(), false).await;
    let asks = bench.page("/limits/set?endpoint=crm&tenant=acme", ADA).await;
    html::check("/limits/set", &asks);
    let crm = "endpoint=crm&tenant=acme";
    let set = format!("{crm}&limits={}&for=1h&note=quiet", encoded("100/1m 4000/1d"));
    assert_eq!(bench.done("/limits/set", ADA, &set).await, "/limits?endpoint=crm&tenant=acme&done=limits_set");
    let line = bench.log().await.remove(0);
    assert_eq!(told(&line), ["ada", "page", "set_limits", "tenant acme at crm"]);
    assert!(line.after.starts_with("100/60s, 4000/86400s, 0.8 of it, until"), "{line:?}");
    bench.done("/limits/slow", ADA, &format!("{crm}&percent=50&for=60m&from=overview")).await;
    assert!(bench.log().await[0].after.starts_with("50/60s, 2000/86400s"));
    html::check("/limits/reset", &bench.page(&format!("/limits/reset?{crm}"), ADA).await);
    assert_eq!(bench.done("/limits/reset", ADA, crm).await, "/limits?endpoint=crm&tenant=acme&done=limits_reset");
    let line = bench.log().await.remove(0);
    assert_eq!((&*line.action, &*line.after), ("reset_limits", "as configured"));
    for (path, form) in [
        ("/limits/set", "endpoint=crm&limits=fast"),
        ("/limits/set", "endpoint=crm&limits="),
        ("/limits/set", "endpoint=crm&limits=none+1%2F1m"),
        ("/limits/slow", "endpoint=crm&percent=50"),
        ("/limits/slow", "endpoint=crm&percent=much"),
        ("/limits/set", "tenant=acme&limits=none"),
    ] {
        assert_eq!(bench.send(path, ADA, form).await.status(), StatusCode::UNPROCESSABLE_ENTITY, "{path} {form}");
    }
    assert_eq!(bench.send("/limits/set", ADA, "endpoint=hubspot&limits=none").await.status(), StatusCode::NOT_FOUND);
    assert_eq!(bench.log().await.len(), 3);
}

#[tokio::test]
async fn jobs_and_letters_are_cancelled_retried_and_discarded() {
    let bench = bench(tokens(), false).await;
    let path = |number, verb: &str| format!("/jobs/{}/{verb}", job(number));
    for (number, verb) in [(1, "cancel"), (3, "discard")] {
        let asks = bench.page(&path(number, verb), ADA).await;
        html::check(verb, &asks);
        assert!(asks.contains("be taken back") && asks.contains("Do nothing"), "{asks}");
    }
    let to = bench.done(&path(1, "cancel"), ALICE, "note=obsolete").await;
    assert_eq!((to, bench.state(1).await), (format!("/jobs/{}?done=cancelled", job(1)), State::Cancelled));
    let line = bench.log().await.remove(0);
    let target = format!("job {}", job(1));
    assert_eq!((told(&line), &*line.before), (["alice", "page", "cancel", &target], "waiting (rate_limited)"));
    let page = bench.page(&format!("/jobs/{}", job(1)), VICTOR).await;
    assert!(page.contains("What people did to it") && page.contains("obsolete"), "{page}");
    assert_eq!(bench.send(&path(1, "cancel"), ALICE, "").await.status(), StatusCode::CONFLICT, "it has ended");
    assert_eq!(bench.send(&path(99, "cancel"), ALICE, "").await.status(), StatusCode::NOT_FOUND);

    bench.done(&path(3, "retry"), ALICE, "").await;
    assert_eq!((bench.state(3).await, bench.is_letter(3).await), (State::Waiting, false));
    assert_eq!(bench.log().await[0].after, "waits (generation 2)");
    let again = bench.done(&path(3, "retry"), ALICE, "").await;
    assert_eq!(again, format!("/jobs/{}?done=due_now", job(3)), "somebody was quicker: it is due already");

    bench.outlet.fails.store(true, Ordering::SeqCst);
    assert_eq!(bench.send(&path(4, "retry"), ALICE, "").await.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert!(bench.is_letter(4).await, "what could not be published is still there");
    assert_eq!(bench.log().await.len(), 2);
    bench.outlet.fails.store(false, Ordering::SeqCst);
    let to = bench.done(&path(4, "retry"), ALICE, "").await;
    assert_eq!(bench.outlet.letters.lock().expect("fine").len(), 1);
    assert!(!bench.is_letter(4).await);
    assert!(bench.page(&to, ALICE).await.contains("Put back to work"), "nothing is left of it but what was done");

    let other = super::bench(tokens(), false).await;
    other.done(&path(3, "discard"), ADA, "").await;
    assert!(!other.is_letter(3).await);
    assert_eq!((&*other.log().await[0].before, &*other.log().await[0].after), ("dead (exhausted)", "deleted"));
}

#[tokio::test]
async fn a_payload_is_edited_without_showing_its_secrets() {
    let bench = bench(tokens(), false).await;
    let path = format!("/jobs/{}/edit", job(3));
    let asks = bench.page(&path, ADA).await;
    html::check(&path, &asks);
    assert!(!asks.contains(SECRET) && asks.contains("•••1") && asks.contains("•••2"), "{asks}");
    let body = |note: &str| {
        format!(
            "{{\r\n  \"note\": \"{note}\",\r\n  \"api_key\": \"•••1\",\r\n  \"nested\": [{{\"Authorization\": \"•••2\"}}]\r\n}}"
        )
    };
    let form = |text: &str| format!("body={}&note=wrong+field", encoded(text));

    for (wrong, why) in [("{", "this is no JSON"), ("[\"•••7\"]", "with its number")] {
        let response = bench.send(&path, ADA, &form(wrong)).await;
        assert_eq!(response.status(), StatusCode::UNPROCESSABLE_ENTITY, "{wrong}");
        let page = text(response).await;
        html::check(wrong, &page);
        assert!(page.contains(why) && page.contains("<textarea"), "what was typed is not lost: {page}");
    }
    bench.outlet.fails.store(true, Ordering::SeqCst);
    let failed = bench.send(&path, ADA, &form(&body("fixed"))).await;
    assert_eq!((failed.status(), bench.is_letter(3).await), (StatusCode::SERVICE_UNAVAILABLE, true));
    assert!(text(failed).await.contains("fixed") && bench.log().await.is_empty());
    bench.outlet.fails.store(false, Ordering::SeqCst);

    let to = bench.done(&path, ADA, &form(&body("fixed"))).await;
    assert_eq!(to, format!("/jobs/{}?done=edited", job(3)));
    let new = bench.outlet.jobs.lock().expect("fine").remove(0);
    let sent = format!(r#"{{"note":"fixed","api_key":"{SECRET}","nested":[{{"Authorization":"Bearer {SECRET}"}}]}}"#);
    assert_eq!(new.body, sent.as_bytes(), "in one line, as it was");
    let old = claim(3, None, Timestamp::EPOCH);
    assert_eq!((&new.lane, &new.endpoint, &new.tenant), (&old.lane, &old.endpoint, &old.tenant));
    assert_eq!(new.meta.path.as_deref(), Some(&*format!("/x?token={SECRET}")), "its headers are the same");
    assert!(new.id.expect("one").as_str().starts_with(old.id.as_str()));
    assert!(!bench.is_letter(3).await);
    for (at, other) in [(job(3), job(1_001)), (job(1_001), job(3))] {
        let page = bench.page(&format!("/jobs/{at}"), VICTOR).await;
        assert!(page.contains(&format!("href=\"/jobs/{other}\"")) && page.contains("wrong field"), "{at}: {page}");
    }
    let waiting = format!("/jobs/{}/edit", job(1));
    bench.done(&waiting, ADA, &form(&body("better"))).await;
    assert_eq!(bench.state(1).await, State::Cancelled, "the one that waited is not called");
    assert_eq!(bench.send(&waiting, ADA, &form(&body("best"))).await.status(), StatusCode::UNPROCESSABLE_ENTITY);
    let raw = bench.get(&format!("/jobs/{}/edit", job(4)), ADA).await;
    assert_eq!(raw.status(), StatusCode::UNPROCESSABLE_ENTITY, "it never was a job");
}

#[tokio::test]
async fn forms_are_bounded_and_forms() {
    let bench = bench(tokens(), false).await;
    let large = format!("lane=bulk&note={}", "x".repeat(9_000));
    assert_eq!(bench.send("/pause", ALICE, &large).await.status(), StatusCode::PAYLOAD_TOO_LARGE);
    let edit = format!("/jobs/{}/edit", job(3));
    assert_eq!(bench.send(&edit, ADA, &format!("body={}", "x".repeat(600_000))).await.status(), 413);
    let refused = bench.send(&edit, ADA, &format!("body={}", "x".repeat(100_000))).await;
    assert_eq!(refused.status(), StatusCode::UNPROCESSABLE_ENTITY, "a payload may be larger than other forms");
    let token = format!("Bearer {ALICE}");
    for kind in [&[("content-type", "application/json")][..], &[]] {
        let headers = [kind, &[("authorization", token.as_str())]].concat();
        let response = bench.ask("POST", "/pause", &headers, "lane=bulk").await;
        assert_eq!(response.status(), StatusCode::UNSUPPORTED_MEDIA_TYPE, "{kind:?}");
    }
    assert_eq!(bench.log().await, []);
}

#[tokio::test]
async fn the_log_is_listed_filtered_and_paged() {
    let bench = bench(tokens(), false).await;
    for nth in 0..60 {
        bench
            .done("/pause", if nth % 2 == 0 { ALICE } else { ADA }, &format!("tenant=t{nth}&note={}", encoded(HOSTILE)))
            .await;
    }
    let page = bench.page("/audit", VICTOR).await;
    html::check("/audit", &page);
    assert!(page.contains("tenant t59") && !page.contains("tenant t9<") && page.contains("&lt;script&gt;"), "{page}");
    let older = page.split('"').find(|part| part.starts_with("/audit?before=")).expect("a next page");
    let rest = bench.page(older, VICTOR).await;
    assert!(rest.contains("tenant t9<") && rest.contains("tenant t0<") && !rest.contains("tenant t59"), "{rest}");
    let filtered = bench.page("/audit?actor=ada&action=pause&target=tenant+t1", VICTOR).await;
    assert!(filtered.contains("tenant t1<") && !filtered.contains("tenant t11<"), "{filtered}");
    assert!(bench.page("/audit?actor=grace", VICTOR).await.contains("Nobody has changed anything like that"));
}

#[tokio::test]
async fn a_job_that_waits_is_due_at_once_unless_it_waits_for_its_turn() {
    let bench = bench(tokens(), false).await;
    let path = |number| format!("/jobs/{}/retry", job(number));
    assert!(bench.page(&format!("/jobs/{}", job(1)), ALICE).await.contains("Retry now"));
    assert_eq!(bench.done(&path(1), ALICE, "").await, format!("/jobs/{}?done=due_now", job(1)));
    let row = bench.source.store.job(Uuid::from_u128(1)).await.expect("read").expect("a row");
    assert!(row.state == State::Waiting && row.resume_at <= Some(bench.source.clock.now()), "{row:?}");
    assert_eq!(told(&bench.log().await[0])[..3], ["alice", "page", "retry_now"]);
    let stays = bench.send(&path(2), ALICE, "").await;
    assert_eq!(stays.status(), StatusCode::CONFLICT, "no haste passes a budget");
    assert_eq!(bench.log().await.len(), 1);
}

#[tokio::test]
async fn a_lane_makes_more_calls_at_a_time_or_as_many_as_configured() {
    let bench = bench(tokens(), false).await;
    let asks = bench.page("/lanes/bulk/concurrency", ADA).await;
    html::check("/lanes/bulk/concurrency", &asks);
    assert!(asks.contains("configured are 8"), "{asks}");
    let to = bench.done("/lanes/bulk/concurrency", ADA, "calls=16&for=1h&note=catching+up").await;
    assert_eq!(to, "/lanes/bulk?done=concurrency_set");
    let shown = bench.page(&to, ADA).await;
    html::check(&to, &shown);
    for part in ["16 in each worker", "configured 8", "by ada: catching up", "Reset"] {
        assert!(shown.contains(part), "{part}: {shown}");
    }
    assert!(!bench.page("/lanes/bulk", ALICE).await.contains("/lanes/bulk/concurrency"), "that takes an admin");
    let wrong = bench.send("/lanes/bulk/concurrency", ADA, "calls=0").await;
    assert_eq!(wrong.status(), StatusCode::UNPROCESSABLE_ENTITY);
    assert_eq!(bench.send("/lanes/nothing/concurrency", ADA, "calls=1").await.status(), StatusCode::NOT_FOUND);
    assert_eq!(bench.done("/lanes/bulk/concurrency/reset", ADA, "").await, "/lanes/bulk?done=concurrency_reset");
    assert_eq!(bench.send("/lanes/bulk/concurrency/reset", ADA, "").await.status(), StatusCode::NOT_FOUND);
    let actions: Vec<String> = bench.log().await.into_iter().map(|line| line.action).collect();
    assert_eq!(actions, ["reset_concurrency", "set_concurrency"]);
}
