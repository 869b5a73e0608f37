//! Runs every query of every dashboard, for a range with everything, one before all data, and one far ahead.

use api::config::Limits;
use api::db::{self, DEFAULT_TENANT};
use api::jobs::scheduler::{self, Declaration};
use chrono::{TimeDelta, TimeZone, Utc};
use forecast::Trajectories;
use serde_json::Value as Json;
use sqlx::{PgConnection, PgPool};

use super::grafana::{Frame, Kind, TimeRange, Value, Variables, with_macros, with_variables};
use super::model::{Dashboard, dashboards, list, text};
use crate::reader::Reader;
use crate::story::{User, hourly_file, path};
use crate::support::{Service, do_job, load_panel, register, store_forecast};

fn range(from: i32, to: i32) -> TimeRange {
    let start = |year| Utc.with_ymd_and_hms(year, 1, 1, 0, 0, 0).unwrap();
    TimeRange { from: start(from), to: start(to) }
}

/// Holds everything that the database was filled with, which was now at the latest.
fn everything() -> TimeRange {
    TimeRange { from: range(2025, 2026).from, to: Utc::now() + TimeDelta::days(1) }
}

/// Two series of ten days with gaps and corrections, a model, and forecasts of four issue times: by the commands.
pub async fn fill(pool: &PgPool) {
    let user = User::new(pool);
    let file = user.file("plant.csv", &hourly_file());
    user.say(&["load", path(&file), "--panel", "plant", "--unit", "MW", "--lower-bound", "0"]).await;
    let corrected = user.file("later.csv", &hourly_file().replace(",5.", ",5.1"));
    user.say(&["load", path(&corrected), "--panel", "plant"]).await;
    user.say(&["train", "--panel", "plant", "--horizon", "6", "--train-steps", "2", "--test-windows", "2"]).await;
    for issue_time in ["2025-03-10T06:00:00Z", "2025-03-10T12:00:00Z", "2025-03-10T18:00:00Z", "2025-03-11T00:00:00Z"] {
        user.say(&[
            "forecast",
            "--panel",
            "plant",
            "--horizon",
            "24",
            "--num-samples",
            "20",
            "--issue-time",
            issue_time,
        ])
        .await;
    }
    user.say(&["score", "--panel", "plant"]).await;
    work(pool).await;
}

/// A schedule, a job that it has made, and a worker.
async fn work(pool: &PgPool) {
    let declaration = serde_json::json!({
        "name": "hourly", "cron": "0 * * * *", "time_zone": "UTC", "kind": "score", "arguments": {"panel": "plant"},
    });
    let declaration: Declaration = serde_json::from_value(declaration).unwrap();
    let mut connection = pool.acquire().await.unwrap();
    let now = Utc::now();
    scheduler::declare(&mut connection, &declaration, &Limits::default(), now).await.unwrap();
    db::worker::seen(&mut *connection, DEFAULT_TENANT, "test", now).await.unwrap();
    drop(connection);
    let folder = tempfile::tempdir().unwrap();
    do_job(pool, folder.path(), "score", serde_json::json!({"panel": "plant"}), now).await;
}

/// The value that Grafana chooses when a dashboard is opened: the first of a list, or all where that is on offer.
pub async fn choose(connection: &mut PgConnection, dashboard: &Dashboard, range: TimeRange) -> Variables {
    let mut variables: Variables = vec![];
    for variable in dashboard.variables() {
        let name = text(&variable["name"]).to_owned();
        let value = if variable["type"] == "custom" {
            let current = &variable["current"];
            match list(&current["value"]) {
                [] => Value::One { text: text(&current["text"]).to_owned(), value: text(&current["value"]).to_owned() },
                chosen => {
                    Value::Many(chosen.iter().map(|value| (text(value).to_owned(), text(value).to_owned())).collect())
                }
            }
        } else {
            let sql = with_macros(&with_variables(text(&variable["query"]), &variables), range, "5m").unwrap();
            let frame = Frame::read(connection, &sql)
                .await
                .unwrap_or_else(|error| panic!("{}, variable {name}: {error}\n{sql}", dashboard.file));
            let options =
                options(&frame).unwrap_or_else(|error| panic!("{}, variable {name}: {error}", dashboard.file));
            Value::chosen(variable, options)
        };
        variables.push((name, value));
    }
    variables
}

