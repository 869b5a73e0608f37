//! A year of forecasts under a policy: what is kept is what the policy says, and all of it can be read.

use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use api::artefacts::Artefacts;
use api::db::forecast::{NewForecast, NewValues};
use api::db::load::{Load, Loaded, Value as LoadedValue, load};
use api::db::model::{Model, NewModel};
use api::db::panel::NewPanel;
use api::db::series::NewSeries;
use api::db::words::Quality;
use api::db::{self, DEFAULT_TENANT as TENANT};
use api::retention::{Retained, Retention, RetentionPolicy};
use api::{Error, scoring};
use chrono::{DateTime, Datelike, NaiveDate, TimeDelta, Utc};
use forecast::{QuantileLevel, Trajectories};
use serde_json::{Value, json};
use sqlx::PgPool;
use sqlx::postgres::PgPoolOptions;
use uuid::Uuid;

use crate::support::{Service, check_score_sums, database_url, do_job, program, register};

const N_STEPS: usize = 6;
const PANELS: [&str; 2] = ["city", "town"];

fn day(day: i64) -> DateTime<Utc> {
    // Late in a year, so that the second year begins soon.
    let start = NaiveDate::from_ymd_opt(2024, 11, 20).unwrap();
    start.and_hms_opt(0, 0, 0).unwrap().and_utc() + TimeDelta::days(day)
}

/// Loads a day of a panel of two hourly series.
async fn load_day(pool: &PgPool, name: &str, number: i64) -> Loaded {
    let series = ["heat", "wind"].map(|name| NewSeries { name: name.to_owned(), ..NewSeries::default() });
    let hours = (0..24).map(|hour| day(number) + TimeDelta::hours(hour));
    let value = |series: usize, time: DateTime<Utc>| LoadedValue {
        series,
        valid_time: time,
        interval_end: time + TimeDelta::hours(1),
        available_at: None,
        value: (time.timestamp() / 3600 % 7) as f64 + series as f64,
        sd: None,
    };
    let values: Vec<LoadedValue> = hours.flat_map(|time| [value(0, time), value(1, time)]).collect();
    let panel = NewPanel { name, frequency: "1h", time_zone: "UTC", publication_delay: None, holidays: None };
    load(pool, TENANT, &Load { panel, series: &series, values: &values, load_time: day(number + 1) }).await.unwrap()
}

/// Stores a forecast of a panel that was issued at the beginning of a day. No model is run.
async fn store(pool: &PgPool, loaded: &Loaded, model: &Model, number: i64) -> Uuid {
    let values: Vec<f32> = (0..2 * N_STEPS * 2).map(|value| value as f32).collect();
    let trajectories = Trajectories::new(2, 1, N_STEPS, 2, values).unwrap();
    let levels = [0.5];
    let forecast_id = Uuid::now_v7();
    let new = NewForecast {
        forecast_id,
        panel_version_id: model.panel_version_id,
        model_id: Some(model.model_id),
        issue_time: day(number),
        data_cutoff: day(number),
        first_step: 1,
        num_samples: 2,
        seed: 7,
        schedule: "autoregressive",
        passes: 8,
        quantile_levels: &levels,
        params: &json!({"warnings": []}),
        quality: Quality::Ok,
        scenario: None,
        idempotency: None,
    };
    let values = NewValues {
        series_ids: &loaded.series_ids,
        valid_times: &(0..N_STEPS).map(|step| day(number) + TimeDelta::hours(step as i64)).collect::<Vec<_>>(),
        means: &trajectories.mean(),
        quantiles: &trajectories.quantiles(&levels.map(|level| QuantileLevel::new(level).unwrap())),
        trajectories: trajectories.values(),
    };
    db::forecast::insert(pool, TENANT, &new, &values).await.unwrap();
    forecast_id
}

