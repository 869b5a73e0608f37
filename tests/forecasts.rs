//! Forecasts over HTTP: made once, stored, and read back in every way.

use std::io::Cursor;

use arrow::array::AsArray;
use arrow::datatypes::{Float32Type, Int32Type, TimestampMicrosecondType};
use arrow::ipc::reader::StreamReader;
use forecast::Trajectories;
use serde_json::{Value, json};
use sqlx::PgPool;

use crate::support::{Service, hour, load_panel, register, store_forecast, train};

/// Three trajectories of two series, one nowcast step before two steps of horizon.
fn trajectories() -> Trajectories {
    #[rustfmt::skip]
    let values = vec![
        40.0, 5.0,   10.0, 1.0,   20.0, 3.0,
        41.0, 5.5,   20.0, 2.0,   20.0, 2.0,
        42.0, 6.0,   30.0, 3.0,   20.0, 1.0,
    ];
    Trajectories::new(3, 0, 3, 2, values).unwrap()
}

/// A service with a stored forecast of known numbers.
async fn with_stored(pool: &PgPool) -> (Service, String) {
    let service = Service::start(pool).await;
    let loaded = load_panel(pool, "city", 48).await;
    let model = register(pool, &loaded, "none", &"a".repeat(64)).await;
    let forecast_id = store_forecast(pool, &loaded, &model, &trajectories()).await;
    (service, forecast_id)
}

#[sqlx::test(migrator = "api::MIGRATOR")]
async fn a_stored_forecast_is_read_back(pool: PgPool) {
    let (service, forecast_id) = with_stored(&pool).await;
    let forecast = service.forecast(&forecast_id).await.expect(200);

    assert_eq!(forecast["panel"], "city");
    assert_eq!(forecast["model"], json!({"name": "city", "version": 1}));
    assert_eq!(forecast["issue_time"], "2025-03-03T00:00:00Z");
    assert_eq!((&forecast["first_step"], &forecast["horizon"]), (&json!(0), &json!(2)));
    assert_eq!(forecast["quantile_levels"], json!([0.1, 0.5, 0.9]));
    let heat = &forecast["series"][0];
    assert_eq!((&heat["name"], &heat["unit"]), (&json!("heat"), &json!("kWh")));
    assert_eq!(heat["step"], json!([0, 1, 2]));
    assert_eq!(heat["valid_time"][1], "2025-03-03T00:00:00Z");
    assert_eq!(heat["mean"], json!([41.0, 20.0, 20.0]));
    assert_eq!(heat["quantiles"]["0.5"], json!([41.0, 20.0, 20.0]));
}

#[sqlx::test(migrator = "api::MIGRATOR")]
async fn quantiles_are_read_at_any_level(pool: PgPool) {
    let (service, forecast_id) = with_stored(&pool).await;

    let body = service.quantiles(&forecast_id, "quantiles=0.75,0.25&series=wind").await.expect(200);
    assert_eq!(body["quantile_levels"], json!([0.25, 0.75]));
    assert_eq!(body["series"].as_array().unwrap().len(), 1);
    assert_eq!(body["series"][0]["name"], "wind");
    assert_eq!(body["series"][0]["quantiles"], json!({"0.25": [5.25, 1.5, 1.5], "0.75": [5.75, 2.5, 2.5]}));

    // Without levels, those of the forecast, with the very numbers that were stored.
    let stored = service.forecast(&forecast_id).await.expect(200);
    let computed = service.quantiles(&forecast_id, "").await.expect(200);
    assert_eq!(computed["series"], stored["series"]);
    service.quantiles(&forecast_id, "series=rain").await.problem(404, "unknown-series");
}

