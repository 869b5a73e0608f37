//! The page in a real browser.

use std::path::Path;
use std::process::Command;

use sqlx::PgPool;
use tokio::task::spawn_blocking;

use crate::support::{Service, load_panel, train};

/// A browser without a window.
pub fn chromium() -> Command {
    let found = ["/usr/bin/chromium", "/usr/bin/google-chrome"].into_iter().find(|path| Path::new(path).exists());
    let mut command = Command::new(found.expect("./run test installs Chromium"));
    command.args(["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"]);
    command.args(["--disable-background-networking", "--disable-component-update", "--disable-sync"]);
    command.args(["--virtual-time-budget=10000", "--window-size=1200,1600"]);
    command
}

#[sqlx::test(migrator = "api::MIGRATOR")]
async fn the_page_draws_observations_fan_and_trajectories(pool: PgPool) {
    let service = Service::start(&pool).await;
    let loaded = load_panel(&pool, "city", 240).await;
    train(&pool, &service, &loaded).await;
    let forecast = serde_json::json!({ "panel": "city", "horizon": 12, "num_samples": 40 });
    service.make_forecast(&forecast).await.expect(201);

    let address = service.address("/panels/city");
    let folder = tempfile::tempdir().unwrap();
    let profile = format!("--user-data-dir={}", folder.path().display());
    let output = spawn_blocking(move || chromium().arg(profile).arg("--dump-dom").arg(address).output().unwrap());
    let output = output.await.unwrap();
    let page = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    // The chart's script has run: its lines are paths of a drawing, and the fan's bands are filled.
    assert!(page.contains("class=\"main-svg\""), "no chart was drawn: {}", String::from_utf8_lossy(&output.stderr));
    let n_lines = page.matches("class=\"js-line\"").count();
    assert!(n_lines >= 20, "observations, bands, median and trajectories make {n_lines} lines");
    assert!(page.contains("class=\"js-fill\""), "the fan has no bands");
}
