//! A measured process: the worker or the bare consumer, killed when dropped.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

/// Clock ticks a second of `/proc/PID/stat` (USER_HZ, 100 on every Linux).
const TICKS_PER_SECOND: f64 = 100.0;

pub struct Child(std::process::Child);

impl Child {
    pub fn lanes(config: &Path) -> Self {
        let log = std::fs::File::create(crate::log_of(config)).expect("a log file");
        let mut command = Command::new(env!("CARGO_BIN_EXE_lanes"));
        command.arg("--config").arg(config).args(["worker", "--no-http"]).stderr(log);
        Self(command.stdin(Stdio::null()).stdout(Stdio::null()).spawn().expect("the worker starts"))
    }

    pub fn bare(role: &str) -> Self {
        let mut command = Command::new(std::env::current_exe().expect("this program"));
        Self(command.env("LANES_BENCH_BARE", role).stdin(Stdio::null()).spawn().expect("the bare consumer starts"))
    }

    /// Publishes a file and waits for the end.
    pub fn publish(config: &Path, file: &Path) {
        let status = Command::new(env!("CARGO_BIN_EXE_lanes"))
            .arg("--config")
            .arg(config)
            .args(["publish", "bulk", "--from"])
            .arg(file)
            .stdin(Stdio::null())
            .status()
            .expect("publish starts");
        assert!(status.success(), "publish --from ended with {status}");
    }

    /// CPU time used so far.
    pub fn cpu(&self) -> Duration {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.0.id())).expect("the process lives");
        let after_name = stat.rsplit_once(')').expect("the stat format").1;
        let fields: Vec<&str> = after_name.split_whitespace().collect();
        let ticks: f64 = [11, 12].iter().map(|at| fields[*at].parse::<f64>().expect("a number")).sum();
        Duration::from_secs_f64(ticks / TICKS_PER_SECOND)
    }

    /// Peak resident memory.
    pub fn peak_rss_mb(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.0.id())).expect("the process lives");
        let line = status.lines().find(|line| line.starts_with("VmHWM")).expect("the status format");
        line.split_whitespace().nth(1).and_then(|kb| kb.parse::<u64>().ok()).expect("a number") / 1_024
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        self.0.kill().expect("killed");
        self.0.wait().expect("reaped");
    }
}
