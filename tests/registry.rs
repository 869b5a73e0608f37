//! Which model serves: promotion, roll-back, archiving and deletion, while the service runs.

use std::fs;

use api::db::load::Loaded;
use api::db::model::{Model, NewModel};
use api::db::{self, DEFAULT_TENANT as TENANT};
use serde_json::{Value, json};
use sqlx::PgPool;
use tokio::task::spawn_blocking;

use crate::support::{Service, database_url, hour, load_panel, program, train};

/// Registers a copy of a model, with files of its own, as a candidate of the next version.
async fn copy(pool: &PgPool, service: &Service, loaded: &Loaded, model: &Model, folder: &str) -> Model {
    let (from, to) = (service.models_dir().join(&model.artefact_path), service.models_dir().join(folder));
    fs::create_dir_all(&to).unwrap();
    for file in fs::read_dir(from).unwrap().map(Result::unwrap) {
        fs::copy(file.path(), to.join(file.file_name())).unwrap();
    }
    let new = NewModel {
        panel_version_id: loaded.panel_version.panel_version_id,
        config: &json!({"horizon": 12}),
        metrics: &json!({}),
        digest: &model.digest,
        snapshot_digest: &"1".repeat(64),
        artefact_path: folder,
        artefact_bytes: Some(7),
        data_cutoff: hour(1),
    };
    db::model::insert(pool, TENANT, &new).await.unwrap()
}

/// The version of the model that makes the next forecast.
async fn serving(service: &Service) -> Value {
    let made = service.make_forecast(&json!({"panel": "city", "horizon": 3, "num_samples": 2, "store": false})).await;
    made.expect(200)["model"]["version"].clone()
}

#[sqlx::test(migrator = "api::MIGRATOR")]
async fn a_promotion_and_a_roll_back_count_from_the_next_request_on(pool: PgPool) {
    let service = Service::start(&pool).await;
    let loaded = load_panel(&pool, "city", 240).await;
    let first = train(&pool, &service, &loaded).await;
    let second = copy(&pool, &service, &loaded, &first, "second").await;
    copy(&pool, &service, &loaded, &first, "third").await;
    assert_eq!(serving(&service).await, 1);
    assert_eq!((second.version, second.parent_version), (2, Some(1)));

    for version in [2, 2, 3] {
        let promoted = service.act(&format!("/v1/models/city/{version}/promote")).await.expect(200);
        assert_eq!((&promoted["version"], &promoted["stage"]), (&json!(version), &json!("champion")));
        assert_eq!(serving(&service).await, version);
    }
    let replaced = service.get("/v1/models/city/2").await.expect(200);
    assert_eq!((&replaced["stage"], &replaced["reason"]), (&json!("archived"), &json!("replaced by version 3")));

    let back = service.act("/v1/models/city/rollback?from=3").await.expect(200);
    assert_eq!((&back["version"], &back["reason"]), (&json!(2), &json!("rolled back from version 3")));
    assert_eq!(serving(&service).await, 2);
    service.act("/v1/models/city/rollback?from=3").await.problem(409, "champion-changed");
    assert_eq!(serving(&service).await, 2);
    service.act("/v1/models/city/rollback").await.expect(200);
    assert_eq!(serving(&service).await, 1);
    service.act("/v1/models/city/rollback").await.problem(409, "no-earlier-champion");
    assert_eq!(serving(&service).await, 1);
}

#[sqlx::test(migrator = "api::MIGRATOR")]
async fn a_model_with_damaged_files_is_never_promoted(pool: PgPool) {
    let service = Service::start(&pool).await;
    let loaded = load_panel(&pool, "city", 240).await;
    let first = train(&pool, &service, &loaded).await;
    copy(&pool, &service, &loaded, &first, "second").await;
    let base = service.models_dir().join("second/base.safetensors");
    let whole = fs::read(&base).unwrap();
    fs::write(&base, "nonsense").unwrap();
    service.act("/v1/models/city/2/promote").await.problem(503, "model-unavailable");
    assert_eq!(serving(&service).await, 1);

    fs::write(&base, whole).unwrap();
    service.act("/v1/models/city/2/promote").await.expect(200);
    fs::remove_dir_all(service.models_dir().join(&first.artefact_path)).unwrap();
    service.act("/v1/models/city/rollback").await.problem(503, "model-unavailable");
    assert_eq!(serving(&service).await, 2);
}