/// Days on which the forecasts of a panel that are kept for so many days were issued.
fn kept(n_days: i64, keep_days: i64, now: DateTime<Utc>) -> BTreeSet<DateTime<Utc>> {
    let cutoff = now - TimeDelta::days(keep_days);
    let month =
        NaiveDate::from_ymd_opt(cutoff.year(), cutoff.month(), 1).unwrap().and_time(Default::default()).and_utc();
    let last = TimeDelta::hours(N_STEPS as i64 - 1);
    (0..n_days).map(day).filter(|&issued| issued >= month || issued + last >= cutoff).collect()
}

/// Issue times of the forecasts of a panel that a table still has something of.
async fn stored(pool: &PgPool, panel: &str, query: &'static str) -> BTreeSet<DateTime<Utc>> {
    let times: Vec<DateTime<Utc>> = sqlx::query_scalar(query).bind(panel).fetch_all(pool).await.unwrap();
    times.into_iter().collect()
}

const TRAJECTORIES: &str = "select distinct t.issue_time from trajectory t join series using (tenant_id, series_id)
    join panel using (tenant_id, panel_id) where panel.name = $1";
const VALUES: &str = "select distinct v.issue_time from forecast_value v join series using (tenant_id, series_id)
    join panel using (tenant_id, panel_id) where panel.name = $1";
const SCORES: &str = "select distinct s.issue_time from score s join panel using (tenant_id, panel_id) where name = $1";
const FORECASTS: &str = "select f.issue_time from forecast f join panel_version using (tenant_id, panel_version_id)
    join panel using (tenant_id, panel_id) where name = $1";

/// Names of the partitions of a table but the default one.
async fn partitions(pool: &PgPool, table: &str) -> Vec<String> {
    let query = "select name from partitions($1::text::regclass)";
    sqlx::query_scalar(query).bind(table).fetch_all(pool).await.unwrap()
}

/// How many rows every table has.
async fn census(pool: &PgPool) -> Vec<i64> {
    let mut counts = vec![];
    for query in [
        "select count(*) from observation",
        "select count(*) from forecast",
        "select count(*) from forecast_value",
        "select count(*) from trajectory",
        "select count(*) from score",
        "select count(*) from forecast_score",
        "select count(*) from model",
        "select count(*) from pg_inherits",
    ] {
        counts.push(sqlx::query_scalar(query).fetch_one(pool).await.unwrap());
    }
    counts
}

async fn retain(pool: &PgPool, data_dir: &Path, policy: &Value, now: DateTime<Utc>) -> Result<Retained, Error> {
    let policy: RetentionPolicy = serde_json::from_value(policy.clone()).unwrap();
    let retention = Retention {
        pool,
        data_dir,
        artefacts: &Artefacts::local(data_dir).unwrap(),
        policy: &policy,
        now,
        is_dry: false,
    };
    retention.run(|_| ControlFlow::Continue(())).await
}

/// Panels with a year of daily forecasts, all of them scored.
async fn a_year(pool: &PgPool, n_days: i64) {
    for name in PANELS {
        for number in 0..n_days {
            load_day(pool, name, number).await;
        }
        let loaded = load_day(pool, name, n_days).await;
        let model = register(pool, &loaded, name, &"a".repeat(64)).await;
        for number in 0..n_days {
            store(pool, &loaded, &model, number).await;
        }
        scoring::score(pool, &loaded.panel, None..None, day(n_days + 1), |_| ControlFlow::Continue(())).await.unwrap();
    }
}

/// Checks that what is stored is what the policy of [`policy`] keeps at an instant.
async fn check(pool: &PgPool, n_days: i64, now: DateTime<Utc>) {
    for (panel, trajectory_days) in [("city", 30), ("town", 60)] {
        assert_eq!(stored(pool, panel, TRAJECTORIES).await, kept(n_days, trajectory_days, now), "{panel}");
        assert_eq!(stored(pool, panel, VALUES).await, kept(n_days, 90, now), "{panel}");
        assert_eq!(stored(pool, panel, SCORES).await, kept(n_days, 180, now), "{panel}");
        assert_eq!(stored(pool, panel, FORECASTS).await, kept(n_days, 180, now), "{panel}");
    }
    let n_values = check_score_sums(pool).await;
    assert_eq!(n_values, sqlx::query_scalar::<_, i64>("select count(*) from score").fetch_one(pool).await.unwrap());
}

