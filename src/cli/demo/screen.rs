//! The demo's picture: one screen that is drawn again in place, or one line a second where that is not possible.

use std::fmt::Write as _;
use std::time::Duration;

use super::summary::{Quantiles, grouped, quantiles};

/// Widest picture; more is hard to read.
const WIDTH_MAX: usize = 110;
/// Narrower than this the table loses its less important columns.
const WIDTH_WIDE: usize = 92;
/// Cells of a bar of calls in flight.
const SLOTS_BAR: usize = 10;
/// Width of the same as a number only.
const SLOTS_TEXT: usize = 7;
/// Widest sparkline.
const SPARK_MAX: usize = 60;
const SPARKS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

/// Jobs of a lane that wait for one reason.
#[derive(Debug, Clone, PartialEq)]
pub struct Waiting {
    /// The reason's word.
    pub reason: String,
    /// How many.
    pub jobs: u64,
    /// When the next of them goes on.
    pub next_in: Option<Duration>,
}

/// One lane.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Lane {
    /// Its name.
    pub name: &'static str,
    /// Whose jobs run in it.
    pub tenant: &'static str,
    /// What its jobs are.
    pub what: &'static str,
    /// Publishes that the broker confirmed.
    pub published: u64,
    /// Messages in the queue that no worker has taken.
    pub queued: u64,
    /// Calls in flight.
    pub busy: u64,
    /// Most calls in flight.
    pub slots: u64,
    /// Waiting in the store, by reason.
    pub waiting: Vec<Waiting>,
    /// Succeeded.
    pub done: u64,
    /// Calls answered 429.
    pub limited: u64,
    /// Calls that were not their job's first.
    pub retries: u64,
    /// Dead letters.
    pub dead: u64,
}

impl Lane {
    fn waits(&self) -> u64 {
        self.waiting.iter().map(|waiting| waiting.jobs).sum()
    }
}

/// Everything that is shown.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct View {
    /// Since the start.
    pub elapsed: Duration,
    /// When it ends by itself.
    pub ends_after: Option<Duration>,
    /// What happens now, in a sentence.
    pub phase: &'static str,
    /// Calls a minute that the API allows each tenant.
    pub per_minute: u64,
    /// The lanes, real-time first.
    pub lanes: Vec<Lane>,
    /// What the API counted: tenant, calls allowed, calls refused with 429.
    pub api: Vec<(&'static str, u64, u64)>,
    /// Jobs of the import that have ended, and how many there are.
    pub import: (u64, u64),
    /// Calls answered 200 in each of the last intervals, and the interval.
    pub pace: Vec<u64>,
    /// Calls answered 200 and 429 in the last second, all lanes together.
    pub per_second: (u64, u64),
    /// Real-time latency in the last seconds.
    pub realtime_now: Option<Quantiles>,
    /// Real-time latency before the import.
    pub realtime_idle: Option<Quantiles>,
    /// Where the dashboard is.
    pub dashboard: String,
    /// What to try in another terminal.
    pub try_next: String,
}

const BOLD: &str = "1";
const DIM: &str = "2";
const RED: &str = "31";
const GREEN: &str = "32";
const YELLOW: &str = "33";
const CYAN: &str = "36";

fn styled(style: &str, text: &str) -> String {
    format!("\x1b[{style}m{text}\x1b[0m")
}

/// The picture, at most `width` columns and `height` lines.
pub fn picture(view: &View, width: usize, height: usize) -> Vec<String> {
    let width = width.clamp(1, WIDTH_MAX);
    let mut lines = vec![headline(view), String::new()];
    lines.extend(story(view).into_iter().map(|line| styled(DIM, &line)));
    lines.push(String::new());
    lines.extend(table(view, width));
    lines.push(String::new());
    lines.extend(reasons(view));
    lines.push(import_bar(view, width));
    lines.push(pace(view, width));
    lines.push(the_api(view));
    lines.push(realtime(view));
    lines.push(String::new());
    lines.push(format!(" dashboard {}", view.dashboard));
    lines.push(format!(" try       {}", view.try_next));
    if lines.len() > height {
        // a low terminal: first what can be missed
        lines.retain(|line| !line.is_empty());
        let spare = lines.len().saturating_sub(height);
        lines.drain(1..=spare.min(story(view).len()));
        lines.truncate(height);
    }
    lines.iter().map(|line| console::truncate_str(line, width, "…").into_owned()).collect()
}

fn headline(view: &View) -> String {
    let end = view.ends_after.map(|end| format!(" of {}", clock(end))).unwrap_or_default();
    let clock = format!("{}{end}", clock(view.elapsed));
    format!("{}  {clock}  {}", styled(BOLD, "lanes demo"), styled(CYAN, view.phase))
}

