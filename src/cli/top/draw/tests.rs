//! The picture in several situations, as a terminal shows it.

use ratatui::Terminal;
use ratatui::backend::TestBackend;

use super::*;
use crate::clock::Timestamp;
use crate::governor::view::LimitState;
use crate::job::control::{Pause, Paused, Target};
use crate::job::{EndpointName, LaneName, Tenant};
use crate::observe::{Kind, Step};
use crate::store::{StateCount, WorkerId, WorkerRow};

const NOW: Timestamp = Timestamp::from_secs(1_000_000);

fn lane(text: &str) -> LaneName {
    LaneName::new(text).expect("a lane")
}

fn incident(severity: Severity, message: &str) -> Incident {
    Incident {
        kind: Kind::RealtimeWaits,
        severity,
        lane: None,
        endpoint: None,
        tenant: None,
        message: message.to_owned(),
        step: Step::Status,
        also: Vec::new(),
    }
}

fn account(tenant: &str, left: f64) -> AccountState {
    AccountState {
        endpoint: EndpointName::new("hubspot").expect("a name"),
        tenant: Tenant::new(tenant).ok(),
        limits: vec![LimitState {
            requests: 100,
            per: Duration::from_mins(1),
            scope: "tenant",
            headroom: 0.8,
            burst: None,
        }],
        source: "configured",
        set_by: None,
        learnt: Vec::new(),
        left: Some((left, Some(NOW.plus(Duration::from_secs(41))))),
        pace: Some(1.0),
        state: "open",
        since: None,
        until: None,
        detail: String::new(),
        held: 411,
    }
}

fn worker(name: &str, alive: bool) -> (WorkerRow, bool) {
    let row = WorkerRow {
        id: WorkerId(1),
        name: name.to_owned(),
        lanes: "bulk".to_owned(),
        started_at: NOW.minus(Duration::from_hours(2)),
        heartbeat_at: NOW.minus(Duration::from_secs(if alive { 1 } else { 95 })),
    };
    (row, alive)
}

/// Two lanes, one of them with a backlog.
fn busy() -> Picture {
    let count = StateCount {
        lane: lane("bulk"),
        state: State::Waiting,
        reason: "budget".to_owned(),
        jobs: 411,
        oldest_published_at: Some(NOW.minus(Duration::from_mins(18))),
        next_resume_at: Some(NOW),
    };
    let idle = Lane { configured: true, workers: 1, unacked: Some(0), ..Lane::default() };
    let bulk = Lane { ready: 35_000, counts: vec![count], dead: 127, ..idle.clone() };
    Picture {
        lanes: vec![(lane("realtime"), idle), (lane("bulk"), bulk)],
        workers: vec![worker("a:1", true), worker("b:2", true), worker("c:3", false)],
        accounts: vec![account("globex", 71.0), account("acme", 6.0)],
        ..Picture::unseen(NOW)
    }
}

fn drawn(picture: Option<&Picture>, screen: &mut Screen, (width, height): (u16, u16)) -> Terminal<TestBackend> {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).expect("a terminal");
    let seen = picture.map(|picture| (picture, Duration::from_secs(1)));
    let draw = |frame: &mut ratatui::Frame<'_>| {
        let area = frame.area();
        super::draw(seen, screen, area, frame.buffer_mut());
    };
    terminal.draw(draw).expect("drawn");
    terminal
}

/// Each line, without what is empty at its end.
fn lines(terminal: &Terminal<TestBackend>) -> Vec<String> {
    let buffer = terminal.backend().buffer();
    let cells: Vec<&str> = buffer.content().iter().map(ratatui::buffer::Cell::symbol).collect();
    cells.chunks(usize::from(buffer.area.width)).map(|line| line.concat().trim_end().to_owned()).collect()
}

fn shown(picture: Option<&Picture>, view: View, size: (u16, u16)) -> Vec<String> {
    lines(&drawn(picture, &mut Screen { view, ..Screen::default() }, size))
}

#[test]
fn everything_important_is_on_eighty_columns_and_twenty_four_lines() {
    let incidents = vec![
        incident(
            Severity::Critical,
            "realtime waits 12 s (p95, goal 2.0 s). bulk makes 94 % of the calls of hubspot (35,000 jobs wait).",
        ),
        incident(Severity::Warning, "bulk: 127 dead letters, +58 in the last hour."),
    ];
    let lines = shown(Some(&Picture { incidents, ..busy() }), View::Overview, (80, 24));
    let expected = [
        " lanes [Overview] Incidents  Lanes  Waiting  Budgets  Workers",
        " ! 2 incidents  13:46:40",
        " ready 35,000  held 0  retrying 411  dead 127  oldest 18m (bulk)",
        "",
        " INCIDENTS",
        " !! realtime waits 12 s (p95, goal 2.0 s). bulk makes 94 % of the calls of",
        "    hubspot (35,000 jobs wait).",
        "    next: lanes status",
        " !  bulk: 127 dead letters, +58 in the last hour.",
        "    next: lanes status",
        "",
        " LANE       READY  UNACKED  RUNNING  WAITING  QUEUED  DEAD  OLDEST   WORKERS",
        " realtime       0        0        0        0       0     0  -              1",
        " bulk      35,000        0        0      411       0   127  18m ago        1",
        "",
        " BUDGET OF  TENANT  LEFT                  RESETS  STATE  HELD",
    ];
    assert_eq!(lines[..expected.len()], expected);
    assert!(lines[16].starts_with(" hubspot    acme    [#.........]   6/100  in 41s  open    411"), "{lines:#?}");
    assert!(lines[17].starts_with(" hubspot    globex  [########..]  71/100"), "{lines:#?}");
    assert_eq!(lines[19..21], [" WORKERS", " !! c:3 silent for 1m 35s"]);
    assert_eq!(lines[23], KEYS);
}

