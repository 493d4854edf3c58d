//! What is found and drawn: filters as a line of text, charts from the history, help.

use super::*;

#[tokio::test]
async fn a_line_of_text_leads_to_the_url_that_says_the_same() {
    let bench = bench(tokens(), false).await;
    let asked = |text: &str| url::form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>();
    let response =
        bench.get(&format!("/jobs?q={}", asked("state:waiting reason:rate_limited endpoint:crm")), VICTOR).await;
    assert_eq!(response.status(), StatusCode::SEE_OTHER);
    let location = response.headers()["location"].to_str().expect("text").to_owned();
    assert_eq!(location, "/jobs?state=waiting&reason=rate_limited&endpoint=crm");
    let page = bench.page(&location, VICTOR).await;
    assert!(page.contains("name=\"q\" value=\"state:waiting endpoint:crm reason:rate_limited\""), "{page}");
    assert_eq!(page.matches("waiting</span>").count(), 1, "one job is shown: {page}");
    let cleared = bench.get("/dead?q=", VICTOR).await;
    assert_eq!(cleared.headers()["location"], "/dead?");
    for (path, text, said) in [
        ("/jobs", "tennant:acme", "&quot;tennant&quot; is no qualifier here; did you mean tenant:?"),
        ("/jobs", "lane:bluk", "&quot;bluk&quot; is no lane; did you mean lane:bulk?"),
        (
            "/dead",
            "state:dead",
            "&quot;state&quot; is no qualifier here. There are lane:, endpoint:, tenant:, reason:.",
        ),
        ("/dead", "reason:exausted", "did you mean reason:exhausted?"),
    ] {
        let page = bench.page(&format!("{path}?q={}", asked(text)), VICTOR).await;
        assert!(page.contains(said) && page.contains("role=\"alert\""), "{text}: {page}");
        assert!(page.contains(&format!("value=\"{text}\"")), "what was typed stays");
    }
}

#[tokio::test]
async fn what_was_counted_is_drawn_with_its_numbers() {
    let bench = bench(tokens(), false).await;
    let overview = bench.page("/", VICTOR).await;
    for part in [
        "aria-label=\"bulk wait p95, from ",
        "aria-label=\"429s a minute, from ",
        "+3 in the last hour",
        "3 of 24 jobs",
        "Average backoff of retries, 24 hours",
        "Retries of 24 hours by the attempt that failed",
        "aria-label=\"Mean time of jobs of bulk, by six hours, from ",
    ] {
        assert!(overview.contains(part), "{part}: {overview}");
    }
    let lane = bench.page("/lanes/bulk", VICTOR).await;
    for part in
        ["succeeded 7, out of retries 1, ended otherwise 0", "<summary>Numbers</summary>", "How long jobs waited"]
    {
        assert!(lane.contains(part), "{part}: {lane}");
    }
    let limits = bench.page("/limits", VICTOR).await;
    assert!(limits.contains("aria-label=\"429s of crm, from "), "{limits}");
    let crm = bench.page("/limits?endpoint=crm", VICTOR).await;
    assert!(crm.contains("How long calls took, 24 hours") && crm.contains("not limited 10, 429 1"), "{crm}");
    assert!(!overview.contains("style=") && !lane.contains("style="), "the policy allows no style in a page");
}

#[tokio::test]
async fn keys_and_filters_are_told_without_a_script_too() {
    let bench = bench(tokens(), false).await;
    let help = bench.page("/help", VICTOR).await;
    for part in
        ["<kbd>g</kbd> <kbd>r</kbd></dt><dd>Limits</dd>", "Pause updates of this page", "state:waiting tenant:acme"]
    {
        assert_eq!(help.matches(part).count(), 2, "on the page and in the dialog: {part}");
    }
}