fn story(view: &View) -> [String; 3] {
    let (minute, second) = (grouped(view.per_minute), grouped(view.per_minute / 60));
    [
        format!(" The API allows each tenant {minute} calls a minute ({second}/s), else it says 429."),
        " Refused jobs wait in the store, hold no slot, and go on when the API allows.".to_owned(),
        " Webhooks run beside the import in a lane of their own: never behind it in line.".to_owned(),
    ]
}

fn table(view: &View, width: usize) -> Vec<String> {
    let wide = width >= WIDTH_WIDE;
    let bar = if wide { SLOTS_BAR + 6 } else { SLOTS_TEXT };
    let mut head = format!(" {:<9}", "LANE");
    if wide {
        put(&mut head, &format!(" {:<17}", ""));
    }
    put(
        &mut head,
        &format!("{:>9} {:>7}  {:<bar$}{:>8}{:>8}{:>8}", "PUBLISHED", "QUEUED", "CALLING", "WAITING", "DONE", "429s"),
    );
    if wide {
        put(&mut head, &format!("{:>9}", "RETRIES"));
    }
    put(&mut head, &format!("{:>6}", "DEAD"));
    let mut lines = vec![styled(DIM, &head)];
    for lane in &view.lanes {
        let mut line = format!(" {}", styled(BOLD, &format!("{:<9}", lane.name)));
        if wide {
            let what = format!("{} of {}", lane.what, lane.tenant);
            put(&mut line, &styled(DIM, &format!(" {what:<17}")));
        }
        put(&mut line, &format!("{:>9} {:>7}  ", grouped(lane.published), grouped(lane.queued)));
        let slots = format!("{}/{}", lane.busy, lane.slots);
        if wide {
            put(&mut line, &styled(CYAN, &fill(lane.busy, lane.slots, SLOTS_BAR)));
            put(&mut line, &format!("{slots:>6}"));
        } else {
            put(&mut line, &format!("{slots:<SLOTS_TEXT$}"));
        }
        put(&mut line, &number(lane.waits(), 8, YELLOW));
        put(&mut line, &number(lane.done, 8, GREEN));
        put(&mut line, &number(lane.limited, 8, YELLOW));
        if wide {
            put(&mut line, &number(lane.retries, 9, ""));
        }
        put(&mut line, &number(lane.dead, 6, RED));
        lines.push(line);
    }
    lines
}

fn number(number: u64, width: usize, style: &str) -> String {
    let text = format!("{:>width$}", grouped(number));
    if number == 0 { styled(DIM, &text) } else { styled(style, &text) }
}

/// Why jobs wait, one line per lane and reason; the number of lines is the same all the time, so that nothing jumps.
fn reasons(view: &View) -> Vec<String> {
    let mut all: Vec<(&Lane, &Waiting)> =
        view.lanes.iter().flat_map(|lane| lane.waiting.iter().map(move |waiting| (lane, waiting))).collect();
    all.sort_by(|a, b| b.1.jobs.cmp(&a.1.jobs).then_with(|| a.1.reason.cmp(&b.1.reason)));
    let mut lines: Vec<String> = all
        .into_iter()
        .take(2)
        .map(|(lane, waiting)| {
            let next = waiting.next_in.map(|next| format!(", next in {}", short(next))).unwrap_or_default();
            let count = styled(YELLOW, &grouped(waiting.jobs));
            let noun = if waiting.jobs == 1 { "job waits" } else { "jobs wait" };
            format!(" {count} {noun} in {}: {}{next}", lane.name, meaning(&waiting.reason))
        })
        .collect();
    if lines.is_empty() {
        lines.push(styled(DIM, " nothing waits"));
    }
    lines.resize(3, String::new());
    lines
}

/// What a reason means for a person who sees it for the first time.
fn meaning(reason: &str) -> String {
    match reason {
        "rate_limited" => "the API answered 429".to_owned(),
        "transient" => "the API failed (503)".to_owned(),
        "interrupted" => "the worker stops".to_owned(),
        "queued" => "due, on their way to a slot".to_owned(),
        other => other.replace('_', " "),
    }
}

fn import_bar(view: &View, width: usize) -> String {
    let (ended, all) = view.import;
    let count = format!("{} of {}", grouped(ended), grouped(all));
    let cells = width.saturating_sub(count.len() + 13).clamp(10, SPARK_MAX);
    format!(" import    {} {count}", styled(GREEN, &fill(ended, all, cells)))
}

fn pace(view: &View, width: usize) -> String {
    let (ok, limited) = view.per_second;
    let now = format!("{}/s ok, {}/s refused", grouped(ok), grouped(limited));
    let cells = width.saturating_sub(now.len() + 13).clamp(10, SPARK_MAX);
    format!(" calls     {} {now}", styled(GREEN, &sparkline(&view.pace, cells)))
}

