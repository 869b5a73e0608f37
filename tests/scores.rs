//! Stored forecasts are scored as the truth arrives, and drift is noticed.

use std::ops::{ControlFlow, Range};
use std::pin::pin;
use std::process::Command;

use api::db::drift_event::DriftEvent;
use api::db::load::{Load, Loaded, load};
use api::db::model::Model;
use api::db::panel::NewPanel;
use api::db::series::NewSeries;
use api::db::words::JobState;
use api::db::{self, DEFAULT_TENANT as TENANT};
use api::drift::{self, DriftPolicy};
use api::scoring::{self, Scored};
use chrono::{DateTime, TimeDelta, Utc};
use forecast::metrics::score_value;
use forecast::{QuantileLevel, Trajectories};
use serde_json::{Value, json};
use sqlx::PgPool;
use tokio::task::spawn_blocking;

use crate::support::{
    Service, check_score_sums, count, database_url, do_job, hour, load_panel, observation, plumecast, register,
    store_forecast,
};

/// 50 trajectories of `heat` and `wind` over three hours from hour 48 on, which rise from sample to sample.
fn rising() -> Trajectories {
    rising_of(2)
}

/// The same of the first series.
fn rising_of(n_series: usize) -> Trajectories {
    let value = |sample: usize, step: usize, series: usize| (sample + 10 * step + 100 * series) as f32;
    let place = |index: usize| (index / (3 * n_series), index / n_series % 3, index % n_series);
    let values = (0..50 * 3 * n_series).map(place).map(|(sample, step, series)| value(sample, step, series));
    Trajectories::new(50, 1, 3, n_series, values.collect()).unwrap()
}

/// What comes in an hour of a series.
fn truth(step: usize, series: usize) -> f64 {
    20.5 + 10.0 * (step as f64 - 48.0) + 110.0 * series as f64
}

/// Loads hours of both series, with `more` added to the first one.
async fn load_truth(pool: &PgPool, hours: Range<usize>, more: f64) {
    let series = ["heat", "wind"].map(|name| NewSeries { name: name.to_owned(), ..NewSeries::default() });
    let of_hour = |step: usize| [observation(0, step, truth(step, 0) + more), observation(1, step, truth(step, 1))];
    let values: Vec<_> = hours.clone().flat_map(of_hour).collect();
    let panel = NewPanel { name: "city", frequency: "1h", time_zone: "UTC", publication_delay: None, holidays: None };
    load(pool, TENANT, &Load { panel, series: &series, values: &values, load_time: hour(52) }).await.unwrap();
}

async fn score(pool: &PgPool, loaded: &Loaded, hours: Range<usize>) -> Scored {
    score_at(pool, loaded, hours, hour(53)).await
}

async fn score_at(pool: &PgPool, loaded: &Loaded, hours: Range<usize>, now: DateTime<Utc>) -> Scored {
    let times = Some(hour(hours.start))..Some(hour(hours.end));
    scoring::score(pool, &loaded.panel, times, now, |_| ControlFlow::Continue(())).await.unwrap()
}

async fn stored(pool: &PgPool) -> (Loaded, Model) {
    let loaded = load_panel(pool, "city", 48).await;
    let model = register(pool, &loaded, "none", &"a".repeat(64)).await;
    store_forecast(pool, &loaded, &model, &rising()).await;
    (loaded, model)
}