#[test]
fn a_quiet_installation_says_so_in_one_word() {
    let lines = shown(Some(&Picture { workers: vec![worker("a:1", true)], ..busy() }), View::Overview, (80, 24));
    assert_eq!(lines[1], " ✓ healthy  13:46:40");
    assert!(!lines.iter().any(|line| line.contains("INCIDENTS")), "{lines:#?}");
    assert!(lines.iter().any(|line| line == " ✓ a:1"), "{lines:#?}");
    let unseen = shown(None, View::Overview, (80, 24));
    assert_eq!(unseen[1], " Looking for the first time...");
}

#[test]
fn what_cannot_be_read_is_not_shown_as_nothing() {
    let away = Picture { store: Err("h: refused".to_owned()), broker: Err("h: refused".to_owned()), ..busy() };
    let lines = shown(Some(&away), View::Overview, (80, 24));
    assert!(lines[2].starts_with(" ready ?  held ?  retrying ?  dead ?"), "{lines:#?}");
}

#[test]
fn a_narrow_terminal_and_long_names_are_cut_and_nothing_else() {
    let long = "a-lane-with-a-name-that-is-far-longer-than-a-terminal-is-wide";
    let mut picture = busy();
    picture.lanes.push((lane(long), Lane { configured: true, ..Lane::default() }));
    picture.incidents = vec![incident(Severity::Warning, &format!("{long}: \u{1b}[31m is stuck"))];
    for (width, height) in [(80, 24), (40, 12), (20, 6), (10, 3), (1, 1)] {
        for view in View::ALL {
            let lines = shown(Some(&picture), view, (width, height));
            assert_eq!(lines.len(), usize::from(height));
            assert!(!lines.concat().contains('\u{1b}'), "no escape sequence of somebody else");
        }
    }
    let lines = shown(Some(&picture), View::Incidents, (40, 12));
    assert!(lines.iter().any(|line| line.starts_with(" !  a-lane-with-a-name")), "{lines:#?}");
}

#[test]
fn scrolling_ends_with_the_last_line() {
    let mut picture = busy();
    picture.lanes = (0..50).map(|n| (lane(&format!("lane-{n}")), Lane::default())).collect();
    let mut screen = Screen { view: View::Lanes, scroll: 7, ..Screen::default() };
    let first = lines(&drawn(Some(&picture), &mut screen, (80, 24)));
    assert!(first[3].starts_with(" lane-5"), "{first:#?}");
    screen.scroll = 9_999;
    let last = lines(&drawn(Some(&picture), &mut screen, (80, 24)));
    assert!(last[22].starts_with(" lane-49"), "{last:#?}");
    assert_eq!(screen.scroll, 52 - 20, "and a key up goes on from there");
}

#[test]
fn colours_say_nothing_alone_and_can_be_left_out() {
    let incidents = vec![incident(Severity::Critical, "the worst"), incident(Severity::Info, "a trend")];
    let picture = Picture { incidents, ..busy() };
    let colours = |color| {
        let terminal = drawn(Some(&picture), &mut Screen { color, ..Screen::default() }, (80, 24));
        let plain = terminal.backend().buffer().content().iter().all(|cell| cell.fg == Color::Reset);
        (lines(&terminal), plain)
    };
    let ((with, is_plain), (without, is_plain_without)) = (colours(true), colours(false));
    assert!(!is_plain && is_plain_without);
    assert_eq!(with, without, "the same words and marks");
    assert!(with.iter().any(|line| line.starts_with(" !! the worst")));
    assert!(with.iter().any(|line| line.starts_with(" i  a trend")));
}

#[test]
fn what_is_paused_frozen_or_old_is_said_to_be() {
    let target = Target::Lane(lane("bulk"));
    let pause = Pause {
        until: None,
        note: "the CRM is being moved".to_owned(),
        author: "ada@home".to_owned(),
        set_at: NOW.minus(Duration::from_mins(3)),
    };
    let picture = Picture { paused: vec![Paused { target, pause }], ..busy() };
    let lines = shown(Some(&picture), View::Lanes, (80, 24));
    assert!(lines.iter().any(|line| line.starts_with(" lane bulk") && line.contains("ada@home")), "{lines:#?}");
    let said = |age, frozen| {
        let mut buffer = Buffer::empty(Rect::new(0, 0, 80, 24));
        let mut screen = Screen { frozen, ..Screen::default() };
        super::draw(Some((&picture, Duration::from_secs(age))), &mut screen, buffer.area, &mut buffer);
        buffer.content()[..80].iter().map(ratatui::buffer::Cell::symbol).collect::<String>().trim_end().to_owned()
    };
    assert!(said(10, false).ends_with(" Workers"));
    assert!(said(11, false).ends_with("  11s old"));
    assert!(said(11, true).ends_with("  frozen"));
}
