//! The API as programs meet it: the documents, the same acts and lines as on pages, and problems that say what to do.

use serde_json::{Value, json};

use super::*;

const JSON: (&str, &str) = ("content-type", "application/json");

impl Bench {
    async fn told(&self, path: &str) -> Value {
        let response = self.get(path, VICTOR).await;
        assert_eq!(response.status(), StatusCode::OK, "{path}");
        assert_eq!(response.headers()["content-type"], "application/json", "{path}");
        let document = text(response).await;
        assert!(!document.contains(SECRET), "{path} shows a secret: {document}");
        serde_json::from_str(&document).expect("JSON")
    }

    async fn post(&self, path: &str, token: &str, document: &Value) -> (u16, Value) {
        let token = format!("Bearer {token}");
        let response = self.ask("POST", path, &[JSON, ("authorization", &token)], &document.to_string()).await;
        answer(path, response).await
    }
}

/// The status and the document; a problem says what is wrong and what to do.
async fn answer(path: &str, response: Response<Body>) -> (u16, Value) {
    let status = response.status().as_u16();
    let kind = response.headers()["content-type"].to_str().expect("text").to_owned();
    let document: Value = serde_json::from_str(&text(response).await).expect("JSON");
    if status >= 400 {
        assert_eq!(kind, "application/problem+json", "{path}");
        assert_eq!(document["status"], status, "{path}");
        for name in ["title", "detail", "help"] {
            assert!(document[name].as_str().is_some_and(|text| !text.is_empty()), "{path}: {document}");
        }
    } else {
        assert_eq!(kind, "application/json", "{path}");
    }
    (status, document)
}

#[tokio::test]
async fn programs_read_what_the_command_line_writes() {
    let bench = bench(tokens(), false).await;
    let status = bench.told("/api/v1/status").await;
    assert_eq!(status["problems"], json!([]));
    assert_eq!(
        (&status["schema"], &status["healthy"], &status["store"]["reachable"]),
        (&json!(1), &json!(true), &json!(true))
    );
    assert_eq!(status["problems"], json!([]));
    assert_eq!(bench.told("/api/v1/lanes").await["lanes"][0]["name"], "bulk");
    let first = bench.told("/api/v1/jobs?limit=2").await;
    assert_eq!(first["jobs"].as_array().expect("a list").len(), 2);
    let next = first["next"].as_str().expect("a next page");
    let rest = bench.told(&format!("/api/v1/jobs?limit=2&after={next}")).await;
    assert_eq!((rest["jobs"].as_array().expect("a list").len(), &rest["next"]), (1, &Value::Null));
    let waiting = bench.told("/api/v1/jobs?state=waiting&reason=rate_limited").await;
    assert_eq!(waiting["jobs"][0]["handle"], Uuid::from_u128(1).to_string());
    let job = bench.told(&format!("/api/v1/jobs/{}", Uuid::from_u128(3))).await;
    assert_eq!((&job["state"], &job["letter"]["reason"]), (&json!("dead"), &json!("exhausted")));
    assert_eq!(job["attempts"][0]["status"], 429);
    assert_eq!(bench.told("/api/v1/dead?reason=undecodable").await["letters"].as_array().expect("a list").len(), 1);
    assert_eq!(bench.told("/api/v1/dead/groups").await["groups"].as_array().expect("a list").len(), 2);
    assert_eq!(bench.told("/api/v1/limits").await["limits"][0]["endpoint"], "crm");
    assert_eq!(bench.told("/api/v1/audit").await["lines"], json!([]));
}