#[sqlx::test(migrator = "api::MIGRATOR")]
async fn a_value_is_scored_once_it_is_known_and_again_when_it_is_corrected(pool: PgPool) {
    let (loaded, _) = stored(&pool).await;
    assert_eq!(score(&pool, &loaded, 0..100).await, Scored::default(), "nothing is known yet");

    load_truth(&pool, 48..50, 0.0).await;
    assert_eq!(score(&pool, &loaded, 49..50).await.n_values, 2, "only the hour that was asked for");
    assert_eq!(score(&pool, &loaded, 0..100).await, Scored { n_values: 2, n_forecasts: 0 });
    assert_eq!(score(&pool, &loaded, 0..100).await, Scored::default(), "twice is as good as once");

    let row: (f64, f64, Vec<f64>, bool, f64, f64, Option<f64>) = sqlx::query_as(
        "select value, crps, pinball, inside_80, pit, absolute_error, naive_absolute_error
         from score join series using (tenant_id, series_id) where name = 'heat' and step = 2",
    )
    .fetch_one(&pool)
    .await
    .unwrap();
    let draws = rising().sorted(1, 0);
    let expected = score_value(&draws, truth(49, 0));
    assert_eq!((row.0, row.1, row.3, row.4, row.5), (truth(49, 0), expected.crps, true, 0.42, expected.absolute_error));
    let tenth = forecast::quantile_of_sorted(&draws, QuantileLevel::new(0.1).unwrap());
    assert!((row.2[0] - 0.1 * (truth(49, 0) - tenth)).abs() < 1e-9 && row.2.len() == 3, "{:?}", row.2);
    let a_day_before: f64 =
        sqlx::query_scalar("select value from observation_latest where series_id = $1 and valid_time = $2")
            .bind(loaded.series_ids[0])
            .bind(hour(25))
            .fetch_one(&pool)
            .await
            .unwrap();
    assert_eq!(row.6, Some((truth(49, 0) - a_day_before).abs()));

    load_truth(&pool, 50..51, 0.0).await;
    assert_eq!(score(&pool, &loaded, 50..51).await, Scored { n_values: 2, n_forecasts: 1 });
    let whole = async || -> (i32, f64, f64, f64) {
        let row = sqlx::query_as("select n_values, crps, coverage_80, energy_score from forecast_score");
        row.fetch_one(&pool).await.unwrap()
    };
    let first = whole().await;
    assert_eq!((first.0, first.2), (6, 1.0));
    assert!(first.3 > 0.0 && first.3.is_finite());

    // A correction comes to light: the values and the whole forecast are scored anew, the others are left.
    load_truth(&pool, 48..51, 40.0).await;
    assert_eq!(score(&pool, &loaded, 0..100).await, Scored { n_values: 3, n_forecasts: 1 });
    let corrected = whole().await;
    assert!(corrected.1 > first.1 && corrected.3 > first.3 && corrected.2 == 0.5, "{corrected:?}");
    let rows: i64 = sqlx::query_scalar("select count(*) from score").fetch_one(&pool).await.unwrap();
    assert_eq!(rows, 6);
}

#[sqlx::test(migrator = "api::MIGRATOR")]
async fn sums_are_what_a_full_count_says_whatever_is_scored_corrected_or_deleted(pool: PgPool) {
    let (loaded, model) = stored(&pool).await;
    for _ in 0..2 {
        store_forecast(&pool, &loaded, &model, &rising()).await;
    }
    load_truth(&pool, 48..50, 0.3).await;
    score(&pool, &loaded, 0..100).await;
    assert_eq!(check_score_sums(&pool).await, 3 * 4);

    load_truth(&pool, 48..51, 0.7).await;
    let at_once = tokio::join!(score(&pool, &loaded, 0..100), score(&pool, &loaded, 0..100));
    assert!(at_once.0.n_values + at_once.1.n_values >= 3 * 4, "{at_once:?}");
    assert_eq!(check_score_sums(&pool).await, 3 * 6);

    // What the dashboards say is what scores say, also of a part of a day.
    let of_dashboards: (i64, f64, f64, f64) = sqlx::query_as(
        "select p.n_values, p.crps, p.coverage_50, l.second_quarter
         from dashboard_accuracy_by_period('1', $1::text, $2::text[], $3, $4) p
         cross join dashboard_lean('1', $1::text, $2::text[], $3, $4) l
         where l.hour = 0",
    )
    .bind(loaded.panel.panel_id)
    .bind(loaded.series_ids.clone())
    .bind(hour(48))
    .bind(hour(49))
    .fetch_one(&pool)
    .await
    .unwrap();
    let of_scores: (i64, f64, f64, f64) = sqlx::query_as(
        "select count(*), sum(crps) / sum(value), avg(inside_50::integer)::float8,
             avg(pit) filter (where valid_time = $1) - 0.5
         from score where valid_time between $1 and $2",
    )
    .bind(hour(48))
    .bind(hour(49))
    .fetch_one(&pool)
    .await
    .unwrap();
    assert_eq!((of_dashboards.0, of_dashboards.2), (of_scores.0, of_scores.2));
    // A third of the way lies in the second quarter.
    for (summed, counted) in [(of_dashboards.1, of_scores.1), (of_dashboards.3, of_scores.3)] {
        assert!((summed - counted).abs() < 1e-12, "{of_dashboards:?}, not {of_scores:?}");
    }

    for (statement, n_values) in [
        ("delete from forecast where forecast_id = (select min(forecast_id::text)::uuid from forecast)", 2 * 6),
        ("delete from score where step = 1", 2 * 4),
        ("update score set pit = 0.95, crps = 1e-9 where step = 2", 2 * 4),
        ("delete from score", 0),
    ] {
        sqlx::query(statement).execute(&pool).await.unwrap();
        assert_eq!(check_score_sums(&pool).await, n_values, "{statement}");
    }
    let rows: i64 =
        sqlx::query_scalar("select (select count(*) from score_sum) + (select count(*) from score_step_sum)")
            .fetch_one(&pool)
            .await
            .unwrap();
    assert_eq!(rows, 0);
}