/// What a variable offers: one column, or `__text` and `__value`.
fn options(frame: &Frame) -> Result<Vec<(String, String)>, String> {
    let names: Vec<&str> = frame.columns.iter().map(|(name, _)| name.as_str()).collect();
    let (text, value) = match names.as_slice() {
        [_] => (0, 0),
        ["__text", "__value"] => (0, 1),
        other => return Err(format!("columns {other:?}")),
    };
    let cell = |row: &Vec<Option<String>>, index: usize| row[index].clone().unwrap_or_default();
    Ok(frame.rows.iter().map(|row| (cell(row, text), cell(row, value))).collect())
}

/// The queries of a panel that go to Postgres.
pub fn targets(panel: &Json) -> impl Iterator<Item = &Json> {
    list(&panel["targets"]).iter().filter(|target| target["rawSql"].is_string())
}

pub async fn run(connection: &mut PgConnection, target: &Json, variables: &Variables, range: TimeRange) -> Frame {
    let sql = text(&target["rawSql"]);
    assert!(sql.lines().count() <= 3, "longer SQL belongs into a migration:\n{sql}");
    let sql =
        with_macros(&with_variables(sql, variables), range, "5m").unwrap_or_else(|error| panic!("{error}\n{sql}"));
    Frame::read(connection, &sql).await.unwrap_or_else(|error| panic!("{error}\n{sql}"))
}

/// The names that the panel's fields have.
fn field_names(panel: &Json, target: &Json, frame: &Frame) -> Vec<String> {
    match text(&target["format"]) {
        "time_series" => frame
            .series_names()
            .unwrap_or_else(|error| panic!("{}: {error}\n{frame:?}", text(&panel["title"])))
            .into_iter()
            .collect(),
        "table" => frame.columns.iter().map(|(name, _)| name.clone()).collect(),
        other => panic!("Grafana knows no format {other}"),
    }
}

/// Every name that an override speaks of is there, and bands have their lower edge in the same query.
fn check_overrides(panel: &Json, names: &[Vec<String>]) {
    let title = text(&panel["title"]);
    let all: Vec<&String> = names.iter().flatten().collect();
    for rule in list(&panel["fieldConfig"]["overrides"]) {
        let wanted = text(&rule["matcher"]["options"]);
        let found: Vec<&&String> = match text(&rule["matcher"]["id"]) {
            "byName" => all.iter().filter(|name| name.as_str() == wanted).collect(),
            "byRegexp" => {
                let start = wanted.trim_matches('/').strip_prefix('^').expect("only beginnings are matched");
                all.iter().filter(|name| name.starts_with(start)).collect()
            }
            other => panic!("{title}: matcher {other}"),
        };
        assert!(!found.is_empty(), "{title}: no field is called {wanted}, there are {all:?}");
        for property in list(&rule["properties"]) {
            if property["id"] == "custom.fillBelowTo" {
                let lower = text(&property["value"]).to_owned();
                let together =
                    names.iter().any(|names| names.contains(&lower) && names.iter().any(|name| name == wanted));
                assert!(together, "{title}: {wanted} and {lower} are of different queries");
            }
        }
    }
}

/// What some kinds of panel need of their columns.
fn check_kind(panel: &Json, frame: &Frame) {
    let title = text(&panel["title"]);
    let n_numbers = frame.columns.iter().filter(|(_, kind)| *kind == Kind::Number).count();
    match text(&panel["type"]) {
        "barchart" => {
            let x = text(&panel["options"]["xField"]);
            let position = frame.position(x).unwrap_or_else(|| panic!("{title}: no column {x}"));
            assert_eq!(frame.columns[position].1, Kind::Text, "{title}: {x} names the bars");
            assert!(n_numbers >= 1, "{title}");
        }
        "trend" => {
            let x = frame.numbers(text(&panel["options"]["xField"]));
            assert!(x.windows(2).all(|pair| pair[0] < pair[1]), "{title}: {x:?}");
        }
        "histogram" | "stat" => assert!(n_numbers >= 1, "{title}: {:?}", frame.columns),
        _ => {}
    }
}