fn policy(export: bool) -> Value {
    json!({
        "keep": {"trajectory_days": 30, "forecast_days": 90, "score_days": 180, "observation_days": 365, "job_days": 30},
        "panels": {"town": {"trajectory_days": 60}}, "export": export,
    })
}

#[sqlx::test(migrator = "api::MIGRATOR")]
async fn after_a_year_with_weekly_retention_there_is_what_the_policy_keeps(pool: PgPool) {
    const N_DAYS: i64 = 413;
    let service = Service::start(&pool).await;
    let mut panels = vec![];
    for name in PANELS {
        let loaded = load_day(&pool, name, 0).await;
        let model = register(&pool, &loaded, name, &"a".repeat(64)).await;
        panels.push((loaded, model));
    }
    let mut job_times = vec![];
    let mut dropped = BTreeSet::new();
    for number in 0..N_DAYS {
        for (loaded, model) in &panels {
            load_day(&pool, &loaded.panel.name, number).await;
            store(&pool, loaded, model, number).await;
        }
        if number % 7 == 6 {
            let now = day(number + 1);
            for (loaded, _) in &panels {
                let since = Some(now - TimeDelta::days(7));
                let tell = |_| ControlFlow::Continue(());
                scoring::score(&pool, &loaded.panel, since..None, now, tell).await.unwrap();
            }
            let job = do_job(&pool, service.data_dir(), "retain", policy(false), now).await;
            let result = job.result.expect("it succeeds");
            dropped
                .extend(result["partitions"].as_array().unwrap().iter().map(|name| name.as_str().unwrap().to_owned()));
            job_times.push(now);
        }
    }
    let now = *job_times.last().unwrap();
    assert_eq!(now, day(N_DAYS));
    check(&pool, N_DAYS, now).await;
    // 2026-01-07: months wholly before 60, 90 and 180 days, and the year before 365 days, are gone as partitions.
    let first = async |table| partitions(&pool, table).await.into_iter().next().unwrap();
    assert_eq!(first("trajectory").await, "trajectory_y2025m11");
    assert_eq!(first("forecast_value").await, "forecast_value_y2025m10");
    assert_eq!(first("score").await, "score_y2025m07");
    assert_eq!(first("observation").await, "observation_y2025");
    for name in ["trajectory_y2024m11", "forecast_value_y2025m09", "score_y2024m12", "observation_y2024"] {
        assert!(dropped.contains(name), "{name} was dropped, not emptied");
    }
    // The job that is at it has ended after it looked.
    let jobs: Vec<DateTime<Utc>> =
        sqlx::query_scalar("select finished_at from job order by 1").fetch_all(&pool).await.unwrap();
    let young: Vec<_> = job_times.into_iter().filter(|&time| time >= now - TimeDelta::days(30)).collect();
    assert_eq!(jobs, young);

    // All that is kept can be read, and what is gone is told of as that.
    let list = service.forecasts("panel=city&limit=1000").await.expect(200);
    let ids: Vec<(String, DateTime<Utc>)> = list["forecasts"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| {
            let issue_time = one["issue_time"].as_str().unwrap().parse().unwrap();
            (one["forecast_id"].as_str().unwrap().to_owned(), issue_time)
        })
        .collect();
    assert_eq!(ids.len(), kept(N_DAYS, 180, now).len());
    let (with_paths, with_values) = (kept(N_DAYS, 30, now), kept(N_DAYS, 90, now));
    for (id, issue_time) in ids.iter().step_by(9).chain(ids.last()) {
        let n_series = service.forecast(id).await.expect(200)["series"].as_array().unwrap().len();
        assert_eq!(n_series, if with_values.contains(issue_time) { 2 } else { 0 }, "{issue_time}");
        for answer in [
            service.trajectories(id, "").await,
            service.quantiles(id, "quantiles=0.5").await,
            service.aggregate(id, "fn=sum&over=horizon").await,
            service.get(&format!("/v1/forecasts/{id}/events?fn=max&at_least=1")).await,
        ] {
            if with_paths.contains(issue_time) {
                answer.expect(200);
            } else {
                answer.problem(404, "no-trajectories");
            }
        }
    }
    let scores = service.get("/v1/scores?panel=city&by=day&limit=1000").await.expect(200);
    assert_eq!(scores["scores"].as_array().unwrap().len(), kept(N_DAYS, 180, now).len());
    let first = service.observations("city", "limit=1").await.expect(200);
    assert_eq!(first["observations"][0]["valid_time"], "2025-01-01T00:00:00Z");
    for path in ["/panels/city", "/", "/metrics", "/v1/models"] {
        assert_eq!(service.get(path).await.status, 200, "{path}");
    }

    // Nothing is scored again, and a second run finds nothing to do.
    let before = census(&pool).await;
    let (loaded, _) = &panels[0];
    let scored = scoring::score(&pool, &loaded.panel, None..None, now, |_| ControlFlow::Continue(())).await.unwrap();
    assert_eq!(scored, scoring::Scored::default());
    let again = retain(&pool, service.data_dir(), &policy(false), now).await.unwrap();
    assert_eq!(again, Retained::default());
    assert_eq!(census(&pool).await, before);
}