/// Scores of one step and what is said of them: number, CRPS, skill, coverage of two intervals.
type OfStep = (i32, i64, f64, Option<f64>, f64, f64);

#[sqlx::test(migrator = "api::MIGRATOR")]
async fn what_is_said_of_leads_is_what_single_scores_say_for_any_range_of_time(pool: PgPool) {
    let (loaded, model) = stored(&pool).await;
    let read = async |statement: &'static str, since: DateTime<Utc>, until: DateTime<Utc>| -> Vec<OfStep> {
        let query = sqlx::query_as(statement).bind(loaded.panel.panel_id).bind(&loaded.series_ids);
        query.bind(since).bind(until).fetch_all(&pool).await.unwrap()
    };
    for (frequency, n_rows) in [("1h", 2 * 3 * 4), ("1d", 2 * 3)] {
        sqlx::query("delete from score").execute(&pool).await.unwrap();
        sqlx::query("update panel set frequency = $1").bind(frequency).execute(&pool).await.unwrap();
        // Four days, the first and the last cut.
        sqlx::query(
            "insert into score (tenant_id, panel_id, series_id, step, valid_time, forecast_id, model_id, issue_time, value,
                 crps, pinball, absolute_error, naive_absolute_error, inside_50, inside_80, inside_90, pit, scored_at)
             select 1, panel_id, series_id, step, time, forecast_id, $1, time, 1 + mark, 0.1 * step + mark, '{}', mark,
                 case when step < 3 then 2 * mark end, mark < 0.5, mark < 0.9, true, mark, time
             from forecast
             cross join series
             cross join generate_series(1, 3) as step
             cross join generate_series($2::timestamptz, $3, interval '1 hour') as time
             cross join lateral (
                 select (hashtextextended(concat(series_id, step, time at time zone 'UTC'), 0) & 1023) / 1024.0
             ) as marked (mark)",
        )
        .bind(model.model_id)
        .bind(hour(40))
        .bind(hour(110))
        .execute(&pool)
        .await
        .unwrap();
        assert_eq!(check_score_sums(&pool).await, 2 * 3 * 71);
        let rows: i64 = sqlx::query_scalar("select count(*) from score_step_sum").fetch_one(&pool).await.unwrap();
        assert_eq!(rows, n_rows, "{frequency}");

        for (first, last) in [(40, 110), (48, 71), (48, 72), (49, 50), (50, 100), (47, 48), (72, 72), (0, 2_000)] {
            // All of the last hour, as of a day that ends.
            let (since, until) = (hour(first), hour(last + 1) - TimeDelta::microseconds(1));
            let said = read(
                "select step, n_values, crps, skill, coverage_50, coverage_80
                 from dashboard_accuracy_by_step('1', $1::text, $2::text[], $3, $4)",
                since,
                until,
            );
            let counted = read(
                "select step, count(*), sum(crps) / sum(value),
                     1 - sum(absolute_error) filter (where naive_absolute_error is not null) / sum(naive_absolute_error),
                     avg(inside_50::integer)::float8, avg(inside_80::integer)::float8
                 from score where panel_id = $1 and series_id = any ($2) and valid_time between $3 and $4
                 group by step order by step",
                since,
                until,
            );
            let (said, counted) = (said.await, counted.await);
            let near = |a: f64, b: f64| (a - b).abs() < 1e-12;
            let alike = |(a, b): (&OfStep, &OfStep)| {
                (a.0, a.1, a.3.is_some()) == (b.0, b.1, b.3.is_some())
                    && near(a.2, b.2)
                    && near(a.3.unwrap_or(0.0), b.3.unwrap_or(0.0))
                    && near(a.4, b.4)
                    && near(a.5, b.5)
            };
            assert_eq!((said.len(), counted.len()), (3, 3));
            assert!(said.iter().zip(&counted).all(alike), "{frequency}, {first}–{last}: {said:?}, not {counted:?}");
        }
    }
}

