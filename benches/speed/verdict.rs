//! Targets: each is printed beside its figure, and whoever misses one makes the benchmark fail at its end.

use std::sync::atomic::{AtomicUsize, Ordering};

/// How many targets were missed.
#[derive(Default)]
pub struct Verdict(AtomicUsize);

impl Verdict {
    /// Prints a figure beside its target.
    pub fn target(&self, what: &str, figure: &str, target: &str, is_met: bool) {
        let missed = if is_met { "" } else { "  MISSED" };
        println!("{what}: {figure} (must be {target}){missed}");
        if !is_met {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    pub fn missed(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}