/// Rows of all Parquet files of a table, without those that are in several.
fn exported(data_dir: &Path, table: &str) -> BTreeSet<String> {
    let mut rows = BTreeSet::new();
    let Ok(files) = std::fs::read_dir(data_dir.join("exports").join(table)) else { return rows };
    for path in
        files.map(|file| file.unwrap().path()).filter(|path| path.extension().is_some_and(|end| end == "parquet"))
    {
        rows.extend(ingest::export::read_lines(&path).unwrap());
    }
    rows
}

#[sqlx::test(migrator = "api::MIGRATOR")]
async fn a_run_that_is_killed_is_made_good_by_the_next_and_what_goes_is_in_files(pool: PgPool) {
    const N_DAYS: i64 = 230;
    a_year(&pool, N_DAYS).await;
    let data = tempfile::tempdir().unwrap();
    let now = day(N_DAYS);
    let counts = census(&pool).await;

    // Told what would go, nothing goes.
    let rules: RetentionPolicy = serde_json::from_value(policy(true)).unwrap();
    let artefacts = Artefacts::local(data.path()).unwrap();
    let dry =
        Retention { pool: &pool, data_dir: data.path(), artefacts: &artefacts, policy: &rules, now, is_dry: true };
    let would = dry.run(|_| ControlFlow::Continue(())).await.unwrap();
    assert_eq!(census(&pool).await, counts);
    assert!(would.n_trajectories > 0 && would.partitions.contains(&"trajectory_y2024m12".to_owned()), "{would:?}");
    assert!(!data.path().join("exports").exists());

    // Where the file cannot be written, nothing goes.
    let blocked = data.path().join("blocked");
    std::fs::write(&blocked, "a file in place of a folder").unwrap();
    retain(&pool, &blocked, &policy(true), now).await.unwrap_err();
    assert_eq!(census(&pool).await, counts);

    // Stopped after each of its steps in turn, and killed in the middle of one.
    for n_steps in 0..3 {
        let mut left = n_steps;
        let stopped = Retention { is_dry: false, ..dry };
        let tell = move |_: &str| {
            left -= 1;
            if left < 0 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        };
        stopped.run(tell).await.unwrap();
    }
    let file = data.path().join("policy.toml");
    std::fs::write(&file, toml_text(&policy(true))).unwrap();
    let mut command = program(&database_url(&pool), data.path(), &["retain", "--as-of", &now.to_rfc3339(), "--policy"]);
    let mut child = command.arg(&file).stdout(Stdio::null()).spawn().unwrap();
    let folder = data.path().join("exports/forecast_value");
    let mut pause = tokio::time::interval(Duration::from_millis(1));
    while !folder.exists() && child.try_wait().unwrap().is_none() {
        pause.tick().await;
    }
    child.kill().unwrap();
    child.wait().unwrap();
    assert_ne!(census(&pool).await, counts, "something has gone");

    let last = retain(&pool, data.path(), &policy(true), now).await.unwrap();
    assert!(last.n_scores > 0, "{last:?}");
    check(&pool, N_DAYS, now).await;
    assert_eq!(retain(&pool, data.path(), &policy(true), now).await.unwrap(), Retained::default());

    // Every value that has gone is in a file.
    let gone = |kept: BTreeSet<DateTime<Utc>>| N_DAYS as usize - kept.len();
    let n_city = gone(kept(N_DAYS, 30, now));
    let n_town = gone(kept(N_DAYS, 60, now));
    assert_eq!(exported(data.path(), "trajectory").len(), (n_city + n_town) * 2 * N_STEPS * 2);
    assert_eq!(exported(data.path(), "forecast_value").len(), 2 * gone(kept(N_DAYS, 90, now)) * N_STEPS * 2);
    assert_eq!(exported(data.path(), "score").len(), 2 * gone(kept(N_DAYS, 180, now)) * N_STEPS * 2);
    let line = exported(data.path(), "score").into_iter().next().unwrap();
    assert!(line.contains("city"), "{line}");
}

