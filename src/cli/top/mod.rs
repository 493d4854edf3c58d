//! `lanes top`: the overview on a terminal, drawn again and again, with keys to look closer.

mod draw;

use std::io::{self, IsTerminal as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use clap::Args;
use ratatui::DefaultTerminal;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use tokio::sync::{mpsc, watch};

use super::context::{Context, Globals};
use super::error::{CliError, Exit};
use super::out::colors_wanted;
use super::signals::Signals;
use super::status::{self, Doors};
use crate::clock::{self, Clock as _, Timestamp};
use crate::observe::Picture;
use draw::{Screen, View};

/// Time between two looks.
const EVERY: Duration = Duration::from_secs(2);
/// Longest wait for a key before it is seen that nobody waits for keys any more.
const KEY_MAX: Duration = Duration::from_millis(200);
/// Keys that are typed ahead.
const KEYS_MAX: usize = 32;
/// The screen is drawn again after so long, though nothing new was seen: what is shown gets older.
const REDRAW: Duration = Duration::from_secs(1);
/// Lines that a page key moves.
const PAGE: usize = 10;

/// Arguments of `lanes top`.
#[derive(Debug, Args)]
pub struct TopArgs {}

/// Runs it until a key or a signal says so.
pub async fn run(globals: &Globals, _args: TopArgs) -> Result<Exit, CliError> {
    if globals.json || !io::stdout().is_terminal() || !io::stdin().is_terminal() {
        let why = "lanes top draws on a terminal, and there is none";
        return Err(CliError::usage(why).help("lanes status --watch, with --json for programs"));
    }
    // a line of the log would stand in the middle of the picture
    let log = if io::stderr().is_terminal() { Some("off".to_owned()) } else { globals.log.clone() };
    let (ctx, _) = Context::load(&Globals { log, ..globals.clone() }, false)?;
    let listened = Signals::listen();
    let signals = listened.map_err(|error| CliError::failed(format!("cannot listen to signals: {error}")))?;
    let refused = |error| CliError::failed(format!("the terminal cannot be drawn on: {error}"));
    let mut terminal = ratatui::try_init().map_err(refused)?;
    let ended = watch_and_draw(&ctx, &mut terminal, signals).await;
    let restored = ratatui::try_restore().map_err(refused);
    ended.and_then(|exit| restored.map(|()| exit))
}

async fn watch_and_draw(ctx: &Context, terminal: &mut DefaultTerminal, signals: Signals) -> Result<Exit, CliError> {
    let (pictures, seen) = watch::channel(None);
    let looking = async {
        let mut doors = Doors::default();
        loop {
            let picture = status::look(ctx, &mut doors).await?;
            pictures.send_replace(Some(Arc::new((picture, ctx.clock.now()))));
            clock::sleep(&ctx.clock, EVERY).await;
        }
    };
    let (keys, stopped) = listen();
    let ended = tokio::select! {
        failed = looking => failed,
        ended = show(ctx, terminal, seen, keys, signals) => ended,
    };
    stopped.store(true, Ordering::Release);
    ended
}

/// Reads keys on a thread of their own, until it is told to stop: a terminal can only be waited for by blocking.
fn listen() -> (mpsc::Receiver<KeyEvent>, Arc<AtomicBool>) {
    let (typed, keys) = mpsc::channel(KEYS_MAX);
    let stopped = Arc::new(AtomicBool::new(false));
    let stop = Arc::clone(&stopped);
    std::thread::spawn(move || {
        while !stop.load(Ordering::Acquire) {
            let event = match event::poll(KEY_MAX) {
                Ok(true) => event::read(),
                Ok(false) => continue,
                Err(error) => Err(error),
            };
            let sent = match event {
                Ok(Event::Key(key)) if key.kind != KeyEventKind::Release => typed.blocking_send(key),
                // whatever else it is, the picture is drawn again
                Ok(_) => typed.blocking_send(KeyEvent::new(KeyCode::Null, KeyModifiers::NONE)),
                // no keys any more: a signal still ends it
                Err(_) => return,
            };
            if sent.is_err() {
                return;
            }
        }
    });
    (keys, stopped)
}

/// A picture, and when it was taken by this process's clock.
type Seen = Option<Arc<(Picture, Timestamp)>>;

async fn show(
    ctx: &Context,
    terminal: &mut DefaultTerminal,
    mut seen: watch::Receiver<Seen>,
    mut keys: mpsc::Receiver<KeyEvent>,
    mut signals: Signals,
) -> Result<Exit, CliError> {
    let mut screen = Screen { color: colors_wanted(), ..Screen::default() };
    let mut shown: Seen = None;
    let (mut has_keys, mut has_looks) = (true, true);
    loop {
        if !screen.frozen || shown.is_none() {
            shown.clone_from(&seen.borrow_and_update());
        }
        let age = shown.as_ref().map(|shown| ctx.clock.now().since(shown.1));
        let picture = shown.as_ref().map(|shown| &shown.0);
        let drawn = terminal.draw(|frame| {
            let area = frame.area();
            draw::draw(picture.zip(age), &mut screen, area, frame.buffer_mut());
        });
        drawn.map_err(|error| CliError::failed(format!("the terminal cannot be drawn on: {error}")))?;
        tokio::select! {
            _ = signals.next() => return Ok(Exit::Ok),
            key = keys.recv(), if has_keys => match key {
                Some(key) if press(&mut screen, key) => return Ok(Exit::Ok),
                Some(_) => {}
                None => has_keys = false,
            },
            changed = seen.changed(), if has_looks => has_looks = changed.is_ok(),
            () = clock::sleep(&ctx.clock, REDRAW) => {}
        }
    }
}

/// Does what a key says; true = it is over.
fn press(screen: &mut Screen, key: KeyEvent) -> bool {
    let control = key.modifiers.contains(KeyModifiers::CONTROL);
    match key.code {
        KeyCode::Char('q') | KeyCode::Esc => return true,
        KeyCode::Char('c') if control => return true,
        KeyCode::Tab | KeyCode::Right => screen.turn(1),
        KeyCode::BackTab | KeyCode::Left => screen.turn(View::ALL.len() - 1),
        KeyCode::Char(digit @ '1'..='9') => screen.go(digit as usize - '1' as usize),
        KeyCode::Down | KeyCode::Char('j') => screen.scroll += 1,
        KeyCode::Up | KeyCode::Char('k') => screen.scroll = screen.scroll.saturating_sub(1),
        KeyCode::PageDown => screen.scroll += PAGE,
        KeyCode::PageUp => screen.scroll = screen.scroll.saturating_sub(PAGE),
        KeyCode::Home => screen.scroll = 0,
        KeyCode::Char('p') => screen.frozen = !screen.frozen,
        _ => {}
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_switch_scroll_freeze_and_end() {
        let mut screen = Screen::default();
        let mut press = |code| super::press(&mut screen, KeyEvent::new(code, KeyModifiers::NONE));
        assert!(press(KeyCode::Char('q')) && press(KeyCode::Esc));
        assert!(!press(KeyCode::Tab) && !press(KeyCode::Down) && !press(KeyCode::Down) && !press(KeyCode::Up));
        assert!(!press(KeyCode::Char('p')) && !press(KeyCode::Char('c')));
        assert_eq!((screen.view, screen.scroll, screen.frozen), (View::Incidents, 1, true));
        screen.turn(View::ALL.len() - 1);
        assert_eq!((screen.view, screen.scroll), (View::Overview, 0), "another view begins at its top");
        screen.turn(View::ALL.len() - 1);
        assert_eq!(screen.view, View::Workers);
        screen.go(99);
        assert_eq!(screen.view, View::Workers, "there is no such view");
        assert!(super::press(&mut screen, KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL)));
    }
}
