//! Conventions that code can check.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// Names of the packages that a crate is built from.
fn packages_of(name: &str) -> BTreeSet<String> {
    let mut cargo = Command::new(std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned()));
    cargo.args([
        "tree",
        "--offline",
        "--locked",
        "--edges",
        "normal",
        "--prefix",
        "none",
        "--format",
        "{p}",
        "-p",
        name,
    ]);
    let output = cargo.current_dir(root()).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines().filter_map(|line| line.split_whitespace().next()).map(str::to_owned).collect()
}

/// All Rust files that git would take.
fn sources() -> Vec<PathBuf> {
    fn collect(folder: &Path, found: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                collect(&path, found);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                found.push(path);
            }
        }
    }
    let mut found = vec![];
    ["forecast", "ingest", "api", "tests"].iter().for_each(|folder| collect(&root().join(folder), &mut found));
    assert!(found.len() > 50, "the sources are found");
    found
}

#[test]
fn dependencies_point_one_way() {
    let forecast = packages_of("forecast");
    for stranger in ["ingest", "api", "polars", "sqlx", "actix-web", "arrow", "chrono"] {
        assert!(!forecast.contains(stranger), "forecast must not know {stranger}");
    }
    let ingest = packages_of("ingest");
    for stranger in ["api", "sqlx", "actix-web"] {
        assert!(!ingest.contains(stranger), "ingest must not know {stranger}");
    }
    assert!(ingest.contains("forecast") && packages_of("api").contains("ingest"));
}

#[test]
fn every_module_says_what_it_is() {
    for path in sources() {
        let text = fs::read_to_string(&path).unwrap();
        assert!(text.starts_with("//!"), "{} has no module documentation", path.display());
    }
}

#[test]
fn nothing_is_silenced_or_put_off() {
    // Put together here, so that this file does not find itself.
    let banned = ["#[al", "#![al", "#[ign", "#[should_pa", "TO", "FIX", "dbg"];
    let ends = ["low(", "low(", "ore", "nic", "DO:", "ME", "!("];
    for path in sources() {
        let text = fs::read_to_string(&path).unwrap();
        for (start, end) in banned.iter().zip(ends) {
            let word = format!("{start}{end}");
            assert!(!text.contains(&word), "{} contains {word}", path.display());
        }
    }
}

#[test]
fn no_test_waits_by_the_clock() {
    let sleeps = ["sle", "ep("].concat();
    for path in sources().into_iter().filter(|path| path.starts_with(root().join("tests"))) {
        assert!(!fs::read_to_string(&path).unwrap().contains(&sleeps), "{} sleeps", path.display());
    }
}

#[test]
fn only_the_edge_reads_the_clock() {
    for path in sources()
        .into_iter()
        .filter(|path| path.starts_with(root().join("forecast/src")) || path.starts_with(root().join("ingest/src")))
    {
        let text = fs::read_to_string(&path).unwrap();
        assert!(!text.contains("Utc::now") && !text.contains("SystemTime::now"), "{} reads the clock", path.display());
    }
}

#[test]
fn nothing_fails_because_nobody_reads_standard_error() {
    // It panics when standard error has gone away.
    let prints = ["eprint", "ln!("].concat();
    for path in sources().into_iter().filter(|path| path.starts_with(root().join("api/src"))) {
        assert!(!fs::read_to_string(&path).unwrap().contains(&prints), "{} prints to standard error", path.display());
    }
}
