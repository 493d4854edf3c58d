//! Operations on pages and over HTTP: planned first, begun by who may, seen by all, ended before they are done.

use lanes::job::operation::Phase;
use serde_json::{Value, json};

use super::*;

const FORM: (&str, &str) = ("content-type", "application/x-www-form-urlencoded");

impl Bench {
    /// Sends a form; answers the status and where it leads.
    async fn form(&self, path: &str, token: &str, form: &str) -> (StatusCode, String) {
        let token = format!("Bearer {token}");
        let headers = [FORM, ("authorization", &*token), ("sec-fetch-site", "same-origin")];
        let response = self.ask("POST", path, &headers, form).await;
        let place = response.headers().get("location").map(|place| place.to_str().expect("text").to_owned());
        (response.status(), place.unwrap_or_default())
    }

    async fn operations(&self) -> Vec<lanes::job::operation::Operation> {
        self.source.store.operations(10).await.expect("read")
    }
}

#[tokio::test]
async fn what_is_done_to_many_is_planned_begun_watched_and_ended() {
    let bench = bench(tokens(), false).await;
    let plan = "/ops/plan?action=retry&endpoint=crm&reason=exhausted";
    let [viewer, operator] = [bench.page(plan, VICTOR).await, bench.page(plan, ALICE).await];
    for page in [&viewer, &operator] {
        html::check(plan, page);
        assert!(page.contains("1 dead letter") && page.contains("endpoint crm, reason exhausted"), "{page}");
    }
    assert!(!viewer.contains("method=\"post\" action=\"/ops\""), "{viewer}");
    assert!(operator.contains("method=\"post\" action=\"/ops\""), "{operator}");
    assert_eq!(bench.operations().await, [], "planning begins nothing");

    let form = "action=retry&endpoint=crm&reason=exhausted&pace=50%2F1s&note=the+API+is+back";
    assert_eq!(bench.form("/ops", VICTOR, form).await.0, StatusCode::FORBIDDEN);
    let (status, place) = bench.form("/ops", ALICE, form).await;
    let begun = bench.operations().await.remove(0);
    assert_eq!((status, place), (StatusCode::SEE_OTHER, format!("/ops/{}?done=begun", begun.begun.id)));
    assert_eq!((begun.begun.planned, begun.begun.interval), (1, Duration::from_millis(20)));
    let line = bench.log().await.remove(0);
    let told = [&*line.actor, line.source.as_str(), &*line.action, &*line.target, &*line.note];
    assert_eq!(told, ["alice", "page", "retry", "dead letters of endpoint crm, reason exhausted", "the API is back"]);

    let path = format!("/ops/{}", begun.begun.id);
    for (page, shows) in
        [("/ops", "retry dead letters"), (&*path, "waits for a worker"), (&*path, "50.0 a second at most")]
    {
        let shown = bench.page(page, VICTOR).await;
        html::check(page, &shown);
        assert!(shown.contains(shows), "{shown}");
    }
    assert!(!bench.page(&path, VICTOR).await.contains("End it now"));
    assert!(bench.page(&path, ALICE).await.contains("End it now"));
    let (status, place) = bench.form(&format!("{path}/cancel"), ALICE, "").await;
    assert_eq!((status, place), (StatusCode::SEE_OTHER, format!("{path}?done=ended")));
    assert_eq!(bench.operations().await[0].phase, Phase::Cancelled);
    assert_eq!(bench.form(&format!("{path}/cancel"), ALICE, "").await.0, StatusCode::CONFLICT);
    assert!(bench.is_letter(3).await, "no worker has looked: nothing was done");
}

#[tokio::test]
async fn what_was_planned_is_what_is_begun_and_once() {
    let bench = bench(tokens(), false).await;
    let page = bench.page("/ops/plan?action=discard&endpoint=crm", ADA).await;
    let hidden = |name: &str| {
        let (_, rest) = page.split_once(&format!("name=\"{name}\" value=\"")).expect("a hidden field");
        rest.split('"').next().expect("its value").to_owned()
    };
    let form = format!("action=discard&endpoint=crm&until={}&id={}", hidden("until"), hidden("id"));
    let first = bench.form("/ops", ADA, &form).await;
    assert_eq!(first.0, StatusCode::SEE_OTHER);
    assert_eq!(bench.form("/ops", ADA, &form).await, first, "pressed twice");
    let begun = bench.operations().await;
    assert_eq!((begun.len(), begun[0].begun.selection.until.as_micros().to_string()), (1, hidden("until")));
    assert_eq!(bench.form("/ops", ADA, "action=retry&until=x").await.0, StatusCode::UNPROCESSABLE_ENTITY);
    assert_eq!(bench.form("/ops", ADA, "action=retry&until=1").await.0, StatusCode::NOT_FOUND, "nothing had died then");
}

