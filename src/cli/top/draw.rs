//! The picture of `lanes top`: what was seen, as cells of a terminal. Pure: the same sight is the same picture.

use std::time::Duration;

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};

use crate::cli::status;
use crate::cli::text::{Table, clean_line, count, duration, shorten, until};
use crate::governor::view::AccountState;
use crate::observe::{Incident, Lane, Picture, Severity};
use crate::store::State;

/// What is older is said to be: several looks have failed.
const STALE: Duration = Duration::from_secs(10);
/// Cells of a bar.
const BAR: u32 = 10;
/// Most characters of a name.
const NAME_MAX: usize = 24;
/// Most lines of a part of the overview, its heading included.
const PART_MAX: usize = 7;
/// Lines above and below what can be scrolled.
const FRAME: u16 = 4;
const KEYS: &str = " q quit  tab next view  ↑↓ scroll  p freeze";

/// What is looked at.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum View {
    /// Of everything the most important.
    #[default]
    Overview,
    /// What needs a person, in full.
    Incidents,
    /// Lanes, and what is paused.
    Lanes,
    /// Who waits, why and until when.
    Waiting,
    /// What may be called, least left first.
    Budgets,
    /// Workers.
    Workers,
}

impl View {
    /// All of them, in their order.
    pub const ALL: [Self; 6] =
        [Self::Overview, Self::Incidents, Self::Lanes, Self::Waiting, Self::Budgets, Self::Workers];

    const fn name(self) -> &'static str {
        match self {
            Self::Overview => "Overview",
            Self::Incidents => "Incidents",
            Self::Lanes => "Lanes",
            Self::Waiting => "Waiting",
            Self::Budgets => "Budgets",
            Self::Workers => "Workers",
        }
    }
}

/// How it is looked at.
#[derive(Debug, Clone, Default)]
pub struct Screen {
    /// What.
    pub view: View,
    /// Lines that are above the screen.
    pub scroll: usize,
    /// Nothing new is shown.
    pub frozen: bool,
    /// With colours.
    pub color: bool,
}

impl Screen {
    /// So many views further.
    pub fn turn(&mut self, by: usize) {
        let at = View::ALL.iter().position(|view| *view == self.view).unwrap_or(0);
        self.go((at + by) % View::ALL.len());
    }

    /// To a view by its place, if there is one.
    pub fn go(&mut self, at: usize) {
        if let Some(view) = View::ALL.get(at) {
            (self.view, self.scroll) = (*view, 0);
        }
    }

    fn style(&self, color: Color) -> Style {
        if self.color { Style::new().fg(color) } else { Style::new() }
    }
}

const BOLD: Style = Style::new().add_modifier(Modifier::BOLD);

/// Draws what was seen and how old it is; scrolling ends with the last line.
pub fn draw(seen: Option<(&Picture, Duration)>, screen: &mut Screen, area: Rect, buffer: &mut Buffer) {
    let width = usize::from(area.width);
    let mut lines = vec![tabs(screen, seen.map(|(_, age)| age))];
    let body = match seen {
        None => vec![Line::raw(" Looking for the first time...")],
        Some((picture, _)) => {
            lines.push(health(picture, screen));
            lines.push(cards(picture, screen));
            body(picture, screen, width)
        }
    };
    let room = usize::from(area.height.saturating_sub(FRAME));
    screen.scroll = screen.scroll.min(body.len().saturating_sub(room));
    lines.extend(body.into_iter().skip(screen.scroll).take(room));
    for (line, y) in lines.iter().zip(area.y..area.bottom()) {
        buffer.set_line(area.x, y, line, area.width);
    }
    if area.height > FRAME {
        let dim = Style::new().add_modifier(Modifier::DIM);
        buffer.set_stringn(area.x, area.bottom() - 1, KEYS, width, dim);
    }
}

fn tabs(screen: &Screen, age: Option<Duration>) -> Line<'static> {
    let mut spans = vec![Span::styled(" lanes ", BOLD)];
    for view in View::ALL {
        let chosen = view == screen.view;
        let style = if chosen { Style::new().add_modifier(Modifier::REVERSED) } else { Style::new() };
        // also without colours and styles it is seen which one it is
        let name = if chosen { format!("[{}]", view.name()) } else { format!(" {} ", view.name()) };
        spans.push(Span::styled(name, style));
    }
    match age {
        _ if screen.frozen => spans.push(Span::styled("  frozen", BOLD)),
        Some(age) if age > STALE => {
            spans.push(Span::styled(format!("  {} old", duration(age)), screen.style(Color::Yellow)));
        }
        _ => {}
    }
    Line::from(spans)
}