/// The other side's view: it counts for itself.
fn the_api(view: &View) -> String {
    let tenant = |(tenant, allowed, limited): &(&str, u64, u64)| {
        format!("{tenant} {} allowed, {} refused", grouped(*allowed), grouped(*limited))
    };
    let tenants: Vec<String> = view.api.iter().map(tenant).collect();
    format!(" the API   {}", tenants.join("   "))
}

fn realtime(view: &View) -> String {
    let now = view.realtime_now.map_or_else(|| "-".to_owned(), quantiles);
    let idle = view.realtime_idle.map(|idle| format!("  (idle: {})", quantiles(idle)));
    format!(" real-time {} publish to call{}", styled(BOLD, &now), styled(DIM, &idle.unwrap_or_default()))
}

/// A bar of `cells`, filled by `part` of `whole`; anything that is not nothing shows.
fn fill(part: u64, whole: u64, cells: usize) -> String {
    let whole = whole.max(1);
    let full = usize::try_from(part.min(whole).saturating_mul(cells as u64).div_ceil(whole)).unwrap_or(cells);
    // full only when everything is there
    let full = if part < whole { full.min(cells.saturating_sub(1)) } else { full };
    format!("{}{}", "█".repeat(full), "░".repeat(cells - full))
}

/// The last values as a line of columns, the newest on the right, the highest as high as a line.
fn sparkline(values: &[u64], cells: usize) -> String {
    let shown = &values[values.len().saturating_sub(cells)..];
    let top = shown.iter().copied().max().unwrap_or(0).max(1);
    let column = |value: &u64| match value {
        0 => ' ',
        value => SPARKS[usize::try_from((value * 8).div_ceil(top) - 1).unwrap_or(7).min(7)],
    };
    let line: String = shown.iter().map(column).collect();
    format!("{line:<cells$}")
}

/// One line that says the same, for a log or a pipe.
pub fn line(view: &View) -> String {
    let mut out = format!("{}  ", clock(view.elapsed));
    for lane in &view.lanes {
        put(&mut out, &format!("{}: {} done", lane.name, grouped(lane.done)));
        for (count, what) in [(lane.queued, "queued"), (lane.limited, "429s"), (lane.dead, "dead")] {
            if count > 0 {
                put(&mut out, &format!(", {} {what}", grouped(count)));
            }
        }
        for waiting in &lane.waiting {
            let next = waiting.next_in.map(|next| format!(" (next in {})", short(next))).unwrap_or_default();
            put(&mut out, &format!(", {} waiting {}{next}", grouped(waiting.jobs), waiting.reason));
        }
        out.push_str("  |  ");
    }
    let now = view.realtime_now.map_or_else(|| "-".to_owned(), quantiles);
    put(&mut out, &format!("real-time {now}"));
    out
}

fn put(out: &mut String, text: &str) {
    out.write_str(text).expect("writing to a String cannot fail");
}

fn clock(time: Duration) -> String {
    format!("{:02}:{:02}", time.as_secs() / 60, time.as_secs() % 60)
}

fn short(time: Duration) -> String {
    format!("{:.1} s", time.as_secs_f64())
}

/// Draws pictures over each other.
#[derive(Debug, Default)]
pub struct Canvas {
    lines: usize,
}