#[sqlx::test(migrator = "api::MIGRATOR")]
async fn scores_are_read_by_lead_series_model_and_day(pool: PgPool) {
    let service = Service::start(&pool).await;
    let (loaded, _) = stored(&pool).await;
    load_truth(&pool, 48..51, 0.0).await;
    score(&pool, &loaded, 0..100).await;
    let read = async |query: &str| service.get(&format!("/v1/scores?panel=city&{query}")).await.expect(200);

    let by_lead = read("").await;
    let steps: Vec<&Value> = by_lead["scores"].as_array().unwrap().iter().map(|group| &group["step"]).collect();
    assert_eq!(steps, [1, 2, 3]);
    let by_series = read("by=series").await;
    let heat = &by_series["scores"][0];
    assert_eq!((&heat["series"], &heat["n_values"], &heat["coverage_80"]), (&json!("heat"), &json!(3), &json!(1.0)));
    assert!((heat["pit"].as_f64().unwrap() - 0.42).abs() < 1e-12);
    assert!(heat["skill"].as_f64().unwrap() < 1.0 && heat["crps"].as_f64().unwrap() > 0.0);
    assert_eq!(read("by=day").await["scores"][0]["day"], "2025-03-03");
    let by_hour = read("by=hour").await;
    let places: Vec<_> =
        by_hour["scores"].as_array().unwrap().iter().map(|group| (&group["hour"], &group["quarter"])).collect();
    assert_eq!(places, [(&json!(0), &json!(2)), (&json!(1), &json!(3)), (&json!(2), &json!(4))]);
    assert_eq!(by_hour["scores"][0]["pit_counts"], json!([0, 0, 0, 0, 1, 0, 1, 0, 0, 0]));
    assert_eq!(read("by=model&start=2025-03-03T01:00:00Z").await["scores"], {
        let expected = read("by=model&start=2025-03-03T01:00:00Z&version=1").await;
        assert_eq!((&expected["scores"][0]["version"], &expected["scores"][0]["n_values"]), (&json!(1), &json!(4)));
        expected["scores"].clone()
    });
    let first = read("limit=2").await;
    let next = read(&format!("limit=2&cursor={}", first["next"].as_str().unwrap())).await;
    assert_eq!((first["scores"].as_array().unwrap().len(), &next["scores"][0]["step"]), (2, &json!(3)));
    service.get("/v1/scores").await.problem(400, "invalid-parameter");
    service.get("/v1/scores?panel=city&by=week").await.problem(400, "invalid-parameter");
    service.get("/v1/scores?panel=town").await.problem(404, "unknown-panel");
    let metrics = service.get("/metrics").await.text();
    assert!(metrics.contains(r#"plumecast_coverage_80{panel="city"} 1"#), "{metrics}");
}

/// Without what sums of scores and scores one by one differ in.
fn rounded(value: &Value) -> Value {
    match value {
        Value::Number(number) if number.is_f64() => json!((number.as_f64().unwrap() * 1e9).round()),
        Value::Array(items) => items.iter().map(rounded).collect(),
        Value::Object(fields) => fields.iter().map(|(key, value)| (key.clone(), rounded(value))).collect(),
        other => other.clone(),
    }
}

#[sqlx::test(migrator = "api::MIGRATOR")]
async fn scores_of_a_past_instant_are_those_that_stood_then(pool: PgPool) {
    let service = Service::start(&pool).await;
    let (loaded, _) = stored(&pool).await;
    let read = async |query: &str| rounded(&service.get(&format!("/v1/scores?panel=city&{query}")).await.expect(200));
    let queries = ["by=lead", "by=series", "by=model", "by=day", "by=hour"];
    let instant = |hour_of: usize| hour(hour_of).format("&as_of=%Y-%m-%dT%H:%M:%SZ").to_string();

    // Known and scored at hour 53; one value more at 55; the first series corrected at 57, and scored twice by that.
    load_truth(&pool, 48..50, 0.0).await;
    score_at(&pool, &loaded, 0..100, hour(53)).await;
    let mut first = vec![];
    for query in queries {
        let now = read(query).await;
        assert_eq!(read(&format!("{query}{}", instant(53))).await, now, "{query}");
        first.push(now);
    }
    load_truth(&pool, 50..51, 0.0).await;
    score_at(&pool, &loaded, 0..100, hour(55)).await;
    load_truth(&pool, 48..51, 40.0).await;
    score_at(&pool, &loaded, 0..100, hour(57)).await;
    let scored_again =
        tokio::join!(score_at(&pool, &loaded, 0..100, hour(58)), score_at(&pool, &loaded, 0..100, hour(59)));
    assert_eq!(scored_again, (Scored::default(), Scored::default()));

    for (query, first) in queries.iter().zip(&first) {
        assert_eq!(&read(&format!("{query}{}", instant(54))).await, first, "{query}");
        assert_eq!(read(&format!("{query}{}", instant(52))).await["scores"], json!([]), "{query}");
        // Read one by one these are what sums say.
        assert_eq!(read(&format!("{query}{}", instant(57))).await, read(query).await, "{query}");
    }
    let at = async |hour_of| read(&format!("by=series{}", instant(hour_of))).await["scores"][0].clone();
    let (before, after) = (at(56).await, at(57).await);
    assert_eq!((&before["n_values"], &after["n_values"]), (&json!(3), &json!(3)));
    assert_eq!((&before["coverage_80"], &after["coverage_80"]), (&json!(1e9), &json!(0.0)));
    // They go with their forecast, and with the partition of their scores.
    for statement in [
        "delete from forecast",
        "select drop_partition('score', name::regclass) from partitions('score') where name <> 'score_default'",
    ] {
        let mut transaction = pool.begin().await.unwrap();
        let count = "select count(*) from score_replaced";
        let n_replaced: i64 = sqlx::query_scalar(count).fetch_one(&mut *transaction).await.unwrap();
        sqlx::query(statement).execute(&mut *transaction).await.unwrap();
        let n_left: i64 = sqlx::query_scalar(count).fetch_one(&mut *transaction).await.unwrap();
        assert_eq!((n_replaced, n_left), (3, 0), "{statement}");
    }
}

#[sqlx::test(migrator = "api::MIGRATOR")]
async fn covariates_and_forecasts_without_trajectories_are_not_scored(pool: PgPool) {
    let loaded = load_panel(&pool, "city", 48).await;
    let model = register(&pool, &loaded, "none", &"a".repeat(64)).await;
    sqlx::query("update series set role = 'past' where name = 'wind'").execute(&pool).await.unwrap();
    store_forecast_of_heat(&pool, &loaded, &model).await;
    load_truth(&pool, 48..51, 0.0).await;
    let mut command = Command::new(plumecast());
    command.args(["score", "--panel", "city"]).env("DATABASE_URL", database_url(&pool));
    let output = spawn_blocking(move || command.output().unwrap()).await.unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout), "3 values scored, 1 forecasts completely\n");

    sqlx::query("delete from score").execute(&pool).await.unwrap();
    sqlx::query("delete from trajectory").execute(&pool).await.unwrap();
    assert_eq!(score(&pool, &loaded, 0..100).await, Scored::default());
}