/// A policy as it stands in a file.
fn toml_text(policy: &Value) -> String {
    let table = |value: &Value| {
        let pairs: Vec<String> =
            value.as_object().unwrap().iter().map(|(key, value)| format!("{key} = {value}")).collect();
        format!("{{ {} }}", pairs.join(", "))
    };
    let (keep, town) = (table(&policy["keep"]), table(&policy["panels"]["town"]));
    format!("keep = {keep}\npanels.town = {town}\nexport = {}\n", policy["export"])
}

#[sqlx::test(migrator = "api::MIGRATOR")]
async fn models_go_with_their_files_unless_something_kept_needs_them(pool: PgPool) {
    let data = tempfile::tempdir().unwrap();
    let loaded = load_day(&pool, "city", 0).await;
    let files = data.path().join("models");
    let insert = async |folder: &'static str| {
        std::fs::create_dir_all(files.join(folder)).unwrap();
        let new = NewModel {
            panel_version_id: loaded.panel_version.panel_version_id,
            config: &json!({"horizon": 6}),
            metrics: &json!({}),
            digest: &"a".repeat(64),
            snapshot_digest: &"b".repeat(64),
            artefact_path: folder,
            artefact_bytes: None,
            data_cutoff: day(0),
        };
        db::model::insert(&pool, TENANT, &new).await.unwrap()
    };
    // First and second have served; third is in use; fourth serves, and a roll-back goes to third; fifth is a candidate.
    let mut models = vec![];
    for folder in ["first", "second", "third", "fourth", "fifth"] {
        let model = insert(folder).await;
        if folder != "fifth" {
            db::model::promote(&pool, TENANT, model.model_id, "next").await.unwrap();
        }
        models.push(model);
    }
    store(&pool, &loaded, &models[1], 100).await;
    sqlx::query("update model set created_at = $1").bind(day(0)).execute(&pool).await.unwrap();
    let rules = json!({"keep": {"model_days": 30, "score_days": 90}});
    let versions = async || -> Vec<i32> {
        sqlx::query_scalar("select version from model order by 1").fetch_all(&pool).await.unwrap()
    };
    let first = retain(&pool, data.path(), &rules, day(110)).await.unwrap();
    assert_eq!((first.n_models, versions().await), (1, vec![2, 3, 4, 5]));
    assert!(!files.join("first").exists() && files.join("second").exists());
    // The forecast of the second goes, and so does the second.
    let second = retain(&pool, data.path(), &rules, day(250)).await.unwrap();
    assert_eq!((second.n_scores, second.n_models, versions().await), (1, 1, vec![3, 4, 5]));
    assert!(!files.join("second").exists() && files.join("third").exists());
}

