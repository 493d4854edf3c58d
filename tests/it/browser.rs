//! The dashboard of `lanes demo` in a real browser: live, quiet on the console, light and dark, wide and narrow.

mod scenes;

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use lanes::clock::within;
use serde_json::json;

/// Ends with the test, however that ends.
struct Demo(Child);

impl Drop for Demo {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn every_page_works_in_a_browser() {
    let dir = tempfile::tempdir().expect("a directory");
    let keep = dir.path().join("demo");
    let mut command = Command::new(env!("CARGO_BIN_EXE_lanes"));
    command.args(["demo", "--for", "10m", "--records", "2000", "--requests-per-minute", "600", "--keep"]).arg(&keep);
    let child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("the binary starts");
    let mut demo = Demo(child);
    let mut lines = BufReader::new(demo.0.stderr.take().expect("piped")).lines().map(|line| line.expect("UTF-8"));
    let url =
        lines.find_map(|line| line.strip_prefix("dashboard ").map(str::to_owned)).expect("where the dashboard is");
    lines.find(|line| line.contains("bulk: ") && line.contains(" waiting")).expect("the import waits for its budget");
    // what it still says must find a reader
    std::thread::spawn(move || lines.for_each(drop));

    let pictures = Path::new(env!("CARGO_TARGET_TMPDIR")).join("dashboard");
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/browser/dash.js");
    let axe = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/foreign-node/node_modules/axe-core/axe.min.js");
    assert!(
        axe.is_file(),
        "{} is missing, which finds what people with disabilities cannot use: run scripts/test once, or\n\
         npm install --no-save --no-package-lock --prefix target/foreign-node axe-core@4.14.1",
        axe.display()
    );
    let looked = Command::new("node").arg(script).arg(url).arg(&pictures).arg(&axe).output();
    let looked = looked.expect("node runs: apt-get install nodejs");
    let said = String::from_utf8_lossy(&looked.stdout);
    assert!(
        looked.status.success(),
        "pictures are in {}\n{said}{}",
        pictures.display(),
        String::from_utf8_lossy(&looked.stderr)
    );
}

/// Real time in which what happened is counted: workers write it down every ten seconds.
const COUNTED_WITHIN: Duration = Duration::from_secs(45);

/// Whoever opens the overview sees within five seconds what is wrong, and what to press; `lanes status` says the same.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_incident_is_seen_within_five_seconds() {
    let scenes = scenes::all().await;
    for scene in &scenes {
        let mut shown = String::new();
        let told = within(COUNTED_WITHIN, async {
            loop {
                let (code, text) = scene.status().await;
                if code == Some(3) && scene.is_said_in(&text) {
                    return;
                }
                shown = text;
            }
        });
        assert!(told.await.is_ok(), "{}: lanes status says\n{shown}\n{}", scene.name, scene.log());
    }
    let asked: Vec<_> =
        scenes.iter().map(|scene| json!({ "name": scene.name, "url": scene.url, "says": scene.says })).collect();
    let pictures = Path::new(env!("CARGO_TARGET_TMPDIR")).join("dashboard");
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/browser/incidents.js");
    let node = Command::new("node").arg(script).arg(&pictures).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
    let mut node = node.expect("node runs: apt-get install nodejs");
    let text = serde_json::to_vec(&asked).expect("JSON");
    node.stdin.take().expect("piped").write_all(&text).expect("written");
    let looked = tokio::task::spawn_blocking(|| node.wait_with_output()).await.expect("joined").expect("it ran");
    let said = String::from_utf8_lossy(&looked.stdout);
    assert!(looked.status.success(), "pictures are in {}\n{said}", pictures.display());
    // the README's, made anew by whoever asks for it
    if std::env::var_os("LANES_KEEP_PICTURES").is_some() {
        let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs");
        for scheme in ["light", "dark"] {
            let made = pictures.join(format!("incident-spike-{scheme}.png"));
            std::fs::copy(made, docs.join(format!("dashboard-{scheme}.png"))).expect("kept");
        }
    }
}