/// Stores a forecast as a model makes it to which `wind` is a covariate.
async fn store_forecast_of_heat(pool: &PgPool, loaded: &Loaded, model: &Model) {
    let heat = Loaded { series_ids: vec![loaded.series_ids[0]], ..loaded.clone() };
    store_forecast(pool, &heat, model, &rising_of(1)).await;
}

#[sqlx::test(migrator = "api::MIGRATOR")]
async fn a_forecast_is_scored_by_what_its_series_were_when_it_was_made(pool: PgPool) {
    let (loaded, model) = stored(&pool).await;
    store_forecast_of_heat(&pool, &loaded, &model).await;
    load_truth(&pool, 48..50, 0.0).await;
    // One forecast has `wind`, which is a covariate by now; the other has not, and it is a target again.
    sqlx::query("update series set role = 'known' where name = 'wind'").execute(&pool).await.unwrap();
    assert_eq!(score(&pool, &loaded, 0..100).await, Scored { n_values: 6, n_forecasts: 0 });
    sqlx::query("update series set role = 'target' where name = 'wind'").execute(&pool).await.unwrap();
    load_truth(&pool, 50..51, 0.0).await;
    assert_eq!(score(&pool, &loaded, 0..100).await, Scored { n_values: 3, n_forecasts: 2 });
    assert_eq!(score(&pool, &loaded, 0..100).await, Scored::default());
}