#[tokio::test]
async fn programs_act_as_people_do() {
    let bench = bench(tokens(), false).await;
    let post = async |path: &str, token: &str, document: Value| {
        let (status, answer) = bench.post(path, token, &document).await;
        assert_eq!(status, 200, "{path}: {answer:#}");
        answer["result"].as_str().expect("a word").to_owned()
    };
    let of = |number: u128, verb: &str| format!("/api/v1/jobs/{}/{verb}", Uuid::from_u128(number));
    assert_eq!(
        post("/api/v1/pause", ALICE, json!({ "lane": "bulk", "for": "15m", "note": "on fire" })).await,
        "paused"
    );
    assert_eq!(bench.told("/api/v1/lanes").await["lanes"][0]["pause"]["note"], "on fire");
    assert_eq!(post("/api/v1/resume", ALICE, json!({ "lane": "bulk" })).await, "resumed");
    let limits = json!({ "endpoint": "crm", "tenant": "acme", "limits": [{ "requests": 100, "per": "1m" }], "headroom": 1.0, "for": "1h" });
    assert_eq!(post("/api/v1/limits", ADA, limits).await, "limits_set");
    let slower = json!({ "endpoint": "crm", "tenant": "acme", "percent": 10 });
    assert_eq!(post("/api/v1/limits/slow", ADA, slower).await, "limits_set");
    let account = json!({ "endpoint": "crm", "tenant": "acme" });
    assert_eq!(post("/api/v1/limits/reset", ADA, account).await, "limits_reset");
    assert_eq!(post(&of(1, "cancel"), ALICE, json!({ "note": "obsolete" })).await, "cancelled");
    assert_eq!(post(&of(3, "retry"), ALICE, json!({})).await, "retried");
    let discard = format!("/api/v1/dead/{}/discard", Uuid::from_u128(4));
    assert_eq!(post(&discard, ADA, json!({})).await, "discarded");
    let (status, edited) = bench.post(&of(2, "edit"), ADA, &json!({ "body": "{\"n\":2}" })).await;
    assert_eq!((status, &edited["result"], &edited["handle"]), (200, &json!("edited"), &json!(Uuid::from_u128(1_001))));

    let log = bench.log().await;
    let told: Vec<_> = log.iter().map(|line| (&*line.actor, line.source.as_str(), &*line.action)).collect();
    let by = |who, what| (who, "api", what);
    let expected = [
        by("ada", "edit"),
        by("ada", "edit"),
        by("ada", "discard"),
        by("alice", "retry"),
        by("alice", "cancel"),
        by("ada", "reset_limits"),
        by("ada", "set_limits"),
        by("ada", "set_limits"),
        by("alice", "resume"),
        by("alice", "pause"),
    ];
    assert_eq!(told, expected);
    let lines = bench.told("/api/v1/audit?actor=alice&limit=2").await;
    assert_eq!((&lines["lines"][0]["action"], lines["lines"].as_array().expect("a list").len()), (&json!("retry"), 2));
    let older = bench.told(&format!("/api/v1/audit?actor=alice&before={}", lines["next"])).await;
    assert_eq!(older["lines"].as_array().expect("a list").len(), 2);
}

#[tokio::test]
async fn a_body_that_is_none_is_refused_with_advice() {
    let bench = bench(tokens(), false).await;
    let token = format!("Bearer {ADA}");
    let changes = ROUTES.iter().filter(|route| route.method == "POST" && route.path.starts_with("/api/"));
    let mut seen = 0;
    for route in changes {
        let path = filled(route.path);
        seen += 1;
        let large = format!("{{\"note\":\"{}\"}}", "x".repeat(600_000));
        let cases = [
            (Some("application/json"), "{\"lane\": \"bulk\"", 400),
            (Some("application/json"), "[]", 400),
            (Some("application/json"), "\u{0}", 400),
            (
                Some("application/json"),
                "{\"lane\":\"bulk\",\"endpoint\":\"crm\",\"limits\":[],\"percent\":1,\"body\":\"x\",\"surprise\":1}",
                400,
            ),
            (Some("application/json; charset=utf-8"), "{\"surprise\":1}", 400),
            (Some("text/plain"), "{}", 415),
            (Some("application/x-www-form-urlencoded"), "lane=bulk", 415),
            (None, "{}", 415),
            (Some("application/json"), &large, 413),
        ];
        for (kind, body, expected) in cases {
            let kind = kind.map(|kind| ("content-type", kind));
            let headers: Vec<_> = kind.into_iter().chain([("authorization", token.as_str())]).collect();
            let (status, problem) = answer(&path, bench.ask("POST", &path, &headers, body).await).await;
            assert_eq!(status, expected, "{path} {body:.60}: {problem:#}");
        }
    }
    assert_eq!(seen, 14, "every route that changes something");
    assert_eq!(bench.log().await, []);
}

