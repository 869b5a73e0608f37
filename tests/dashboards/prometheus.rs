//! Every metric and label that a dashboard asks Prometheus for is one that the service writes.

use std::collections::BTreeSet;

use serde_json::json;
use sqlx::PgPool;

use super::model::{dashboards, list, text};
use crate::support::{Service, load_panel, train};

/// Words that begin with `plumecast_`.
fn metrics(text: &str) -> BTreeSet<&str> {
    let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    text.split(|c| !is_word(c)).filter(|word| word.starts_with("plumecast_")).collect()
}

/// Labels in `by (a, b)`, `{a="…"}` and legends `{{a}}`.
fn labels<'a>(expression: &'a str, legend: &'a str) -> BTreeSet<&'a str> {
    let grouped =
        expression.split("by (").skip(1).filter_map(|rest| rest.split_once(')')).flat_map(|(list, _)| list.split(','));
    let selected =
        expression.split('{').skip(1).filter_map(|rest| rest.split_once(['=', '~', '!'])).map(|(name, _)| name);
    let shown = legend.split("{{").skip(1).filter_map(|rest| rest.split_once("}}")).map(|(name, _)| name);
    grouped.chain(selected).chain(shown).map(str::trim).collect()
}

#[sqlx::test(migrator = "api::MIGRATOR")]
async fn what_dashboards_ask_prometheus_for_is_there(pool: PgPool) {
    let service = Service::start(&pool).await;
    let loaded = load_panel(&pool, "city", 24 * 14).await;
    train(&pool, &service, &loaded).await;
    service.make_forecast(&json!({"panel": "city", "horizon": 3, "num_samples": 2})).await.expect(201);
    let written = service.get("/metrics").await.text();
    let lines: Vec<&str> = written.lines().filter(|line| !line.starts_with('#')).collect();

    let mut n_expressions = 0;
    for dashboard in dashboards() {
        for target in dashboard.panels().flat_map(|panel| list(&panel["targets"])) {
            let Some(expression) = target["expr"].as_str() else { continue };
            n_expressions += 1;
            let names = metrics(expression);
            assert!(!names.is_empty(), "{expression}");
            for name in names {
                let found: Vec<&&str> =
                    lines.iter().filter(|line| line.split(['{', ' ']).next() == Some(name)).collect();
                assert!(!found.is_empty(), "{}: there is no metric {name}", dashboard.file);
                for label in labels(expression, text(&target["legendFormat"])) {
                    let has = |line: &&&str| {
                        line.contains(&format!("{{{label}=\"")) || line.contains(&format!(",{label}=\""))
                    };
                    assert!(found.iter().any(has), "{}: {name} has no label {label}", dashboard.file);
                }
            }
        }
    }
    assert!(n_expressions >= 10, "{n_expressions}");
}