#[sqlx::test(migrator = "api::MIGRATOR")]
async fn how_likely_something_is_and_what_then_is_read_off_the_trajectories(pool: PgPool) {
    let (service, forecast_id) = with_stored(&pool).await;
    let events = async |query: &str| service.get(&format!("/v1/forecasts/{forecast_id}/events?{query}")).await;
    let twice = events("fn=sum&series=heat&series=heat&at_least=1").await.problem(400, "invalid-parameter");
    assert_eq!((twice.errors[0].parameter.as_deref(), twice.errors[0].code.as_str()), (Some("series"), "duplicate"));

    let hot = events("fn=max&series=heat&at_least=25&quantiles=0.5").await.expect(200);
    let share = 1.0 / 3.0;
    assert_eq!((&hot["num_samples"], &hot["samples"]), (&json!(3), &json!([3])));
    let error = (share * (1.0 - share) / 3.0_f64).sqrt();
    assert_eq!(
        hot["periods"],
        json!([{"start": hour(48), "end": hour(50), "probability": share, "standard_error": error, "num_met": 1}])
    );
    assert_eq!((&hot["passage"]["first"], &hot["passage"]["by"]), (&json!([share, 0.0]), &json!([share, share])));
    assert_eq!(hot["passage"]["mean_steps"], share);
    assert_eq!((&hot["given"][1]["name"], &hot["given"][1]["mean"]), (&json!("wind"), &json!([3.0, 1.0])));

    // A nowcast is no step of the horizon; a day begins in the panel's zone.
    let days = events("fn=sum&series=wind&at_least=4&at_most=4&per=day").await.expect(200);
    assert_eq!((&days["periods"][0]["date"], &days["periods"][0]["num_met"]), (&json!("2025-03-03"), &json!(3)));
    assert_eq!((days.get("samples"), days.get("passage")), (None, None));
    let never = events("fn=max&series=heat&at_least=99&quantiles=0.5").await.expect(200);
    assert_eq!((&never["periods"][0]["probability"], never.get("given")), (&json!(0.0), None));

    let refused = async |query: &str| {
        let problem = events(query).await.problem(400, "invalid-parameter");
        (problem.errors[0].parameter.clone().unwrap(), problem.errors[0].code.clone())
    };
    let only = |parameter: &str, code: &str| (parameter.to_owned(), code.to_owned());
    assert_eq!(refused("fn=max").await, only("at_least", "missing-parameter"));
    assert_eq!(refused("fn=max&at_least=1&series=rain").await, only("series", "unknown-series"));
    let outside = "fn=value&series=heat&at_least=1&valid_time=2025-03-02T23:00:00Z";
    assert_eq!(refused(outside).await, only("valid_time", "no-step"));
}

#[sqlx::test(migrator = "api::MIGRATOR")]
async fn trajectories_are_read_as_json(pool: PgPool) {
    let (service, forecast_id) = with_stored(&pool).await;
    let body = service.trajectories(&forecast_id, "samples=2").await.expect(200);
    assert_eq!(body["step"], json!([0, 1, 2]));
    assert_eq!(body["series"][0]["samples"], json!([[40.0, 10.0, 20.0], [41.0, 20.0, 20.0]]));
    assert_eq!(body["series"][1]["samples"], json!([[5.0, 1.0, 3.0], [5.5, 2.0, 2.0]]));
}

#[sqlx::test(migrator = "api::MIGRATOR")]
async fn trajectories_are_read_as_a_table(pool: PgPool) {
    let (service, forecast_id) = with_stored(&pool).await;
    let answer = service.trajectories(&forecast_id, "samples=1&series=wind&format=csv").await;
    assert_eq!((answer.status, answer.header("content-type")), (200, Some("text/csv")));
    assert!(answer.header("content-disposition").unwrap().contains(&format!("{forecast_id}.csv")));
    let expected = "sample,step,valid_time,series,value\n1,0,2025-03-02T23:00:00Z,wind,5.0\n\
                    1,1,2025-03-03T00:00:00Z,wind,1.0\n1,2,2025-03-03T01:00:00Z,wind,3.0\n";
    assert_eq!(answer.text(), expected);
    let parquet = service.trajectories(&forecast_id, "format=parquet").await;
    assert!(parquet.status == 200 && parquet.body.starts_with(b"PAR1") && parquet.body.ends_with(b"PAR1"));
    service.trajectories(&forecast_id, "format=xls").await.problem(400, "invalid-parameter");
}