#[sqlx::test(migrator = "api::MIGRATOR")]
async fn a_forecast_whose_values_were_scored_by_two_at_once_is_scored_as_a_whole(pool: PgPool) {
    let (loaded, _) = stored(&pool).await;
    load_truth(&pool, 48..51, 0.0).await;
    assert_eq!(score(&pool, &loaded, 0..100).await, Scored { n_values: 6, n_forecasts: 1 });
    sqlx::query("delete from forecast_score").execute(&pool).await.unwrap();
    assert_eq!(score(&pool, &loaded, 0..100).await, Scored { n_values: 0, n_forecasts: 1 });
    assert_eq!(score(&pool, &loaded, 0..100).await, Scored::default());
}

#[sqlx::test(migrator = "api::MIGRATOR")]
async fn scores_of_a_panel_are_stored_by_one_at_a_time(pool: PgPool) {
    let (loaded, _) = stored(&pool).await;
    load_truth(&pool, 48..51, 0.0).await;
    let mut other = pool.begin().await.unwrap();
    db::score::lock(&mut other, loaded.panel.panel_id).await.unwrap();
    let waiting = "select count(*) from pg_locks where locktype = 'advisory' and not granted
                     and database = (select oid from pg_database where datname = current_database())";
    let mut scoring = pin!(score(&pool, &loaded, 0..100));
    tokio::select! {
        scored = &mut scoring => panic!("{scored:?} while another one is at it"),
        () = async { while count(&pool, waiting).await == 0 {} } => {}
    }
    other.rollback().await.unwrap();
    assert_eq!(scoring.await, Scored { n_values: 6, n_forecasts: 1 });
}

#[sqlx::test(migrator = "api::MIGRATOR")]
async fn a_push_scores_the_forecasts_that_it_has_values_of_and_none_in_between(pool: PgPool) {
    let service = Service::start(&pool).await;
    let (loaded, _) = stored(&pool).await;
    load_truth(&pool, 48..51, 0.0).await;
    let n_scored = async |hours: [usize; 2]| {
        let row = |at: usize| json!({"series": "heat", "valid_time": hour(at), "value": 7.5});
        let body = json!({"observations": hours.map(row)});
        service.post("/v1/observations?panel=city", &body).await.expect(200);
        count(&pool, "select count(*) from score").await
    };
    assert_eq!(n_scored([47, 51]).await, 0, "the forecast begins after the one, and ends before the other");
    assert_eq!(n_scored([0, 50]).await, 6);
    assert_eq!(score_at(&pool, &loaded, 0..100, Utc::now()).await, Scored::default());
}

#[sqlx::test(migrator = "api::MIGRATOR")]
async fn a_forecast_of_which_some_values_never_come_is_scored_as_a_whole_once_they_are_late(pool: PgPool) {
    let (loaded, _) = stored(&pool).await;
    // Its last interval ends at hour 51, and it is three hours long.
    load_truth(&pool, 48..49, 0.0).await;
    assert_eq!(score_at(&pool, &loaded, 0..100, hour(54)).await, Scored { n_values: 2, n_forecasts: 0 });
    load_truth(&pool, 50..51, 0.0).await;
    assert_eq!(score_at(&pool, &loaded, 0..100, hour(53)).await, Scored { n_values: 2, n_forecasts: 0 });
    assert_eq!(score_at(&pool, &loaded, 0..100, hour(54)).await, Scored { n_values: 0, n_forecasts: 1 });
    assert_eq!(score_at(&pool, &loaded, 0..100, hour(54)).await, Scored::default());
    let whole: (i32, bool) = sqlx::query_as("select n_values, energy_score < 'infinity' from forecast_score")
        .fetch_one(&pool)
        .await
        .unwrap();
    assert_eq!(whole, (4, true));
    // They come after all.
    load_truth(&pool, 49..50, 0.0).await;
    assert_eq!(score_at(&pool, &loaded, 0..100, hour(55)).await, Scored { n_values: 2, n_forecasts: 1 });
}

