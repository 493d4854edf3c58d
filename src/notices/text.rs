//! Notices as sinks take them: JSON for webhooks, a text for Slack.

use serde_json::{Value, json};
use url::Url;

use crate::clock::Timestamp;
use crate::policy::health::Severity;
use crate::policy::notices::{Notice, Status};

/// Most characters of Slack's text: it cuts at 40,000, and nobody reads more than this.
const SLACK_CHARS_MAX: usize = 2_000;

/// The body of a webhook. README documents it: fields are added, never changed.
pub fn webhook(notice: &Notice, dashboard: Option<&Url>, now: Timestamp) -> Value {
    let about = &notice.about;
    json!({
        "schema": 1, "type": format!("incident.{}", notice.status.as_str()), "timestamp": now.to_string(),
        "status": notice.status.as_str(), "incident": notice.incident,
        "kind": about.kind.as_str(), "severity": about.severity,
        "lane": about.lane, "endpoint": about.endpoint, "tenant": about.tenant,
        "message": about.message, "step": about.step, "runbook": about.kind.runbook(),
        "opened_at": notice.opened_at.to_string(), "closed_at": notice.closed_at.map(|at| at.to_string()),
        "dashboard": dashboard.map(Url::as_str),
    })
}

/// The body for Slack's incoming webhooks, and whatever takes the same (Mattermost, Rocket.Chat).
pub fn slack(notice: &Notice, dashboard: Option<&Url>) -> Value {
    let about = &notice.about;
    let sign = match (notice.status, about.severity) {
        (Status::Closed, _) => ":white_check_mark: *closed*",
        (Status::Opened, Severity::Critical) => ":rotating_light: *critical*",
        (Status::Opened, Severity::Warning) => ":warning: *warning*",
        (Status::Opened, Severity::Info) => ":information_source: *info*",
        (Status::Reminder, _) => ":repeat: *still*",
    };
    let rest = match notice.closed_at {
        Some(at) => format!(" (was open for {} min)", at.since(notice.opened_at).as_secs().div_ceil(60)),
        None => format!("\nNext: `{}`", escaped(&about.step).replace('`', "'")),
    };
    let text: String = format!("{sign} {}{rest}", escaped(&about.message)).chars().take(SLACK_CHARS_MAX).collect();
    let link = dashboard.map(|url| format!("\n<{}|Dashboard>", escaped(url.as_str()).replace('|', "%7C")));
    let text = format!("{text}{}", link.unwrap_or_default());
    json!({ "text": text })
}

/// Slack's own three characters: what is told may come from outside.
fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::policy::health::Kind;
    use crate::policy::notices::About;

    fn notice(status: Status) -> Notice {
        Notice {
            sink: "oncall".to_owned(),
            status,
            id: Uuid::from_u128(1),
            incident: Uuid::from_u128(2),
            about: About {
                kind: Kind::LaneStuck,
                severity: Severity::Warning,
                lane: Some("bulk".to_owned()),
                endpoint: None,
                tenant: None,
                message: "bulk has called nothing: <!channel> & <https://evil.example|crm> fails.".to_owned(),
                step: "lanes jobs list --lane bulk".to_owned(),
            },
            opened_at: Timestamp::from_secs(1_000_000),
            closed_at: (status == Status::Closed).then(|| Timestamp::from_secs(1_000_090)),
        }
    }

    #[test]
    fn a_webhook_says_everything_by_its_own_name() {
        let url = Url::parse("https://lanes.example.com/").expect("a url");
        let body = webhook(&notice(Status::Closed), Some(&url), Timestamp::from_secs(1_000_150));
        let expected = json!({
            "schema": 1, "type": "incident.closed", "timestamp": "1970-01-12T13:49:10Z", "status": "closed",
            "incident": "00000000-0000-0000-0000-000000000002", "kind": "lane_stuck", "severity": "warning",
            "lane": "bulk", "endpoint": null, "tenant": null,
            "message": "bulk has called nothing: <!channel> & <https://evil.example|crm> fails.",
            "step": "lanes jobs list --lane bulk", "runbook": "docs/runbook.md#laneslanestarved",
            "opened_at": "1970-01-12T13:46:40Z", "closed_at": "1970-01-12T13:48:10Z",
            "dashboard": "https://lanes.example.com/",
        });
        assert_eq!(body, expected);
    }

    #[test]
    fn slack_is_told_in_words_that_cannot_call_anybody() {
        let body = slack(&notice(Status::Opened), None);
        assert_eq!(
            body["text"],
            ":warning: *warning* bulk has called nothing: &lt;!channel&gt; &amp; &lt;https://evil.example|crm&gt; fails.\n\
             Next: `lanes jobs list --lane bulk`"
        );
        let url = Url::parse("https://lanes.example.com/?a=1&b=2").expect("a url");
        let closed = slack(&notice(Status::Closed), Some(&url));
        let text = closed["text"].as_str().expect("a text");
        assert!(text.starts_with(":white_check_mark: *closed* bulk"), "{text}");
        assert!(text.ends_with(" (was open for 2 min)\n<https://lanes.example.com/?a=1&amp;b=2|Dashboard>"), "{text}");
    }
}