#[tokio::test]
async fn what_there_is_not_is_a_problem_with_advice() {
    let bench = bench(tokens(), false).await;
    let nobody = Uuid::from_u128(99);
    for (path, document, expected) in [
        ("/api/v1/pause".to_owned(), json!({ "lane": "bluk" }), 404),
        ("/api/v1/pause".to_owned(), json!({ "endpoint": "hubspot" }), 404),
        ("/api/v1/pause".to_owned(), json!({}), 422),
        ("/api/v1/pause".to_owned(), json!({ "lane": "a b" }), 400),
        ("/api/v1/pause".to_owned(), json!({ "lane": "bulk", "for": "soon" }), 400),
        ("/api/v1/pause".to_owned(), json!({ "lane": "bulk", "for": "0s" }), 422),
        ("/api/v1/resume".to_owned(), json!({ "lane": "bulk" }), 404),
        ("/api/v1/resume".to_owned(), json!({ "lane": "bulk", "for": "1m" }), 422),
        ("/api/v1/limits".to_owned(), json!({ "endpoint": "hubspot", "limits": [] }), 404),
        ("/api/v1/limits".to_owned(), json!({ "endpoint": "crm", "limits": [], "headroom": 7.0 }), 422),
        ("/api/v1/limits/reset".to_owned(), json!({ "endpoint": "hubspot" }), 404),
        ("/api/v1/limits/slow".to_owned(), json!({ "endpoint": "crm", "percent": 50 }), 422),
        (format!("/api/v1/jobs/{nobody}/cancel"), json!({}), 404),
        (format!("/api/v1/jobs/{nobody}/retry"), json!({}), 404),
        (format!("/api/v1/dead/{nobody}/discard"), json!({}), 404),
        ("/api/v1/dead/contact-42/retry".to_owned(), json!({}), 404),
    ] {
        let (status, problem) = bench.post(&path, ADA, &document).await;
        assert_eq!(status, expected, "{path} {document}: {problem:#}");
    }
    let (_, problem) = bench.post("/api/v1/pause", ADA, &json!({ "lane": "bluk" })).await;
    assert_eq!(
        (&problem["detail"], &problem["help"]),
        (&json!("no lane bluk is configured"), &json!("Configured are: bulk."))
    );
    let token = format!("Bearer {VICTOR}");
    for (method, path, expected) in [
        ("GET", "/api/v1/jobs?stat=waiting", 400),
        ("GET", "/api/v1/jobs?state=asleep", 422),
        ("GET", "/api/v1/jobs?limit=0", 422),
        ("GET", "/api/v1/dead?limit=x", 400),
        ("GET", "/api/v1/status?x=1", 400),
        ("GET", "/api/v1/audit?before=x", 400),
        ("GET", &format!("/api/v1/jobs/{nobody}"), 404),
        ("GET", "/api/v1/nothing", 404),
        ("GET", "/api/v1/pause", 405),
        ("DELETE", "/api/v1/jobs", 405),
        ("POST", "/api/v1/pause", 403),
    ] {
        let (status, problem) = answer(path, bench.ask(method, path, &[("authorization", &token)], "").await).await;
        assert_eq!(status, expected, "{method} {path}: {problem:#}");
    }
    let (status, _) = answer("401", bench.ask("GET", "/api/v1/status", &[], "").await).await;
    assert_eq!(status, 401);
    let foreign = [("authorization", token.as_str()), ("sec-fetch-site", "cross-site")];
    assert_eq!(answer("403", bench.ask("POST", "/api/v1/pause", &foreign, "").await).await.0, 403);
    assert_eq!(bench.log().await, []);
}