#[sqlx::test(migrator = "api::MIGRATOR")]
async fn trajectories_are_read_as_an_arrow_stream(pool: PgPool) {
    let (service, forecast_id) = with_stored(&pool).await;
    let answer = service.trajectories_arrow(&forecast_id).await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.header("content-type"), Some("application/vnd.apache.arrow.stream"));

    let reader = StreamReader::try_new(Cursor::new(answer.body), None).unwrap();
    let names: Vec<String> = reader.schema().fields().iter().map(|field| field.name().clone()).collect();
    assert_eq!(names, ["sample", "step", "valid_time", "series", "value"]);
    let batches: Vec<_> = reader.map(Result::unwrap).collect();
    assert_eq!(batches.len(), 2);
    let wind = &batches[1];
    assert_eq!(wind.column(0).as_primitive::<Int32Type>().values(), &[1, 1, 1, 2, 2, 2, 3, 3, 3]);
    assert_eq!(wind.column(1).as_primitive::<Int32Type>().values()[..3], [0, 1, 2]);
    let first_time = wind.column(2).as_primitive::<TimestampMicrosecondType>().value(0);
    assert_eq!(first_time, hour(47).timestamp_micros());
    let series = wind.column(3).as_dictionary::<Int32Type>();
    assert_eq!(series.values().as_string::<i32>().value(series.key(0).unwrap()), "wind");
    let values = wind.column(4).as_primitive::<Float32Type>().values();
    assert_eq!(values, &[5.0, 1.0, 3.0, 5.5, 2.0, 2.0, 6.0, 3.0, 1.0]);
}

#[sqlx::test(migrator = "api::MIGRATOR")]
async fn aggregates_are_computed_along_each_trajectory(pool: PgPool) {
    let (service, forecast_id) = with_stored(&pool).await;
    let distributions = async |query: &str| -> Value {
        service.aggregate(&forecast_id, query).await.expect(200)["distributions"].take()
    };

    // Totals over the horizon, without the nowcast step. The wind's always cancel.
    let total = distributions("fn=sum&over=horizon&quantiles=0.25,0.75").await;
    assert_eq!(
        total[0],
        json!({"series": "heat", "unit": "kWh", "mean": 40.0, "quantiles": {"0.25": 35.0, "0.75": 45.0}})
    );
    assert_eq!(total[1]["quantiles"], json!({"0.25": 4.0, "0.75": 4.0}));

    let per_step = distributions("fn=max&over=series&quantiles=0.5").await;
    assert_eq!(per_step.as_array().unwrap().len(), 2);
    assert_eq!(per_step[0]["step"], 1);
    assert_eq!(per_step[0]["valid_time"], "2025-03-03T00:00:00Z");
    assert_eq!(per_step[0]["quantiles"]["0.5"], 20.0);

    let everything = distributions("fn=sum&over=horizon,series&quantiles=0.5").await;
    assert_eq!(everything, json!([{"mean": 44.0, "quantiles": {"0.5": 44.0}}]));

    // A part of the horizon.
    let last = distributions("fn=max&over=series&quantiles=0.5&start=2025-03-03T01:00:00Z").await;
    assert_eq!((last.as_array().unwrap().len(), &last[0]["step"]), (1, &json!(2)));
    assert_eq!(last[0]["valid_time"], "2025-03-03T01:00:00Z");
    let period = "start=2025-03-03T00:00:00Z&end=2025-03-03T01:00:00Z";
    let first = distributions(&format!("fn=sum&over=horizon&series=heat&quantiles=0.5&{period}")).await;
    assert_eq!(first[0]["mean"], 20.0);
    let wrong = service.aggregate(&forecast_id, "fn=sum&over=horizon&end=2025-03-03T00:30:00Z").await;
    let problem = wrong.problem(400, "invalid-parameter");
    assert_eq!(problem.errors[0].parameter.as_deref(), Some("end"));

    let body = service.aggregate(&forecast_id, "fn=sum&over=series").await.expect(200);
    assert_eq!(body["warnings"][0]["code"], "mixed-units");
}