#[tokio::test]
async fn it_takes_the_role_that_one_of_them_takes() {
    let bench = bench(tokens(), false).await;
    let discard = "action=discard&endpoint=crm";
    assert_eq!(bench.form("/ops", ALICE, discard).await.0, StatusCode::FORBIDDEN);
    assert!(bench.page("/ops/plan?action=discard&endpoint=crm", ALICE).await.contains("takes the role admin"));
    assert_eq!(bench.form("/ops", ADA, discard).await.0, StatusCode::SEE_OTHER);
    let id = bench.operations().await[0].begun.id;
    assert_eq!(bench.form(&format!("/ops/{id}/cancel"), ALICE, "").await.0, StatusCode::FORBIDDEN);
    assert!(!bench.page(&format!("/ops/{id}"), ALICE).await.contains("End it now"));
    let shown = super::bench(tokens(), true).await;
    assert_eq!(shown.form("/ops", ADA, discard).await.0, StatusCode::FORBIDDEN, "read only");
}

#[tokio::test]
async fn what_makes_no_sense_begins_nothing() {
    let bench = bench(tokens(), false).await;
    for (form, status) in [
        ("", StatusCode::UNPROCESSABLE_ENTITY),
        ("action=burn", StatusCode::UNPROCESSABLE_ENTITY),
        ("action=cancel", StatusCode::UNPROCESSABLE_ENTITY),
        ("action=retry&lane=%00", StatusCode::UNPROCESSABLE_ENTITY),
        ("action=retry&pace=fast", StatusCode::UNPROCESSABLE_ENTITY),
        ("action=retry&pace=0%2F1s", StatusCode::UNPROCESSABLE_ENTITY),
        ("action=retry&reason=nothing", StatusCode::NOT_FOUND),
    ] {
        assert_eq!(bench.form("/ops", ADA, form).await.0, status, "{form}");
    }
    assert_eq!(bench.get("/ops/plan?action=burn", ADA).await.status(), StatusCode::UNPROCESSABLE_ENTITY);
    for path in ["/ops/no-handle", "/ops/00000000-0000-0000-0000-000000000001"] {
        assert_eq!(bench.get(path, ADA).await.status(), StatusCode::NOT_FOUND, "{path}");
    }
    assert_eq!((bench.operations().await, bench.log().await), (Vec::new(), Vec::new()));
}

#[tokio::test]
async fn what_could_not_succeed_is_told_before() {
    let bench = bench(tokens(), false).await;
    let page = bench.page("/ops/plan?action=retry", ADA).await;
    html::check("/ops/plan", &page);
    // the letter that never was a job names an endpoint that nobody has configured
    assert!(page.contains("2 dead letters") && page.contains("left alone: 1, they would die again at once"), "{page}");
    assert!(!page.contains("<script>alert"), "{page}");
}

#[tokio::test]
async fn programs_do_the_same() {
    let bench = bench(tokens(), false).await;
    let post = async |path: &str, token: &str, document: Value| {
        let token = format!("Bearer {token}");
        let headers = [("content-type", "application/json"), ("authorization", &*token)];
        let response = bench.ask("POST", path, &headers, &document.to_string()).await;
        let status = response.status().as_u16();
        (status, serde_json::from_str::<Value>(&text(response).await).expect("JSON"))
    };
    let path = "/api/v1/operations";
    let wanted = json!({ "action": "cancel", "lane": "bulk", "reason": "rate_limited" });
    let dry = json!({ "action": "cancel", "lane": "bulk", "reason": "rate_limited", "dry_run": true });
    let (status, planned) = post(path, ALICE, dry).await;
    assert_eq!((status, &planned["plan"]["planned"], &planned["operation"]), (200, &json!(1), &Value::Null));
    let (status, begun) = post(path, ALICE, wanted).await;
    assert_eq!(status, 200, "{begun}");
    let handle = begun["operation"].as_str().expect("a handle").to_owned();
    for wrong in [json!({ "action": "cancel" }), json!({ "action": "retry", "pace": "x" })] {
        assert_eq!(post(path, ALICE, wrong.clone()).await.0, 422, "{wrong}");
    }
    for wrong in [json!({}), json!({ "action": "burn" }), json!({ "action": "retry", "lanes": "bulk" }), json!([1])] {
        assert_eq!(post(path, ALICE, wrong.clone()).await.0, 400, "{wrong}");
    }
    assert_eq!(post(path, ALICE, json!({ "action": "discard", "endpoint": "crm" })).await.0, 403);
    assert_eq!(post(path, VICTOR, json!({ "action": "retry" })).await.0, 403);
    let read = async |path: &str| serde_json::from_str::<Value>(&bench.page(path, VICTOR).await).expect("JSON");
    assert_eq!(read(path).await["operations"][0]["handle"], *handle);
    assert_eq!(read(&format!("{path}/{handle}")).await["phase"], "running");
    let (status, ended) = post(&format!("{path}/{handle}/cancel"), ALICE, json!({})).await;
    assert_eq!((status, &ended["phase"]), (200, &json!("cancelled")));
    assert_eq!(post(&format!("{path}/{handle}/cancel"), ALICE, json!({})).await.0, 409);
    assert_eq!(bench.log().await[0].source.as_str(), "api");
}
