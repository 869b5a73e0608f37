//! The alert rules: each query gives one number, on a full and on an empty database, and says when it is too large.

use std::fs;

use sqlx::PgPool;

use super::grafana::{Frame, Kind};
use super::model::folder;
use crate::reader::Reader;
use crate::support::load_panel;

/// The values of a key in the rules, in order. One line each, so that no parser is needed.
fn values(key: &str) -> Vec<String> {
    let text = fs::read_to_string(folder().join("provisioning/alerting/plumecast.yaml")).unwrap();
    let prefix = format!("{key}: ");
    let value = |line: &str| {
        let line = line.trim_start().trim_start_matches("- ");
        line.strip_prefix(&prefix).map(|value| value.trim_matches('"').to_owned())
    };
    text.lines().filter_map(value).collect()
}

async fn check(pool: &PgPool) {
    let mut reader = Reader::connect(pool).await;
    let queries = values("rawSql");
    assert!(queries.len() >= 3, "{queries:?}");
    for sql in queries {
        assert!(!sql.contains("$__"), "an alert has no time range to rely on: {sql}");
        let frame = Frame::read(&mut reader.connection, &sql).await.unwrap_or_else(|error| panic!("{error}\n{sql}"));
        let kinds: Vec<Kind> = frame.columns.iter().map(|(_, kind)| *kind).collect();
        assert_eq!(kinds, [Kind::Number], "{sql}");
        assert_eq!(frame.rows.len(), 1, "{sql}");
        assert!(frame.rows[0][0].is_some(), "no number is an alert of its own: {sql}");
    }
    reader.remove(pool).await;
}

#[sqlx::test(migrator = "api::MIGRATOR")]
async fn an_alert_rule_gives_one_number(pool: PgPool) {
    check(&pool).await;
    load_panel(&pool, "city", 48).await;
    check(&pool).await;
}

#[test]
fn alert_rules_are_told_apart() {
    let (uids, titles) = (values("uid"), values("title"));
    let rules: Vec<&String> = uids.iter().filter(|uid| uid.starts_with("plumecast-alert-")).collect();
    assert_eq!(rules.len(), titles.len());
    assert_eq!(rules.iter().collect::<std::collections::BTreeSet<_>>().len(), rules.len());
    assert_eq!(values("rawSql").len(), rules.len());
    assert_eq!(values("summary").len(), rules.len());
}