#[sqlx::test(migrator = "api::MIGRATOR")]
async fn every_panel_shows_what_a_user_has_made(pool: PgPool) {
    fill(&pool).await;
    let mut reader = Reader::connect(&pool).await;
    for dashboard in dashboards() {
        let variables = choose(&mut reader.connection, &dashboard, everything()).await;
        for (name, value) in &variables {
            let is_empty = matches!(value, Value::Many(chosen) if chosen.is_empty()) || *value == Value::one("");
            assert!(!is_empty, "{}: nothing to choose for {name}", dashboard.file);
        }
        for panel in dashboard.panels() {
            let title = with_variables(text(&panel["title"]), &variables);
            assert!(!title.contains('$'), "{}: {title}", dashboard.file);
            let mut names = vec![];
            for target in targets(panel) {
                let frame = run(&mut reader.connection, target, &variables, everything()).await;
                // A list of incidents may be empty, and then says so.
                let may_be_empty = panel["fieldConfig"]["defaults"]["noValue"].is_string();
                assert!(may_be_empty || !frame.rows.is_empty(), "{}: {title} is empty", dashboard.file);
                names.push(field_names(panel, target, &frame));
                check_kind(panel, &frame);
            }
            if !names.is_empty() {
                check_overrides(panel, &names);
            }
        }
        for annotation in dashboard.annotations() {
            let frame = run(&mut reader.connection, &annotation["target"], &variables, everything()).await;
            let kinds: Vec<(&str, Kind)> = frame.columns.iter().map(|(name, kind)| (name.as_str(), *kind)).collect();
            assert_eq!(kinds, [("time", Kind::Time), ("text", Kind::Text)], "{}", dashboard.file);
            assert_eq!(frame.rows.len(), 1, "{}", dashboard.file);
        }
    }
    reader.remove(&pool).await;
    check_all(&pool, &[range(1900, 1901), range(2150, 2151)]).await;
}

#[sqlx::test(migrator = "api::MIGRATOR")]
async fn an_empty_database_is_no_error(pool: PgPool) {
    check_all(&pool, &[everything()]).await;
}

/// Runs everything, and asks of the rows only that they have the right form.
async fn check_all(pool: &PgPool, ranges: &[TimeRange]) {
    let mut reader = Reader::connect(pool).await;
    for dashboard in dashboards() {
        for &range in ranges {
            let variables = choose(&mut reader.connection, &dashboard, range).await;
            for panel in dashboard.panels() {
                for target in targets(panel) {
                    let frame = run(&mut reader.connection, target, &variables, range).await;
                    field_names(panel, target, &frame);
                    check_kind(panel, &frame);
                }
            }
            for annotation in dashboard.annotations() {
                run(&mut reader.connection, &annotation["target"], &variables, range).await;
            }
        }
    }
    reader.remove(pool).await;
}

/// Three trajectories of two series, one nowcast step before two steps of horizon.
fn trajectories() -> Trajectories {
    #[rustfmt::skip]
    let values = vec![
        40.0, 5.0,   10.0, 1.0,   20.0, 3.0,
        41.0, 5.5,   20.0, 2.0,   20.0, 2.0,
        42.0, 6.0,   33.0, 3.5,   26.0, 1.0,
    ];
    Trajectories::new(3, 0, 3, 2, values).unwrap()
}

/// A column of numbers that a function of the dashboards gives.
async fn column(connection: &mut PgConnection, name: &str, call: String) -> Vec<f64> {
    Frame::read(connection, &format!("select {name} from {call}")).await.unwrap().numbers(name)
}