#[sqlx::test(migrator = "api::MIGRATOR")]
async fn series_are_chosen_by_what_is_known_of_them(pool: PgPool) {
    let (service, forecast_id) = with_stored(&pool).await;
    for (name, attributes) in
        [("heat", json!({"site": "north", "kw": 7.5})), ("wind", json!({"site": "south", "kw": 7.5}))]
    {
        let set = sqlx::query("update series set attributes = $2 where name = $1").bind(name).bind(attributes);
        set.execute(&pool).await.unwrap();
    }
    let names = async |query: &str| -> Vec<String> {
        let body = service.quantiles(&forecast_id, query).await.expect(200);
        body["series"].as_array().unwrap().iter().map(|series| series["name"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(names("attribute=site:south").await, ["wind"]);
    assert_eq!(names("attribute=kw:7.5").await, ["heat", "wind"]);
    assert_eq!(names("attribute=kw:7.5&attribute=site:north").await, ["heat"]);
    let total = service.aggregate(&forecast_id, "fn=sum&over=horizon,series&attribute=site:north").await.expect(200);
    assert_eq!(total["distributions"][0]["mean"], 40.0);
    let paths = service.trajectories(&forecast_id, "attribute=site:north&series=heat").await.expect(200);
    assert_eq!(paths["series"].as_array().unwrap().len(), 1);
    for wrong in ["attribute=site", "attribute=site:west", "attribute=site:south&series=heat"] {
        let problem = service.quantiles(&forecast_id, wrong).await.problem(400, "invalid-parameter");
        assert_eq!(problem.errors[0].parameter.as_deref(), Some("attribute"), "{wrong}");
    }
}

#[sqlx::test(migrator = "api::MIGRATOR")]
async fn forecasts_are_listed_the_newest_first_in_pages(pool: PgPool) {
    let service = Service::start(&pool).await;
    let loaded = load_panel(&pool, "city", 48).await;
    let model = register(&pool, &loaded, "none", &"a".repeat(64)).await;
    let mut made = Vec::new();
    for _ in 0..3 {
        made.insert(0, store_forecast(&pool, &loaded, &model, &trajectories()).await);
    }
    load_panel(&pool, "other", 48).await;

    let ids = |page: &Value| -> Vec<String> {
        let forecasts = page["forecasts"].as_array().unwrap().iter();
        forecasts.map(|forecast| forecast["forecast_id"].as_str().unwrap().to_owned()).collect()
    };
    let first = service.forecasts("panel=city&limit=2").await.expect(200);
    assert_eq!(ids(&first), made[..2]);
    let next = first["next"].as_str().unwrap();
    let second = service.forecasts(&format!("panel=city&limit=2&cursor={next}")).await.expect(200);
    assert_eq!(ids(&second), made[2..]);
    assert_eq!(second.get("next"), None);
    assert!(ids(&service.forecasts("panel=other").await.expect(200)).is_empty());
    let of = |hour: usize| crate::support::hour(hour).format("issue_time=%Y-%m-%dT%H:%M:%SZ").to_string();
    assert_eq!(ids(&service.forecasts(&of(48)).await.expect(200)), made);
    assert!(ids(&service.forecasts(&of(47)).await.expect(200)).is_empty());
    service.forecasts("issue_time=yesterday").await.problem(400, "invalid-parameter");
    let as_of = |hour: usize| of(hour).replace("issue_time", "as_of");
    assert_eq!(ids(&service.forecasts(&as_of(48)).await.expect(200)), made);
    assert!(ids(&service.forecasts(&as_of(47)).await.expect(200)).is_empty());
    assert!(ids(&service.forecasts(&format!("{}&{}", of(48), as_of(47))).await.expect(200)).is_empty());
}

#[sqlx::test(migrator = "api::MIGRATOR")]
async fn a_forecast_is_made_stored_and_repeated(pool: PgPool) {
    let service = Service::start(&pool).await;
    let loaded = load_panel(&pool, "city", 240).await;
    train(&pool, &service, &loaded).await;
    let request = json!({"panel": "city", "horizon": 20, "level": [80], "num_samples": 11, "seed": 3});

    let answer = service.make_forecast_once("once", &request).await;
    let made = answer.expect(201);
    let forecast_id = made["forecast_id"].as_str().unwrap();
    assert_eq!(answer.header("location"), Some(format!("/v1/forecasts/{forecast_id}").as_str()));

    // The data are old: the forecast continues them where they end.
    assert_eq!(made["issue_time"], json!(hour(240)));
    assert_eq!((&made["first_step"], &made["horizon"], &made["num_samples"]), (&json!(1), &json!(20), &json!(11)));
    assert_eq!(made["quantile_levels"], json!([0.1, 0.9]));
    assert_eq!(made["series"][1]["valid_time"][19], json!(hour(259)));
    assert_eq!(made["warnings"][0]["code"], "beyond-trained-horizon");
    for (schedule, warnings) in [("autoregressive", vec![]), ("full", vec!["biased-schedule"])] {
        let body = json!({"panel": "city", "horizon": 3, "num_samples": 2, "schedule": schedule, "store": false});
        let made = service.make_forecast(&body).await.expect(200);
        let codes: Vec<&str> =
            made["warnings"].as_array().unwrap().iter().map(|warning| warning["code"].as_str().unwrap()).collect();
        assert_eq!(codes, warnings, "{schedule}");
    }
    let heat = &made["series"][0];
    for step in 0..20 {
        let at = |level: &str| heat["quantiles"][level][step].as_f64().unwrap();
        assert!(0.0 <= at("0.1") && at("0.1") <= at("0.9"), "step {step}");
    }

    assert_eq!(service.forecast(forecast_id).await.expect(200), made);
    assert_eq!(service.make_forecast_once("once", &request).await.expect(201), made);
    let n_forecasts: i64 = sqlx::query_scalar("select count(*) from forecast").fetch_one(&pool).await.unwrap();
    assert_eq!(n_forecasts, 1);

    // The same seed gives the same numbers again, another one does not.
    let again = service.make_forecast(&request).await.expect(201);
    assert_ne!(again["forecast_id"], made["forecast_id"]);
    assert_eq!(again["series"], made["series"]);
    let other_seed = json!({"panel": "city", "horizon": 20, "level": [80], "num_samples": 11, "seed": 4});
    assert_ne!(service.make_forecast(&other_seed).await.expect(201)["series"], made["series"]);
}

#[sqlx::test(migrator = "api::MIGRATOR")]
async fn old_data_are_continued_from_when_the_newest_were_published(pool: PgPool) {
    let service = Service::start(&pool).await;
    let loaded = load_panel(&pool, "city", 234).await;
    train(&pool, &service, &loaded).await;
    let publish = async |series: &str, hours: std::ops::Range<usize>, value: f64, available_at: usize| {
        let known = hour(available_at);
        let row = |step| json!({"series": series, "valid_time": hour(step), "value": value, "available_at": known});
        let body = json!({ "observations": hours.map(row).collect::<Vec<_>>() });
        service.post("/v1/observations?panel=city", &body).await.expect(200);
    };
    let request = json!({"panel": "city", "horizon": 3, "num_samples": 2, "fallback": false});
    publish("heat", 234..240, 50.0, 250).await;
    publish("wind", 234..240, 6.0, 251).await;
    let made = service.make_forecast(&request).await.expect(201);
    assert_eq!((&made["issue_time"], &made["data_cutoff"]), (&json!(hour(250)), &json!(hour(250))));

    // What is known of the newest hour was known then; a correction of it was not.
    publish("heat", 239..240, 55.0, 260).await;
    let made = service.make_forecast(&request).await.expect(201);
    assert_eq!((&made["issue_time"], &made["data_cutoff"]), (&json!(hour(250)), &json!(hour(250))));
}

#[sqlx::test(migrator = "api::MIGRATOR")]
async fn the_same_key_twice_at_once_makes_one_forecast(pool: PgPool) {
    let service = Service::start(&pool).await;
    let loaded = load_panel(&pool, "city", 240).await;
    train(&pool, &service, &loaded).await;
    let request = json!({"panel": "city", "horizon": 3, "num_samples": 5});
    let (first, second) =
        tokio::join!(service.make_forecast_once("once", &request), service.make_forecast_once("once", &request));
    assert_eq!(first.expect(201), second.expect(201));
}

#[sqlx::test(migrator = "api::MIGRATOR")]
async fn a_forecast_that_is_not_stored_leaves_nothing(pool: PgPool) {
    let service = Service::start(&pool).await;
    let loaded = load_panel(&pool, "city", 240).await;
    train(&pool, &service, &loaded).await;
    let request = json!({"panel": "city", "horizon": 3, "num_samples": 5, "store": false});
    let made = service.make_forecast(&request).await.expect(200);
    assert_eq!(made.get("forecast_id"), None);
    assert_eq!(made["series"][0]["mean"].as_array().unwrap().len(), 3);
    let n_forecasts: i64 = sqlx::query_scalar("select count(*) from forecast").fetch_one(&pool).await.unwrap();
    assert_eq!(n_forecasts, 0);
}

#[sqlx::test(migrator = "api::MIGRATOR")]
async fn panels_series_models_and_observations_are_listed(pool: PgPool) {
    let service = Service::start(&pool).await;
    let loaded = load_panel(&pool, "city", 48).await;
    load_panel(&pool, "port", 48).await;
    register(&pool, &loaded, "none", &"a".repeat(64)).await;

    let first = service.get("/v1/panels?limit=1").await.expect(200);
    assert_eq!(first["panels"][0]["name"], "city");
    let second =
        service.get(&format!("/v1/panels?limit=1&cursor={}", first["next"].as_str().unwrap())).await.expect(200);
    assert_eq!((&second["panels"][0]["name"], second.get("next")), (&json!("port"), None));
    assert_eq!(service.get("/v1/panels/city").await.expect(200)["frequency"], "1h");
    let series = service.get("/v1/panels/city/series").await.expect(200);
    assert_eq!((&series["series"][0]["kind"], &series["series"][1]["unit"]), (&json!("sum"), &json!("m/s")));
    let models = service.get("/v1/models").await.expect(200);
    assert_eq!((&models["models"][0]["name"], &models["models"][0]["stage"]), (&json!("city"), &json!("champion")));

    let day = "series=heat&start=2025-03-01T22:00:00Z&end=2025-03-02T02:00:00Z";
    let observations = service.observations("city", &format!("{day}&limit=3")).await.expect(200);
    assert_eq!(observations["observations"].as_array().unwrap().len(), 3);
    assert_eq!(observations["observations"][0]["valid_time"], "2025-03-01T22:00:00Z");
    let next = observations["next"].as_str().unwrap();
    let rest = service.observations("city", &format!("{day}&limit=3&cursor={next}")).await.expect(200);
    assert_eq!(rest["observations"][0]["valid_time"], "2025-03-02T01:00:00Z");
    assert_eq!(rest.get("next"), None);
    let earlier = service.observations("city", &format!("{day}&as_of=2025-03-02T00:00:00Z")).await.expect(200);
    assert_eq!(earlier["observations"].as_array().unwrap().len(), 2);
}

#[sqlx::test(migrator = "api::MIGRATOR")]
async fn the_page_shows_the_fan_and_brings_its_script_along(pool: PgPool) {
    let (service, forecast_id) = with_stored(&pool).await;
    let page = service.get("/panels/city?series=wind").await;
    assert_eq!(page.status, 200);
    assert_eq!(page.header("content-type"), Some("text/html; charset=utf-8"));
    let html = page.text();
    for part in ["<h1>wind</h1>", "interval-90", "What will the mean be?", &forecast_id, "/assets/plotly.min.js"] {
        assert!(html.contains(part), "{part}");
    }
    assert!(!html.contains("https://"), "nothing comes from elsewhere");

    let question = "/panels/city?series=wind&fn=max&of=unit&first=2&last=99&above=-1e9";
    let html = service.get(question).await.text();
    for part in ["What will the highest value be?", "steps 2 to", "trajectories.", "threshold"] {
        assert!(html.contains(part), "{part}");
    }
    service.get("/panels/city?series=wind&above=high").await.problem(400, "invalid-parameter");

    let overview = service.get("/").await.text();
    for part in ["/panels/city", "version 1", "days ago"] {
        assert!(overview.contains(part), "{part}: {overview}");
    }

    let script = service.get("/assets/plotly.min.js").await;
    assert_eq!(script.status, 200);
    assert!(script.header("cache-control").unwrap().contains("immutable"));
    for asset in ["/assets/page.css", "/assets/page.js", "/docs/", "/docs/swagger-ui.css"] {
        assert_eq!(service.get(asset).await.status, 200, "{asset}");
    }
}

#[sqlx::test(migrator = "api::MIGRATOR")]
async fn the_service_says_how_it_fares(pool: PgPool) {
    let (service, _) = with_stored(&pool).await;
    assert_eq!(service.get("/livez").await.expect(200), json!({"status": "ok"}));
    assert_eq!(service.get("/readyz").await.expect(200), json!({"status": "ok", "reasons": []}));
    assert_eq!(service.get("/version").await.expect(200)["name"], "plumecast");
    assert_eq!(service.get("/openapi.json").await.expect(200)["openapi"], "3.1.0");

    let metrics = service.get("/metrics").await.text();
    for line in [
        r#"plumecast_http_requests_total{method="GET",route="/livez",status="200"} 1"#,
        r#"plumecast_model_info{panel="city",version="1"} 1"#,
        r#"plumecast_forecast_age_seconds{panel="city"}"#,
        r#"plumecast_database_connections{state="idle"}"#,
        "plumecast_queue_length 0",
    ] {
        assert!(metrics.contains(line), "{line} in\n{metrics}");
    }
}