#[sqlx::test(migrator = "api::MIGRATOR")]
async fn only_a_model_that_nothing_depends_on_is_deleted(pool: PgPool) {
    let service = Service::start(&pool).await;
    let loaded = load_panel(&pool, "city", 240).await;
    let first = train(&pool, &service, &loaded).await;
    service.make_forecast(&json!({"panel": "city", "horizon": 3, "num_samples": 2})).await.expect(201);
    for (version, folder) in [(2, "second"), (3, "third")] {
        copy(&pool, &service, &loaded, &first, folder).await;
        service.act(&format!("/v1/models/city/{version}/promote")).await.expect(200);
    }
    service.act("/v1/models/city/3/archive").await.problem(409, "champion-serves");
    service.delete("/v1/models/city/3").await.problem(409, "champion-serves");
    service.delete("/v1/models/city/1").await.problem(409, "model-in-use");
    service.delete("/v1/models/city/9").await.problem(404, "unknown-model");
    service.delete("/v1/models/city/two").await.problem(404, "unknown-model");
    service.act("/v1/models/town/1/promote").await.problem(404, "unknown-panel");

    let snapshot = service.models_dir().with_file_name("snapshots").join(format!("{}.parquet", "1".repeat(64)));
    fs::create_dir_all(snapshot.parent().unwrap()).unwrap();
    fs::write(&snapshot, "rows").unwrap();
    assert_eq!(service.delete("/v1/models/city/2").await.status, 204);
    service.get("/v1/models/city/2").await.problem(404, "unknown-model");
    assert!(!service.models_dir().join("second").exists());
    assert!(snapshot.exists(), "version 3 learned from it too");

    // What replaced the deleted model rolls back to what that one had replaced.
    let back = service.act("/v1/models/city/rollback").await.expect(200);
    assert_eq!(back["version"], 1);
    let archived = service.act("/v1/models/city/3/archive").await.expect(200);
    assert_eq!(archived["reason"], "archived by REST");
    assert_eq!(service.delete("/v1/models/city/3").await.status, 204);
    assert!(!snapshot.exists() && !service.models_dir().join("third").exists());
}

#[sqlx::test(migrator = "api::MIGRATOR")]
async fn the_command_line_does_what_the_routes_do(pool: PgPool) {
    let service = Service::start(&pool).await;
    let loaded = load_panel(&pool, "city", 240).await;
    let first = train(&pool, &service, &loaded).await;
    copy(&pool, &service, &loaded, &first, "second").await;
    let data_dir = service.models_dir().parent().unwrap().to_owned();
    let run = async |arguments: &[&str]| {
        let mut command = program(&database_url(&pool), &data_dir, &["models"]);
        command.args(arguments).args(["--panel", "city"]);
        spawn_blocking(move || command.output().unwrap()).await.unwrap()
    };
    assert!(run(&["promote", "--version", "2"]).await.status.success());
    assert_eq!(serving(&service).await, 2);
    assert!(run(&["rollback"]).await.status.success());
    assert_eq!(serving(&service).await, 1);
    let refused = run(&["delete", "--version", "1"]).await;
    assert_eq!(refused.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("version 1 of panel `city` serves"));
    assert!(run(&["delete", "--version", "2"]).await.status.success());
    let listed = String::from_utf8(run(&["list"]).await.stdout).unwrap();
    assert!(listed.lines().count() == 2 && listed.contains("rolled back from version 2"), "{listed}");
}