#[sqlx::test(migrator = "api::MIGRATOR")]
async fn what_dashboards_compute_is_what_the_service_computes(pool: PgPool) {
    let service = Service::start(&pool).await;
    let loaded = load_panel(&pool, "city", 48).await;
    let model = register(&pool, &loaded, "none", &"a".repeat(64)).await;
    let id = store_forecast(&pool, &loaded, &model, &trajectories()).await;
    let [heat, wind] = [loaded.series_ids[0], loaded.series_ids[1]];
    let mut reader = Reader::connect(&pool).await;
    let connection = &mut reader.connection;
    let close = |ours: Vec<f64>, theirs: Vec<f64>| {
        assert_eq!(ours.len(), theirs.len());
        ours.iter()
            .zip(&theirs)
            .for_each(|(ours, theirs)| assert!((ours - theirs).abs() < 1e-9, "{ours} and {theirs}"));
    };
    let both = format!("'1', '{id}', array['{heat}', '{wind}']");
    let quantile = |of: &Json, level: &str| of["quantiles"][level].as_f64().unwrap();

    // Levels 0.1, 0.5 and 0.9 are stored: 0.25 lies between them, 0.05 beyond.
    let fan = format!("dashboard_fan('1', '{id}', '{heat}', array['50', '80', '90'])");
    let stored = service.forecast(&id).await.expect(200);
    let stored: Vec<f64> = list(&stored["series"][0]["quantiles"]["0.1"]).iter().map(|v| v.as_f64().unwrap()).collect();
    close(column(connection, "lower_80", fan.clone()).await, stored.clone());
    let medians = column(connection, "median", fan.clone()).await;
    let between = stored.iter().zip(&medians).map(|(low, median)| low + (median - low) * 0.15 / 0.4).collect();
    close(column(connection, "lower_50", fan.clone()).await, between);
    assert!(column(connection, "lower_90", fan).await.iter().all(|value| value.is_nan()));

    let paths = column(connection, "value", format!("dashboard_path('1', '{id}', '{heat}', 2)")).await;
    close(paths, vec![40.0, 41.0, 10.0, 20.0, 20.0, 20.0]);

    let per_step = service.aggregate(&id, "fn=sum&over=series&quantiles=0.1,0.5,0.9").await.expect(200);
    let total_fan = format!("dashboard_total_fan({both}, 'sum', array['80'])");
    for (name, level) in [("lower_80", "0.1"), ("median", "0.5"), ("upper_80", "0.9")] {
        let theirs = list(&per_step["distributions"]).iter().map(|step| quantile(step, level)).collect();
        close(column(connection, name, total_fan.clone()).await, theirs);
    }

    let total = service.aggregate(&id, "fn=sum&over=horizon,series&quantiles=0.05,0.5,0.95").await.expect(200);
    let interval = format!("dashboard_total_interval({both}, 'sum')");
    for (name, level) in [("joint_lower", "0.05"), ("joint_median", "0.5"), ("joint_upper", "0.95")] {
        close(column(connection, name, interval.clone()).await, vec![quantile(&total["distributions"][0], level)]);
    }

    // The same of one hour, the second of the two.
    let hour = "start=2025-03-03T01:00:00Z&quantiles=0.05,0.5,0.95&fn=sum&over=horizon,series";
    let total = service.aggregate(&id, hour).await.expect(200);
    let of_hour = format!("{both}, 'sum', '2025-03-03 00:30Z', '2025-03-03 01:00Z'");
    for (name, level) in [("joint_lower", "0.05"), ("joint_median", "0.5"), ("joint_upper", "0.95")] {
        let interval = format!("dashboard_total_interval({of_hour})");
        close(column(connection, name, interval).await, vec![quantile(&total["distributions"][0], level)]);
    }
    close(column(connection, "total", format!("dashboard_total({of_hour})")).await, vec![23.0, 22.0, 27.0]);

    let peak = service.aggregate(&id, "fn=max&over=horizon&series=heat&quantiles=0.05,0.5,0.95").await.expect(200);
    let peaks = format!("dashboard_peak('1', '{id}', array['{heat}'], 'sum')");
    for (name, level) in [("lower_90", "0.05"), ("median", "0.5"), ("upper_90", "0.95")] {
        close(column(connection, name, peaks.clone()).await, vec![quantile(&peak["distributions"][0], level)]);
    }

    // Of three trajectories, heat is above 20 in the last one at step 1, and in the same one at step 2.
    let only_heat = format!("'1', '{id}', array['{heat}'], 'sum', '20'");
    close(column(connection, "probability", format!("dashboard_exceedance({only_heat})")).await, vec![1.0 / 3.0]);
    // Above 19: two of three at step 1, all by step 2.
    let passage = format!("dashboard_passage('1', '{id}', array['{heat}'], 'sum', '19')");
    close(column(connection, "at_step", passage.clone()).await, vec![2.0 / 3.0, 1.0]);
    close(column(connection, "by_then", passage).await, vec![2.0 / 3.0, 1.0]);
    // The mean of both is a mean over series, then over steps.
    let totals = column(connection, "total", format!("dashboard_total({both}, 'mean')")).await;
    close(totals, vec![(5.5 + 11.5) / 2.0, (11.0 + 11.0) / 2.0, (18.25 + 13.5) / 2.0]);
    // A series that is not forecast adds nothing, whatever its place.
    for chosen in [format!("'0', '{heat}'"), format!("'{heat}', '0'")] {
        let totals = column(connection, "total", format!("dashboard_total('1', '{id}', array[{chosen}], 'sum')")).await;
        close(totals, vec![30.0, 40.0, 59.0]);
    }
    let nothing = format!("dashboard_total('1', '{id}', array['0'], 'sum')");
    assert!(column(connection, "total", nothing).await.is_empty());
    reader.remove(&pool).await;
}

