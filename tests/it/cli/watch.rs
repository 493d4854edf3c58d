//! `lanes status --watch` as a script reads it: a document a line, until Ctrl-C.

use std::io::{BufRead as _, BufReader};

use serde_json::Value;

use super::{Background, Desk};

#[test]
fn it_shows_a_document_a_line_until_it_is_interrupted() {
    let desk = Desk::idle();
    let mut watch = Background::start(desk.command(&["status", "--watch", "--json"]));
    let mut lines = BufReader::new(watch.child.stdout.take().expect("piped")).lines();
    let mut times = Vec::new();
    for _ in 0..2 {
        let line = lines.next().expect("another line").expect("readable");
        let document: Value = serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line}"));
        assert_eq!(document["healthy"], true);
        times.push(document["time"].as_str().expect("a time").to_owned());
    }
    assert!(times[0] < times[1], "{times:?}");
    watch.signal("-INT");
    watch.end().ends(0);
}

#[test]
fn it_ends_though_nothing_answers() {
    let desk = Desk::idle();
    let mut command = desk.command(&["status", "--watch"]);
    command.env("LANES_STORE__URL", "postgres://lanes@127.0.0.1:1/lanes");
    let mut watch = Background::start(command);
    let mut lines = BufReader::new(watch.child.stdout.take().expect("piped")).lines();
    let seen = lines.find(|line| line.as_ref().expect("readable").contains("127.0.0.1:1"));
    assert!(seen.is_some(), "what is wrong is shown");
    watch.signal("-TERM");
    watch.end().ends(0);
}