fn health(picture: &Picture, screen: &Screen) -> Line<'static> {
    let text = |number: usize| format!(" ! {number} incident{}", if number == 1 { "" } else { "s" });
    let at = format!("  {}", picture.now.to_string().get(11..19).unwrap_or_default());
    let said = match picture.incidents.len() {
        0 => Span::styled(" ✓ healthy", screen.style(Color::Green)),
        number => {
            let worst = picture.incidents.iter().map(|incident| incident.severity).min();
            Span::styled(text(number), severity_style(screen, worst.unwrap_or(Severity::Info)).patch(BOLD))
        }
    };
    Line::from(vec![said, Span::raw(at)])
}

fn severity_style(screen: &Screen, severity: Severity) -> Style {
    screen.style(match severity {
        Severity::Critical => Color::Red,
        Severity::Warning => Color::Yellow,
        Severity::Info => Color::Cyan,
    })
}

fn cards(picture: &Picture, screen: &Screen) -> Line<'static> {
    let sum = |of: fn(&Lane) -> u64| picture.lanes.iter().map(|(_, lane)| of(lane)).sum::<u64>();
    let shown = |known: bool, number: u64| if known { count(number) } else { "?".to_owned() };
    let (store, broker) = (picture.store.is_ok(), picture.broker.is_ok());
    let held: u64 = picture.held.iter().map(|held| held.of.jobs).sum();
    let dead = sum(|lane| lane.dead);
    let oldest = picture.lanes.iter().filter_map(|(name, lane)| Some((lane.oldest()?, name))).min();
    let oldest = oldest.map_or_else(
        || "-".to_owned(),
        |(at, name)| format!("{} ({})", duration(picture.now.since(at)), shorten(name.as_str(), NAME_MAX)),
    );
    let waiting = sum(|lane| lane.jobs(State::Waiting)).saturating_sub(held);
    let cards = [
        ("ready", shown(broker, sum(|lane| lane.ready + lane.due)), Style::new()),
        ("held", shown(store, held), Style::new()),
        ("retrying", shown(store, waiting), Style::new()),
        ("dead", shown(store, dead), if dead > 0 { screen.style(Color::Red) } else { Style::new() }),
        ("oldest", oldest, Style::new()),
    ];
    let spans = cards.into_iter().flat_map(|(name, value, style)| {
        [Span::raw(format!(" {name} ")), Span::styled(value, style.patch(BOLD)), Span::raw(" ")]
    });
    Line::from(spans.collect::<Vec<_>>())
}

fn body(picture: &Picture, screen: &Screen, width: usize) -> Vec<Line<'static>> {
    let spaced = |tables: [Vec<Line<'static>>; 2]| {
        let mut lines = Vec::new();
        for table in tables.into_iter().filter(|table| table.len() > 1) {
            lines.push(Line::default());
            lines.extend(table);
        }
        lines
    };
    match screen.view {
        View::Overview => overview(picture, screen, width),
        View::Incidents => spaced([incidents(picture, screen, width), Vec::new()]),
        View::Lanes => spaced([table(&status::lanes_table(picture)), table(&status::paused_table(picture))]),
        View::Waiting => spaced([table(&status::waiting_table(picture)), Vec::new()]),
        View::Budgets => spaced([table(&budgets(picture)), Vec::new()]),
        View::Workers => spaced([table(&status::workers_table(picture)), Vec::new()]),
    }
}

/// The beginning of everything, the most urgent first.
fn overview(picture: &Picture, screen: &Screen, width: usize) -> Vec<Line<'static>> {
    let parts = [
        incidents(picture, screen, width),
        table(&status::lanes_table(picture)),
        table(&status::paused_table(picture)),
        table(&budgets(picture)),
        workers(picture, screen),
    ];
    let mut lines = Vec::new();
    for mut part in parts.into_iter().filter(|part| part.len() > 1) {
        lines.push(Line::default());
        let left_out = part.len().saturating_sub(PART_MAX);
        if left_out > 0 {
            part.truncate(PART_MAX - 1);
            part.push(Line::raw(format!("  ... {} more lines", left_out + 1)));
        }
        lines.extend(part);
    }
    lines
}