impl Canvas {
    /// The bytes that put `picture` where the last one was.
    pub fn draw(&mut self, picture: &[String]) -> String {
        // begin a synchronized update: terminals that know it show the picture whole, the others ignore it
        let mut out = String::from("\x1b[?2026h");
        if self.lines > 0 {
            put(&mut out, &format!("\x1b[{}A", self.lines));
        }
        out.push('\r');
        for line in picture {
            put(&mut out, line);
            out.push_str("\x1b[K\n");
        }
        out.push_str("\x1b[J\x1b[?2026l");
        self.lines = picture.len();
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn view() -> View {
        let waiting =
            |reason: &str, jobs| Waiting { reason: reason.to_owned(), jobs, next_in: Some(Duration::from_millis(320)) };
        View {
            elapsed: Duration::from_secs(12),
            ends_after: Some(Duration::from_secs(80)),
            phase: "the import runs into the API's limit",
            per_minute: 12_000,
            lanes: vec![
                Lane {
                    name: "realtime",
                    tenant: "acme",
                    what: "webhooks",
                    published: 240,
                    slots: 16,
                    done: 239,
                    ..Lane::default()
                },
                Lane {
                    name: "bulk",
                    tenant: "globex",
                    what: "import",
                    published: 3_151,
                    queued: 1_204,
                    busy: 8,
                    slots: 8,
                    waiting: vec![waiting("rate_limited", 612), waiting("transient", 1)],
                    done: 1_209,
                    limited: 2_311,
                    retries: 1_900,
                    dead: 5,
                },
            ],
            api: vec![("acme", 239, 0), ("globex", 1_211, 2_311)],
            import: (1_214, 3_001),
            pace: vec![0, 10, 100, 200],
            per_second: (200, 118),
            realtime_now: Quantiles::of(&[4_100, 11_000]),
            realtime_idle: Quantiles::of(&[3_000]),
            dashboard: "http://127.0.0.1:9464/".to_owned(),
            try_next: "lanes status".to_owned(),
        }
    }

    fn plain(lines: &[String]) -> Vec<String> {
        lines.iter().map(|line| console::strip_ansi_codes(line).into_owned()).collect()
    }

    #[test]
    fn the_picture_says_what_waits_and_why() {
        let text = plain(&picture(&view(), 100, 40)).join("\n");
        assert!(text.contains("612 jobs wait in bulk: the API answered 429, next in 0.3 s"), "{text}");
        assert!(text.contains("1 job waits in bulk: the API failed (503), next in 0.3 s"), "{text}");
        assert!(text.contains("12,000 calls a minute (200/s)"), "{text}");
        assert!(text.contains("1,214 of 3,001"), "{text}");
        assert!(text.contains("acme 239 allowed, 0 refused   globex 1,211 allowed, 2,311 refused"), "{text}");
        assert!(text.contains("p50 4.1 ms, p99 11 ms"), "{text}");
        assert!(text.contains("██████████   8/8"), "{text}");
    }

    #[test]
    fn columns_stand_under_their_heads() {
        for width in [80, 100] {
            let lines = plain(&picture(&view(), width, 40));
            let at = lines.iter().position(|line| line.contains("PUBLISHED")).expect("the table's head");
            let end = |line: &str, what: &str| {
                line.find(what).map(|from| line[..from].chars().count() + what.chars().count())
            };
            for (head, value) in [("PUBLISHED", "3,151"), ("WAITING", "613"), ("DONE", "1,209"), ("DEAD", "5")] {
                let (head, value) = (end(&lines[at], head), end(&lines[at + 2], &format!(" {value}")));
                assert_eq!(head, value, "{width}: {}\n{}", lines[at], lines[at + 2]);
            }
        }
    }

    #[test]
    fn no_line_is_wider_than_the_terminal_and_no_picture_higher() {
        for width in [1, 20, 79, 80, 91, 92, 200] {
            for height in [1, 5, 10, 24] {
                let lines = picture(&view(), width, height);
                assert!(lines.len() <= height, "{} lines at {height}", lines.len());
                for line in &lines {
                    assert!(console::measure_text_width(line) <= width, "{width}: {line:?}");
                }
            }
        }
    }

    #[test]
    fn the_usual_terminal_shows_whole_sentences() {
        let lines = picture(&view(), 80, 24);
        assert!(lines.iter().all(|line| !line.contains('…')), "{}", plain(&lines).join("\n"));
    }

    #[test]
    fn a_picture_is_drawn_over_the_last_one() {
        let mut canvas = Canvas::default();
        let first = canvas.draw(&["a".to_owned(), "b".to_owned()]);
        assert!(!first.contains("\x1b[2A"), "{first:?}");
        let second = canvas.draw(&["c".to_owned()]);
        assert!(second.contains("\x1b[2A\rc\x1b[K\n\x1b[J"), "{second:?}");
    }

    #[test]
    fn the_line_has_no_escape_codes() {
        let text = line(&view());
        assert!(!text.contains('\x1b'));
        assert_eq!(
            text,
            "00:12  realtime: 239 done  |  bulk: 1,209 done, 1,204 queued, 2,311 429s, 5 dead, 612 waiting rate_limited \
             (next in 0.3 s), 1 waiting transient (next in 0.3 s)  |  real-time p50 4.1 ms, p99 11 ms"
        );
    }

    #[test]
    fn a_bar_is_full_only_at_the_end_and_never_empty_in_between() {
        assert_eq!(fill(0, 8, 4), "░░░░");
        assert_eq!(fill(1, 3_000, 4), "█░░░");
        assert_eq!(fill(2_999, 3_000, 4), "███░");
        assert_eq!(fill(9, 8, 4), "████");
    }

    #[test]
    fn a_sparkline_shows_the_newest_on_the_right() {
        assert_eq!(sparkline(&[0, 1, 8, 4], 4), " ▁█▄");
        assert_eq!(sparkline(&[9, 0, 0], 2), "  ");
        assert_eq!(sparkline(&[1], 3), "█  ");
    }
}
