//! Public holidays that nobody has declared: found by a training, told to its model, and to nobody else.

use api::db::load::{Load, Value, load};
use api::db::panel::NewPanel;
use api::db::series::NewSeries;
use api::db::words::JobState;
use api::db::{self, DEFAULT_TENANT as TENANT};
use chrono::{DateTime, Days, NaiveDate, Utc};
use forecast::noise::Stream;
use ingest::Holidays;
use serde_json::json;
use sqlx::PgPool;
use sqlx::migrate::Migrator;

use crate::support::{Service, do_job, load_panel, register};

/// Until the 23rd of December 2021, of which the forecasts know.
const N_DAYS: u64 = 1299;

fn day(number: u64) -> NaiveDate {
    NaiveDate::from_ymd_opt(2018, 6, 4).unwrap() + Days::new(number)
}

fn midnight(number: u64) -> DateTime<Utc> {
    day(number).and_time(chrono::NaiveTime::MIN).and_utc()
}

/// Visitors of a shop in Spain: fewer at the weekend, a fifth of the usual on public holidays.
async fn load_shop(pool: &PgPool) {
    let (spain, mut stream, mut state) = ("ES".parse::<Holidays>().unwrap(), Stream::new(5, 0), 0.0);
    let value = |number| {
        state = 0.5 * state + 3.0 * stream.normal();
        let usual = if number % 7 < 5 { 100.0 } else { 80.0 };
        let value = if spain.contains(day(number)) { 20.0 } else { usual } + state;
        let (valid_time, interval_end) = (midnight(number), midnight(number + 1));
        Value { series: 0, valid_time, interval_end, available_at: None, value, sd: None }
    };
    let values: Vec<Value> = (0..N_DAYS).map(value).collect();
    let series = [NewSeries { name: "visitors".to_owned(), ..NewSeries::default() }];
    let panel = NewPanel { name: "shop", frequency: "1d", time_zone: "UTC", publication_delay: None, holidays: None };
    load(pool, TENANT, &Load { panel, series: &series, values: &values, load_time: midnight(N_DAYS) }).await.unwrap();
}

#[sqlx::test(migrator = "api::MIGRATOR")]
async fn a_training_finds_the_holidays_that_the_values_show_unless_there_are_to_be_none(pool: PgPool) {
    let service = Service::start(&pool).await;
    load_shop(&pool).await;
    let do_one = async |kind: &str, arguments: serde_json::Value| {
        let job = do_job(&pool, service.data_dir(), kind, arguments, midnight(N_DAYS)).await;
        assert_eq!(job.state, JobState::Succeeded, "{job:?}");
        let lines = db::job::log::list(&pool, TENANT, job.job_id, None, 100).await.unwrap();
        lines.into_iter().any(|line| line.text.starts_with("the model is told of public holidays of ES: "))
    };
    let christmas = async || {
        let order = json!({"panel": "shop", "horizon": 5, "issue_time": midnight(N_DAYS), "fallback": false});
        let made = service.make_forecast(&order).await.expect(201);
        let means = made["series"][0]["mean"].as_array().unwrap().iter().map(|mean| mean.as_f64().unwrap());
        (made["model"]["version"].clone(), means.collect::<Vec<_>>())
    };
    let train = json!({"panel": "shop", "horizon": 5, "train_steps": 2, "test_windows": 4});

    assert!(do_one("train", train.clone()).await);
    let model = service.get("/v1/models/shop/1").await.expect(200);
    assert_eq!(model["config"]["holidays"], "ES");
    assert!(model["metrics"]["found_holidays"]["gain"].as_f64().unwrap() > 10.0, "{model}");
    assert!(service.get("/v1/panels").await.expect(200)["panels"][0]["holidays"].is_null(), "nobody has declared any");
    // The 24th is an ordinary Friday, the 25th a Saturday.
    let (version, told) = christmas().await;
    assert_eq!(version, 1);
    assert!(told[0] > 80.0 && told[1] < 50.0, "{told:?}");

    // What is declared now is for the models that come; this one goes on as it was, and is tested as it was.
    let visitors = json!({"observations": [{"series": "visitors", "valid_time": midnight(0), "value": 100.0}]});
    let declare = async |holidays: &str| {
        let path = format!("/v1/observations?panel=shop&holidays={holidays}");
        service.post(&path, &visitors).await.expect(200);
        service.get("/v1/panels").await.expect(200)["panels"][0]["holidays"].clone()
    };
    assert_eq!(declare("fr").await, "FR");
    assert_eq!(christmas().await, (version.clone(), told.clone()));
    let policy = json!({"windows": 4, "train_steps": 2, "num_samples": 20});
    assert!(!do_one("retrain", json!({"panel": "shop", "policy": policy})).await);
    assert_eq!(service.get("/v1/models/shop/2").await.expect(200)["config"]["holidays"], "FR");
    assert_eq!(service.get("/v1/models/shop/2/comparison").await.expect(200)["champion_version"], 1);

    assert_eq!(declare("none").await, "none");
    assert!(service.get("/panels/shop").await.text().contains("UTC · no holidays"));
    assert_eq!(christmas().await, (version, told));
    assert!(!do_one("train", train).await);
    assert_eq!(service.get("/v1/models/shop/3").await.expect(200)["config"]["holidays"], "none");
    let (version, untold) = christmas().await;
    assert_eq!(version, 3);
    assert!(untold[1] > 60.0, "{untold:?}");
    assert!(!do_one("backtest", json!({"panel": "shop", "version": 1, "windows": 2, "num_samples": 10})).await);
}

#[sqlx::test(migrations = false)]
async fn models_that_are_there_say_what_their_panel_had_declared(pool: PgPool) {
    let before = api::MIGRATOR.iter().filter(|migration| migration.version < 33).cloned().collect();
    Migrator { migrations: before, ..Migrator::DEFAULT }.run(&pool).await.unwrap();
    for (panel, holidays) in [("madrid", Some("ES")), ("nowhere", None)] {
        let loaded = load_panel(&pool, panel, 10).await;
        let declared = sqlx::query("update panel set holidays = $1 where name = $2").bind(holidays).bind(panel);
        declared.execute(&pool).await.unwrap();
        register(&pool, &loaded, panel, &"0".repeat(64)).await;
    }
    api::MIGRATOR.run(&pool).await.unwrap();
    let config = "select config from model join panel using (tenant_id, panel_id) order by panel.name";
    let configs: Vec<serde_json::Value> = sqlx::query_scalar(config).fetch_all(&pool).await.unwrap();
    assert_eq!(configs, [json!({"horizon": 12, "holidays": "ES"}), json!({"horizon": 12})]);
}