/// What needs a person, each with its next step, in as many lines as it takes.
fn incidents(picture: &Picture, screen: &Screen, width: usize) -> Vec<Line<'static>> {
    let mut lines = vec![Line::styled(" INCIDENTS", BOLD)];
    for Incident { severity, message, step, .. } in &picture.incidents {
        let mark = match severity {
            Severity::Critical => "!!",
            Severity::Warning => "! ",
            Severity::Info => "i ",
        };
        let style = severity_style(screen, *severity);
        for (at, text) in wrapped(&clean_line(message), width.saturating_sub(4)).into_iter().enumerate() {
            let mark = if at == 0 { mark } else { "  " };
            lines.push(Line::from(vec![
                Span::styled(format!(" {mark} "), style.patch(BOLD)),
                Span::styled(text, style),
            ]));
        }
        let step = clean_line(&step.to_string());
        if !message.contains(&step) {
            lines.push(Line::raw(format!("    next: {step}")));
        }
    }
    lines
}

/// Lines of at most `width` characters, broken between words; a longer word stands alone and is cut by the screen.
fn wrapped(text: &str, width: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split(' ') {
        let last = lines.last().map_or(0, |line| line.chars().count());
        if last > 0 && last + 1 + word.chars().count() > width {
            lines.push(String::new());
        }
        if let Some(line) = lines.last_mut() {
            if !line.is_empty() {
                line.push(' ');
            }
            line.push_str(word);
        }
    }
    lines
}

fn table(table: &Table) -> Vec<Line<'static>> {
    let lines = table.lines().into_iter().enumerate();
    lines.map(|(at, line)| Line::styled(format!(" {line}"), if at == 0 { BOLD } else { Style::new() })).collect()
}

/// Budgets of which something is known, least left first.
fn budgets(picture: &Picture) -> Table {
    let mut table = Table::new(&["BUDGET OF", "TENANT", "LEFT", ">", "RESETS", "STATE", ">HELD"]);
    let mut known: Vec<&AccountState> =
        picture.accounts.iter().filter(|account| account.left.is_some() || account.until.is_some()).collect();
    known.sort_by(|a, b| a.share_left().total_cmp(&b.share_left()));
    for account in known {
        let left = account.left.map(|(left, _)| left);
        let number = match (left, account.most()) {
            (Some(left), Some(most)) => format!("{left:.0}/{most:.0}"),
            (Some(left), None) => format!("{left:.0}"),
            (None, _) => String::new(),
        };
        let resets = account.left.and_then(|(_, at)| at).or(account.until);
        table.row([
            shorten(account.endpoint.as_str(), NAME_MAX),
            account.tenant.as_ref().map_or_else(|| "(all)".to_owned(), |tenant| shorten(tenant.as_str(), NAME_MAX)),
            left.map(|_| bar(account.share_left())).unwrap_or_default(),
            number,
            resets.map(|at| until(at, picture.now)).unwrap_or_default(),
            account.state.to_owned(),
            count(account.held),
        ]);
    }
    table
}

/// A bar that is full at 1; whatever is not nothing shows.
fn bar(part: f64) -> String {
    let cells = (0..BAR).map(|cell| if f64::from(cell) < part * f64::from(BAR) { '#' } else { '.' });
    format!("[{}]", cells.collect::<String>())
}

/// One word for each worker, so that many of them are seen at once.
fn workers(picture: &Picture, screen: &Screen) -> Vec<Line<'static>> {
    let mut lines = vec![Line::styled(" WORKERS", BOLD)];
    let silent = picture.workers.iter().filter(|(_, alive)| !alive);
    lines.extend(silent.map(|(worker, _)| {
        let since = duration(picture.now.since(worker.heartbeat_at));
        let text = format!(" !! {} silent for {since}", clean_line(&shorten(&worker.name, NAME_MAX)));
        Line::styled(text, screen.style(Color::Red))
    }));
    let alive: Vec<String> = picture
        .workers
        .iter()
        .filter(|(_, alive)| *alive)
        .map(|(worker, _)| format!("✓ {}", clean_line(&shorten(&worker.name, NAME_MAX))))
        .collect();
    if !alive.is_empty() {
        lines.push(Line::raw(format!(" {}", alive.join("  "))));
    }
    lines
}

#[cfg(test)]
mod tests;
