//! Library use, as the example shows it.

use std::path::Path;
use std::process::Command;

/// `cargo test` builds the examples beside the binaries.
#[test]
fn the_handler_example_does_each_job_once() {
    let example = Path::new(env!("CARGO_BIN_EXE_lanes")).with_file_name("examples").join("handler");
    let output = Command::new(&example).output().unwrap_or_else(|error| {
        panic!("{} does not start ({error}): run the tests with `cargo test`, which builds examples", example.display())
    });
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}\n{}", String::from_utf8_lossy(&output.stderr));
    for n in 0..10 {
        assert_eq!(said.matches(&format!("contact-{n} (")).count(), 1, "contact-{n} once in:\n{said}");
    }
    assert!(said.contains("contact-3 (attempt 2,"), "the limited one came again:\n{said}");
    assert!(said.ends_with("10 jobs done, each once\n"), "{said}");
}
