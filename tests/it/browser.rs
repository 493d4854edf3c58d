//! The dashboard of `lanes demo` in a real browser: live, quiet on the console, light and dark, wide and narrow.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

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