#[sqlx::test(migrator = "api::MIGRATOR")]
async fn inputs_that_are_not_like_those_of_training_raise_an_alarm(pool: PgPool) {
    let service = Service::start(&pool).await;
    let (n_hours, later) = (24 * 14, hour(24 * 15 + 2));
    let loaded = load_panel(&pool, "city", n_hours).await;
    let model = register(&pool, &loaded, "none", &"a".repeat(64)).await;
    let watch = async |heat: [f64; 2], now| {
        let series = |level: [f64; 2]| json!({"level": level, "deviation": [0, 100], "missing": 0.0, "flat_length": 5});
        let metrics = json!({"inputs": {"block_length": 24, "series": [series(heat), series([0.0, 100.0])]}});
        sqlx::query("update model set metrics = $1").bind(metrics).execute(&pool).await.unwrap();
        let mut connection = pool.acquire().await.unwrap();
        drift::watch(&mut connection, &loaded.panel, &DriftPolicy::default(), now).await.unwrap()
    };
    assert!(watch([0.0, 100.0], later).await.is_empty(), "all is as it was");
    // `heat` is about 52.
    let events = watch([0.0, 10.0], later).await;
    assert_eq!(events.len(), 1, "{events:?}");
    assert_eq!((events[0].kind.as_str(), events[0].observed, events[0].version), ("input-level", 0.5, 1));
    assert!(events[0].message.ends_with("; the last time: heat"), "{}", events[0].message);
    assert!(watch([0.0, 10.0], later).await.is_empty(), "an alarm is raised once");
    // Nothing comes any more.
    let events = watch([0.0, 100.0], hour(24 * 24)).await;
    assert_eq!(events.iter().map(|event| event.kind.as_str()).collect::<Vec<_>>(), ["input-missing"]);
    let listed = service.get("/v1/drift-events?panel=city").await.expect(200);
    assert_eq!(listed["drift_events"][0]["kind"], "input-missing");
    assert_eq!(listed["drift_events"][1]["version"], model.version);
}

#[sqlx::test(migrator = "api::MIGRATOR")]
async fn a_forecast_whose_values_are_gone_hinders_no_other(pool: PgPool) {
    let (loaded, _) = stored(&pool).await;
    load_truth(&pool, 48..50, 0.0).await;
    assert_eq!(score(&pool, &loaded, 0..100).await, Scored { n_values: 4, n_forecasts: 0 });
    for table in ["trajectory", "forecast_value"] {
        sqlx::query(sqlx::AssertSqlSafe(format!("delete from {table}"))).execute(&pool).await.unwrap();
    }
    load_truth(&pool, 50..51, 0.0).await;
    assert_eq!(score(&pool, &loaded, 0..100).await, Scored::default());
}

/// Pretends that a forecast of twelve hours, made at an hour, has been scored.
async fn pretend(pool: &PgPool, model: &Model, at: DateTime<Utc>, crps: f64) {
    sqlx::query(
        "with made as (
             insert into forecast (tenant_id, forecast_id, panel_version_id, model_id, issue_time, data_cutoff, first_step,
                 horizon, first_valid_time, last_valid_time, num_samples, seed, schedule, passes, quantile_levels)
             values (1, gen_random_uuid(), $1, $2, $3, $3, 1, 12, $3, $3 + interval '11 hours', 10, 1, 'full', 8, '{0.5}')
             returning tenant_id, forecast_id, model_id, issue_time, last_valid_time
         )
         insert into forecast_score (tenant_id, forecast_id, panel_id, model_id, issue_time, last_valid_time, n_values,
             crps, coverage_80, energy_score, scored_at)
         select tenant_id, forecast_id, $4, model_id, issue_time, last_valid_time, 24, $5, 0.8, 1, issue_time from made",
    )
    .bind(model.panel_version_id)
    .bind(model.model_id)
    .bind(at)
    .bind(model.panel_id)
    .bind(crps)
    .execute(pool)
    .await
    .unwrap();
}

/// What a backtest of twelve hours found, with a CRPS of about 0.1.
async fn store_backtest(pool: &PgPool, model: &Model) {
    sqlx::query(
        "insert into model_comparison (tenant_id, model_id, reference, compared_at, horizon, num_samples, seed, issue_times,
             is_fair, candidate_crps, reference_crps, candidate_coverage_80, reference_coverage_80, decision, reason, policy)
         values (1, $1, 'seasonal_naive', now(), 12, 10, 1, array[now(), now(), now()], '{t,t,t}', '{0.1,0.12,0.1}',
             '{0.2,0.2,0.2}', '{0.8,0.78,0.82}', '{0.8,0.8,0.8}', 'promoted', 'the first', '{}')",
    )
    .bind(model.model_id)
    .execute(pool)
    .await
    .unwrap();
}

