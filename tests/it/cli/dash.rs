//! `lanes dash` as an operator starts it: where it listens, whom it refuses, what it shows, how it ends.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;

use super::{Background, Desk};

fn get(address: &str, path: &str) -> String {
    let mut stream = TcpStream::connect(address).expect("listening");
    let request = format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).expect("sent");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("read");
    answer
}

#[test]
fn it_serves_pages_until_a_signal() {
    let desk = Desk::idle();
    desk.lanes(&["publish", "bulk", "--endpoint", "crm", "--id", "contact-42"]).ends(0);
    let mut dash = Background::start(desk.command(&["dash", "--listen", "127.0.0.1:0", "--read-only"]));
    let mut line = String::new();
    BufReader::new(dash.child.stdout.as_mut().expect("piped")).read_line(&mut line).expect("readable");
    let address = line.trim().strip_prefix("dashboard http://").expect("where it is").trim_end_matches('/').to_owned();
    let page = get(&address, "/");
    assert!(page.starts_with("HTTP/1.1 200 "), "{page}");
    for part in ["lane bulk has 1 job and no live worker", "viewer", "content-security-policy: default-src 'none'"] {
        assert!(page.contains(part), "{part}: {page}");
    }
    assert!(get(&address, "/healthz").ends_with("ok\n"));
    let deep = get(&address, "/healthz/deep");
    assert!(deep.starts_with("HTTP/1.1 503 "), "{deep}");
    let document: serde_json::Value = serde_json::from_str(deep.rsplit("\r\n").next().expect("a body")).expect("JSON");
    assert_eq!(document["healthy"], false);
    assert_eq!(document["store"]["reachable"], true);
    let incident = &document["incidents"][0];
    assert_eq!((&incident["kind"], &incident["lane"]), (&"no_worker".into(), &"bulk".into()), "{deep}");
    assert_eq!(incident["message"], "lane bulk has 1 job and no live worker; start one: lanes worker --lane bulk");
    assert_eq!(incident["runbook"], "docs/runbook.md#lanesabsent");
    assert!(get(&address, "/metrics").starts_with("HTTP/1.1 404 "));
    dash.signal("-TERM");
    dash.end().ends(0);
}

#[test]
fn where_others_reach_it_somebody_has_to_be_asked() {
    let desk = Desk::idle();
    desk.lanes(&["dash", "--listen", "0.0.0.0:0"]).ends(2).says("nobody is asked who they are").says("[http.auth]");
    let hashed = desk.lanes_with(&["dash", "--hash-password"], "correct horse\n").ends(0);
    assert!(hashed.out.starts_with("$argon2id$") && hashed.out.lines().count() == 1, "{}", hashed.out);
    desk.lanes_with(&["dash", "--hash-password"], "\n").ends(2).says("no password");
}

#[test]
fn a_worker_that_others_reach_has_no_dashboard_unless_it_asks() {
    let desk = Desk::idle();
    let mut command = desk.command(&["worker"]);
    command.env("LANES_HTTP__LISTEN", "0.0.0.0:0");
    let mut worker = Background::start(command);
    worker.until("and no dashboard: other machines can reach this address");
    worker.signal("-TERM");
    worker.end().ends(0);
}