#[sqlx::test(migrator = "api::MIGRATOR")]
async fn a_model_that_others_use_is_left_and_the_others_go(pool: PgPool) {
    let data = tempfile::tempdir().unwrap();
    let loaded = load_day(&pool, "city", 0).await;
    // The fourth serves, and a roll-back goes to the third.
    for _ in 0..4 {
        register(&pool, &loaded, "city", &"a".repeat(64)).await;
    }
    sqlx::query("update model set created_at = $1").bind(day(0)).execute(&pool).await.unwrap();
    let mut other = pool.begin().await.unwrap();
    sqlx::query("select from model where version = 1 for key share").execute(&mut *other).await.unwrap();

    let options = (*pool.connect_options()).clone().options([("lock_timeout", "300ms")]);
    let impatient = PgPoolOptions::new().connect_with(options).await.unwrap();
    let rules = json!({"keep": {"model_days": 30}});
    let retained = retain(&impatient, data.path(), &rules, day(110)).await.unwrap();
    assert_eq!((retained.n_models, retained.busy), (1, vec!["version 1 of city".to_owned()]));
    other.rollback().await.unwrap();
    let retained = retain(&impatient, data.path(), &rules, day(110)).await.unwrap();
    assert_eq!((retained.n_models, retained.busy), (1, vec![]));
    // Their deletion looks at no score.
    let keys = "select count(*) from pg_constraint
                where confrelid = 'model'::regclass and conrelid = any (array['score', 'forecast_score', 'score_replaced']::regclass[])";
    assert_eq!(sqlx::query_scalar::<_, i64>(keys).fetch_one(&pool).await.unwrap(), 0);
}

#[sqlx::test(migrator = "api::MIGRATOR")]
async fn plans_that_reach_ahead_do_not_age_what_was_measured(pool: PgPool) {
    let folder = tempfile::tempdir().unwrap();
    load_day(&pool, "city", 0).await;
    load_day(&pool, "city", 800).await;
    // `heat` was measured on the first day, and `wind` is planned for long after it.
    sqlx::query("delete from observation o using series s where s.series_id = o.series_id and name = 'heat' and valid_time > $1")
        .bind(day(1))
        .execute(&pool)
        .await
        .unwrap();
    sqlx::query("update series set role = 'known' where name = 'wind'").execute(&pool).await.unwrap();
    let policy =
        json!({"keep": {"trajectory_days": 30, "forecast_days": 30, "score_days": 30, "observation_days": 30}});
    retain(&pool, folder.path(), &policy, day(790)).await.unwrap();
    let kept = "select count(*) from observation join series using (tenant_id, series_id) where name = 'heat'";
    assert_eq!(sqlx::query_scalar::<_, i64>(kept).fetch_one(&pool).await.unwrap(), 24);
}

#[sqlx::test(migrator = "api::MIGRATOR")]
async fn what_is_wrong_with_a_policy_is_named(pool: PgPool) {
    let service = Service::start(&pool).await;
    let ask =
        async |arguments: Value| service.post("/v1/jobs", &json!({"kind": "retain", "arguments": arguments})).await;
    let wrong = ask(json!({"keep": {"trajectory_days": 9, "forecast_days": 8}})).await.problem(422, "invalid-body");
    assert_eq!(wrong.errors[0].pointer.as_deref(), Some("/arguments/keep/trajectory_days"));
    let wrong = ask(json!({"keep": {"score_days": "always"}})).await.problem(422, "invalid-body");
    assert!(wrong.errors[0].message.contains("a number of days, or \"forever\""), "{wrong:?}");
    ask(json!({"keep": {"score_days": "forever"}})).await.expect(202);
    let job = do_job(&pool, service.data_dir(), "retain", json!({"panels": {"nowhere": {}}}), day(0)).await;
    assert!(job.failure.unwrap().contains("there is no panel `nowhere`"));
}