/// The texts of a variable's value when a dashboard is opened.
async fn chosen(connection: &mut PgConnection, file: &str, variable: &str) -> Vec<String> {
    let dashboard = dashboards().into_iter().find(|dashboard| dashboard.file == file).unwrap();
    let variables = choose(connection, &dashboard, everything()).await;
    let (_, value) = variables.into_iter().find(|(name, _)| name == variable).unwrap();
    match value {
        Value::One { text, .. } => vec![text],
        Value::Many(options) => options.into_iter().map(|(text, _)| text).collect(),
    }
}

#[sqlx::test(migrator = "api::MIGRATOR")]
async fn dashboards_begin_with_what_is_forecast(pool: PgPool) {
    load_panel(&pool, "city", 48).await;
    sqlx::query("update series set role = 'past' where name = 'heat'").execute(&pool).await.unwrap();
    let mut reader = Reader::connect(&pool).await;
    for (file, variable, expected) in
        [("totals.json", "unit", "m/s"), ("totals.json", "series", "wind"), ("explorer.json", "series", "wind")]
    {
        assert_eq!(chosen(&mut reader.connection, file, variable).await, [expected], "{file}, {variable}");
    }
    reader.remove(&pool).await;
}

#[sqlx::test(migrator = "api::MIGRATOR")]
async fn a_scenario_is_no_forecast_of_its_issue_time(pool: PgPool) {
    fill(&pool).await;
    let newest = async || -> Vec<uuid::Uuid> {
        let of_panel = "select forecast_id from dashboard_panel where panel = 'plant'";
        let mut found: Vec<uuid::Uuid> = sqlx::query_scalar(of_panel).fetch_all(&pool).await.unwrap();
        let listed = "select n.forecast_id
             from dashboard_panel p
             cross join lateral dashboard_newest_forecast(p.tenant_id::text, p.panel_id::text, 1) n
             where panel = 'plant'";
        found.extend(sqlx::query_scalar::<_, uuid::Uuid>(listed).fetch_all(&pool).await.unwrap());
        found
    };
    let before = newest().await;
    assert_eq!(before.len(), 2);
    assert_eq!(before[0], before[1]);
    let suppose = "update forecast set scenario = '{}' where forecast_id = $1";
    sqlx::query(suppose).bind(before[0]).execute(&pool).await.unwrap();
    assert!(!newest().await.contains(&before[0]));
    let label: String = sqlx::query_scalar("select label from dashboard_forecast where forecast_id = $1")
        .bind(before[0])
        .fetch_one(&pool)
        .await
        .unwrap();
    assert!(label.ends_with(", scenario"), "{label}");
}
