//! Notices that another process has written to the file, without asking the file.

use std::ffi::OsString;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use notify::{Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::Notify;

use crate::clock::within;
use crate::db::Sqlite;

/// After a change was noticed, further ones within this time are seen together.
const DEBOUNCE: Duration = Duration::from_millis(20);
/// How often a waiting consumer looks without having been told.
const FALLBACK_POLL: Duration = Duration::from_secs(1);
/// The same where changes of the file cannot be watched.
const BLIND_POLL: Duration = Duration::from_millis(100);

/// Wakes consumers when somebody commits.
#[derive(Debug)]
pub(super) struct FileWatch {
    changed: Arc<Notify>,
    inside: Arc<Notify>,
    /// Its thread ends when this is dropped. `None`: there is no file, or no watching.
    watcher: Option<RecommendedWatcher>,
    poll: Duration,
}

impl FileWatch {
    pub(super) fn of(db: &Sqlite) -> Self {
        let changed = Arc::new(Notify::new());
        let mut watch = Self { changed, inside: db.wrote.clone(), watcher: None, poll: FALLBACK_POLL };
        if let Some(path) = &db.path {
            match watch_wal(path, watch.changed.clone()) {
                Ok(watcher) => watch.watcher = Some(watcher),
                Err(error) => {
                    tracing::warn!(%error, path = %path.display(), "cannot watch the database file, polling it instead");
                    watch.poll = BLIND_POLL;
                }
            }
        }
        watch
    }

    /// Registers for the next change. To be called before looking, so that nothing slips between look and wait.
    pub(super) fn next_change(&self) -> impl Future<Output = ()> + Send + use<> {
        let (inside, changed, poll) = (self.inside.clone(), self.changed.clone(), self.poll);
        let (mut here, mut elsewhere) = (Box::pin(inside.clone().notified_owned()), Box::pin(changed.notified_owned()));
        here.as_mut().enable();
        elsewhere.as_mut().enable();
        async move {
            let either = async {
                tokio::select! {
                    () = here => {}
                    // a commit writes several times, and our own store writes all the time
                    () = elsewhere => { let _ = within(DEBOUNCE, inside.notified()).await; },
                }
            };
            let _ = within(poll, either).await; // late is an answer too: look again
        }
    }
}

fn watch_wal(path: &Path, changed: Arc<Notify>) -> notify::Result<RecommendedWatcher> {
    let mut wal: OsString = path.file_name().unwrap_or_default().to_owned();
    wal.push("-wal");
    let mut watcher = notify::recommended_watcher(move |event: notify::Result<Event>| {
        let ours = match event {
            Ok(Event { kind: EventKind::Access(_), .. }) => false,
            Ok(event) => event.need_rescan() || event.paths.iter().any(|path| path.file_name() == Some(&wal)),
            Err(_) => true, // something was missed: look
        };
        if ours {
            changed.notify_waiters();
        }
    })?;
    // the directory, because the log file is removed and made again
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    watcher.watch(directory, RecursiveMode::NonRecursive)?;
    Ok(watcher)
}
