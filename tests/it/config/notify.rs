//! Who is told of incidents: what is understood, what is refused, and that no address and no secret is shown.

use std::time::Duration;

use lanes::config::specs::NotifyKind;
use lanes::policy::health::{Kind, Severity};

use super::{Env, loaded, read};

const ENV: Env<'static> = &[
    ("SLACK", "https://hooks.slack.com/services/T0/TOPSECRET"),
    ("SIGN", "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"),
    ("SHORT", "whsec_c2hvcnQ="),
];

#[test]
fn sinks_are_read_with_their_defaults_and_never_shown() {
    let text = "[lanes.a]\n[[notify]]\nkind = \"slack\"\nurl = \"env:SLACK\"\n[[notify]]\nname = \"oncall\"\n\
                kind = \"webhook\"\nurl = \"https://oncall.example.com/TOPSECRET\"\nmin_severity = \"info\"\n\
                kinds = [\"no_worker\", \"circuit_open\"]\nrepeat = \"4h\"\nsecret = \"env:SIGN\"\n";
    let all = loaded(text, ENV);
    let [slack, oncall] = &all.specs.notify[..] else { panic!("two sinks: {:?}", all.specs.notify) };
    assert_eq!(
        (slack.name.as_str(), slack.kind, slack.min_severity),
        ("slack-1", NotifyKind::Slack, Severity::Warning)
    );
    assert_eq!((&slack.kinds[..], slack.repeat, slack.secret.is_none()), (&[][..], None, true));
    assert_eq!(slack.url.as_str(), "https://hooks.slack.com/services/T0/TOPSECRET");
    assert_eq!(
        (oncall.name.as_str(), oncall.kind, oncall.min_severity),
        ("oncall", NotifyKind::Webhook, Severity::Info)
    );
    assert_eq!(oncall.kinds, [Kind::NoWorker, Kind::CircuitOpen]);
    assert_eq!(oncall.repeat, Some(Duration::from_hours(4)));
    let shown = format!("{}{}{:?}", lanes::config::show(&all), lanes::config::show_json(&all), all.specs.notify);
    assert!(shown.contains("env:SLACK") && shown.contains("env:SIGN") && shown.contains("***"), "{shown}");
    assert!(!shown.contains("TOPSECRET") && !shown.contains("whsec_"), "{shown}");
    let changed = [ENV, &[("LANES_NOTIFY__0__MIN_SEVERITY", "critical")]].concat();
    assert_eq!(loaded(text, &changed).specs.notify[0].min_severity, Severity::Critical);
}

#[test]
fn a_sink_that_could_not_be_told_is_refused_with_advice() {
    let url = "url = \"https://x.example.com/TOPSECRET\"\n";
    for (rest, expect) in [
        (url.to_owned(), "notify.kind: is missing"),
        (format!("kind = \"slak\"\n{url}"), "did you mean \"slack\"?"),
        ("kind = \"slack\"\n".to_owned(), "notify.url: is missing"),
        ("kind = \"slack\"\nurl = \"ftp://x/TOPSECRET\"\n".to_owned(), "must begin with http:// or https://"),
        ("kind = \"slack\"\nurl = \"http://169.254.169.254/TOPSECRET\"\n".to_owned(), "metadata service"),
        (format!("kind = \"slack\"\n{url}secret = \"env:SIGN\"\n"), "Slack takes no signatures"),
        (format!("kind = \"webhook\"\n{url}secret = \"TOPSECRET\"\n"), "a secret must not be written here"),
        (format!("kind = \"webhook\"\n{url}secret = \"env:SHORT\"\n"), "whsec_ and 24 to 64 bytes in base64"),
        (format!("kind = \"webhook\"\n{url}kinds = [\"no_workr\"]\n"), "did you mean \"no_worker\"?"),
        (format!("kind = \"webhook\"\n{url}repeat = \"1s\"\n"), "notify.repeat: must be 5m to 7d"),
        (format!("kind = \"webhook\"\n{url}min_severity = \"bad\"\n"), "one of: critical, warning, info"),
        (format!("kind = \"webhook\"\n{url}name = \"a b\"\n"), "notify.name: "),
        (format!("kind = \"webhook\"\n{url}channel = \"x\"\n"), "notify.channel is not a setting"),
    ] {
        let problems = read(&format!("[lanes.a]\n[[notify]]\n{rest}"), ENV).expect_err("must be refused").to_string();
        assert!(problems.contains(expect), "{expect}: {problems}");
        assert!(!problems.contains("TOPSECRET"), "{problems}");
    }
    let sink = format!("[[notify]]\nkind = \"slack\"\n{url}");
    let twice = format!("[lanes.a]\n{sink}name = \"a\"\n{sink}name = \"a\"\n");
    assert!(read(&twice, ENV).expect_err("refused").to_string().contains("two sinks have the name \"a\""));
    let many = format!("[lanes.a]\n{}", sink.repeat(17));
    assert!(read(&many, ENV).expect_err("refused").to_string().contains("there are 17, at most 16"));
    for (public, expect) in [("nothing", "is not a url"), ("https://a:b@c/", "hold no user or password")] {
        let text = format!("[lanes.a]\n[http]\npublic_url = \"{public}\"\n");
        assert!(read(&text, ENV).expect_err("refused").to_string().contains(expect), "{expect}");
    }
}