#[sqlx::test(migrator = "api::MIGRATOR")]
async fn forecasts_that_become_worse_than_the_backtest_raise_one_alarm(pool: PgPool) {
    let service = Service::start(&pool).await;
    let loaded = load_panel(&pool, "city", 48).await;
    let model = register(&pool, &loaded, "none", &"a".repeat(64)).await;
    let watch = async || {
        let mut connection = pool.acquire().await.unwrap();
        drift::watch(&mut connection, &loaded.panel, &DriftPolicy::default(), hour(2000)).await.unwrap()
    };
    // One forecast per horizon as good as in the backtest, and in between others, which overlap and do not count.
    for index in 0..40 {
        pretend(&pool, &model, hour(100 + 12 * index), if index % 2 == 0 { 0.09 } else { 0.11 }).await;
        pretend(&pool, &model, hour(101 + 12 * index), 100.0).await;
    }
    assert!(watch().await.is_empty(), "there is no backtest to compare with");
    store_backtest(&pool, &model).await;
    assert!(watch().await.is_empty());

    for index in 40..48 {
        pretend(&pool, &model, hour(100 + 12 * index), 0.6).await;
    }
    let order = json!({"panel": "city", "retrain_on_drift": {"train_steps": 5}});
    let job = do_job(&pool, service.data_dir(), "score", order, hour(2000)).await;
    assert_eq!(
        (job.state, &job.result.as_ref().unwrap()["n_drift_events"]),
        (JobState::Succeeded, &json!(1)),
        "{job:?}"
    );
    let (asked_by, arguments): (String, Value) =
        sqlx::query_as("select asked_by, arguments from job where kind = 'retrain'").fetch_one(&pool).await.unwrap();
    assert_eq!((asked_by.as_str(), &arguments["policy"]["train_steps"]), ("drift", &json!(5)));
    assert!(watch().await.is_empty(), "an alarm is raised once");

    let listed = service.get("/v1/drift-events?panel=city").await.expect(200);
    let event = &listed["drift_events"][0];
    assert_eq!((&event["kind"], &event["version"], &event["panel"]), (&json!("crps-high"), &json!(1), &json!("city")));
    assert!(event["message"].as_str().unwrap().contains("version 1 are not what its backtest promised: CRPS 0."));
    assert_eq!(listed["drift_events"].as_array().unwrap().len(), 1);
    assert!(event["statistic"].as_f64() >= event["threshold"].as_f64(), "{event}");
    let metrics = service.get("/metrics").await.text();
    assert!(metrics.contains(r#"plumecast_drift_events{panel="city"} 1"#), "{metrics}");
    let champion = db::model::champion(&pool, TENANT, loaded.panel.panel_id).await.unwrap().unwrap();
    assert_eq!(champion.model_id, model.model_id, "an alarm alone changes nothing");
}

#[sqlx::test(migrator = "api::MIGRATOR")]
async fn alarms_are_the_same_however_many_forecasts_are_looked_up_at_a_time(pool: PgPool) {
    let loaded = load_panel(&pool, "city", 48).await;
    let model = register(&pool, &loaded, "none", &"a".repeat(64)).await;
    store_backtest(&pool, &model).await;
    for index in 0..40 {
        let crps = if index < 20 { 0.1 } else { 0.6 };
        pretend(&pool, &model, hour(100 + 12 * index), crps).await;
        pretend(&pool, &model, hour(100 + 12 * index), crps).await;
        pretend(&pool, &model, hour(101 + 12 * index), 100.0).await;
    }
    let by_pages = async |n_together| {
        let mut transaction = pool.begin().await.unwrap();
        let policy = DriftPolicy::default();
        let watched = drift::watch_by_pages(&mut transaction, &loaded.panel, &policy, n_together, hour(2000)).await;
        watched.unwrap().into_iter().map(|event| DriftEvent { drift_event_id: 0, ..event }).collect::<Vec<_>>()
    };
    let at_once = by_pages(1000).await;
    assert!(at_once.len() > 1, "{at_once:?}");
    for n_together in [1, 2, 7] {
        assert_eq!(by_pages(n_together).await, at_once, "{n_together} at a time");
    }
}
