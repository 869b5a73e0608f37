//! The dashboards as Grafana's own components draw them, and as its own types describe them (`tests/grafana-ui`). Needs
//! Node and half a gigabyte of packages, so it is skipped where these are not installed.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use chrono::{DateTime, TimeZone, Utc};
use serde_json::{Value as Json, json};
use sqlx::PgPool;
use tokio::task::spawn_blocking;

use super::grafana::{Frame, Kind, TimeRange, with_variables};
use super::model::{dashboards, folder, text};
use super::queries::{choose, fill, run, targets};
use crate::reader::Reader;
use crate::support::browser::chromium;

/// The folder of Grafana's components, where they are installed.
fn installed() -> Option<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("grafana-ui");
    if folder.join("node_modules/@grafana/ui").exists() {
        return Some(folder);
    }
    eprintln!("skipped: Grafana's components are not installed, see tests/grafana-ui/README.md");
    None
}

async fn output(mut command: Command) -> Output {
    spawn_blocking(move || command.output().unwrap()).await.unwrap()
}

/// Runs a command of Node, and expects it to succeed.
async fn node(folder: &Path, arguments: &[&str]) {
    let mut command = Command::new("node");
    command.current_dir(folder).args(arguments);
    let done = output(command).await;
    let said = [done.stdout, done.stderr].concat();
    assert!(done.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&said));
}

/// A frame as the components read it: values by column, times in milliseconds.
fn frame_json(frame: &Frame) -> Json {
    let milliseconds = |text: &str| {
        let time = DateTime::parse_from_str(text, "%Y-%m-%d %H:%M:%S%.f%#z").map(|time| time.timestamp_millis());
        time.ok().or_else(|| text.parse::<f64>().ok().map(|seconds| (seconds * 1000.0) as i64))
    };
    let cell = |name: &str, kind: Kind, text: &str| match kind {
        _ if name == "time" => json!(milliseconds(text)),
        Kind::Time => json!(milliseconds(text)),
        Kind::Number => json!(text.parse::<f64>().unwrap()),
        Kind::Text => json!(text),
    };
    let field = |(index, (name, kind)): (usize, &(String, Kind))| {
        let values: Vec<Json> = frame
            .rows
            .iter()
            .map(|row| row[index].as_ref().map_or(Json::Null, |text| cell(name, *kind, text)))
            .collect();
        let kind = match kind {
            _ if name == "time" => "time",
            Kind::Time => "time",
            Kind::Number => "number",
            Kind::Text => "string",
        };
        json!({ "name": name, "type": kind, "config": {}, "values": values })
    };
    json!({ "fields": frame.columns.iter().enumerate().map(field).collect::<Vec<_>>() })
}

#[sqlx::test(migrator = "api::MIGRATOR")]
async fn grafanas_own_components_draw_the_dashboards(pool: PgPool) {
    let Some(components) = installed() else { return };
    node(&components, &["node_modules/vite/bin/vite.js", "build", "--logLevel", "error"]).await;
    let dist = components.join("dist");
    let pictures = Path::new(env!("CARGO_TARGET_TMPDIR")).join("dashboards");
    fs::create_dir_all(&pictures).unwrap();

    fill(&pool).await;
    let day = |day| Utc.with_ymd_and_hms(2025, 3, day, 0, 0, 0).unwrap();
    let range = TimeRange { from: day(7), to: day(12) };
    let mut reader = Reader::connect(&pool).await;
    for dashboard in dashboards() {
        let variables = choose(&mut reader.connection, &dashboard, range).await;
        let mut panels = vec![];
        for panel in dashboard.panels() {
            let mut frames = vec![];
            for target in targets(panel) {
                frames.push(frame_json(&run(&mut reader.connection, target, &variables, range).await));
            }
            // Prometheus is not at hand.
            if !frames.is_empty() {
                let title = with_variables(text(&panel["title"]), &variables);
                panels.push(json!({ "panel": panel, "title": title, "frames": frames }));
            }
        }
        let n_curves = panels.iter().filter(|entry| entry["panel"]["type"] == "timeseries").count();
        let board = json!({
            "theme": "dark", "from": range.from.timestamp_millis(), "to": range.to.timestamp_millis(), "panels": panels,
        });
        fs::write(dist.join("board.js"), format!("window.BOARD = {board}")).unwrap();

        let profile = tempfile::tempdir().unwrap();
        let name = dashboard.file.replace(".json", ".png");
        let browser = |extra: String| {
            let mut command = chromium();
            command.arg(format!("--user-data-dir={}", profile.path().display()));
            // The page is a file, with its scripts in files beside it.
            command.args(["--allow-file-access-from-files", "--hide-scrollbars", "--window-size=1600,1200"]);
            command
                .args(["--virtual-time-budget=10000", "--enable-logging=stderr", &extra])
                .arg(format!("file://{}/index.html", dist.display()));
            output(command)
        };
        let drawn = browser("--dump-dom".to_owned()).await;
        let (page, log) = (String::from_utf8_lossy(&drawn.stdout), String::from_utf8_lossy(&drawn.stderr));
        let complaints: Vec<&str> =
            log.lines().filter(|line| line.contains("CONSOLE") && line.contains("rror")).collect();
        assert_eq!(complaints, Vec::<&str>::new(), "{}", dashboard.file);
        assert_eq!(page.matches("data-panel=").count(), panels.len(), "{}: {log}", dashboard.file);
        assert!(page.matches("<canvas").count() >= n_curves, "{}: a panel without a drawing", dashboard.file);
        assert!(!page.contains("No data"), "{}: a panel is empty", dashboard.file);
        browser(format!("--screenshot={}", pictures.join(&name).display())).await;
        eprintln!("drawn: {}", pictures.join(name).display());
    }
    reader.remove(&pool).await;
}

#[tokio::test]
async fn grafanas_own_types_fit_the_dashboards() {
    let Some(components) = installed() else { return };
    node(&components, &["check-types.mjs", folder().to_str().unwrap()]).await;
}
