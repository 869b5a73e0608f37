//! Models and snapshots in a bucket of an S3-compatible store, over HTTP.

use sqlx::PgPool;

use crate::support::{Fault, Operator, Store, complaint, load_panel, output, said};

/// Where they are kept.
const PREFIX: &str = "forecasts/of the city";

fn operator(pool: &PgPool) -> (Store, Operator) {
    let store = Store::start();
    let operator = Operator::new(pool)
        .with("AWS_ENDPOINT_URL", &store.address)
        .with("AWS_ACCESS_KEY_ID", "reader")
        .with("AWS_SECRET_ACCESS_KEY", "a secret")
        .with("PLUMECAST_ARTEFACTS", &format!("s3://meters/{PREFIX}"));
    (store, operator)
}

/// What a command says when it succeeds.
async fn say(operator: &Operator, arguments: &[&str]) -> String {
    said(output(operator.plumecast(arguments)).await)
}

const TRAIN: [&str; 9] = ["train", "--panel", "city", "--horizon", "6", "--train-steps", "1", "--test-windows", "0"];
const FORECAST: [&str; 9] =
    ["forecast", "--panel", "city", "--horizon", "6", "--num-samples", "10", "--fallback", "false"];

#[sqlx::test(migrator = "api::MIGRATOR")]
async fn a_bucket_has_the_files_of_a_model_until_it_is_deleted(pool: PgPool) {
    let (store, operator) = operator(&pool);
    load_panel(&pool, "city", 1_000).await;
    say(&operator, &TRAIN).await;
    let first = store.keys();
    let (models, snapshots) = (format!("{PREFIX}/models/"), format!("{PREFIX}/snapshots/"));
    assert!(first.iter().all(|key| key.starts_with(&models) || key.starts_with(&snapshots)), "{first:?}");
    assert_eq!(first.iter().filter(|key| key.starts_with(&snapshots)).count(), 1);
    for folder in ["models", "snapshots"] {
        assert!(!operator.path(folder).exists(), "{folder} is in the bucket");
    }

    say(&operator, &[&TRAIN[..], &["--seed", "1"]].concat()).await;
    let second = store.keys();
    assert_eq!(second.len(), 2 * first.len() - 1, "they learned from the same snapshot");
    say(&operator, &["models", "promote", "--panel", "city", "--version", "2"]).await;
    store.fail(Fault::Overloaded(1));
    say(&operator, &["models", "delete", "--panel", "city", "--version", "1"]).await;
    let left = store.keys();
    let of_second = second.iter().filter(|key| !first.contains(key) || key.starts_with(&snapshots));
    assert_eq!(left, of_second.cloned().collect::<Vec<_>>());
    // The next process, and another machine, find the second one there.
    assert!(say(&operator, &FORECAST).await.contains("city"));
}

#[sqlx::test(migrator = "api::MIGRATOR")]
async fn a_store_that_fails_is_told_of_and_leaves_no_model_behind(pool: PgPool) {
    let (store, operator) = operator(&pool);
    load_panel(&pool, "city", 1_000).await;
    let fail = async |operator: &Operator, arguments: &[&str]| complaint(output(operator.plumecast(arguments)).await);
    store.fail(Fault::Overloaded(100));
    let told = fail(&operator, &TRAIN).await;
    assert!(told.contains("503 Service Unavailable"), "{told}");
    let models: i64 = sqlx::query_scalar("select count(*) from model").fetch_one(&pool).await.unwrap();
    assert_eq!((models, store.keys()), (0, vec![]));

    store.fail(Fault::None);
    say(&operator, &TRAIN).await;
    store.fail(Fault::Gone);
    let told = fail(&operator, &FORECAST).await;
    assert!(told.contains("NoSuchKey") || told.contains("not found"), "{told}");
    store.fail(Fault::None);
    say(&operator, &FORECAST).await;
    let key = store.keys().into_iter().find(|key| key.contains("/models/")).unwrap();
    store.put(&key, "damaged");
    let told = fail(&operator, &FORECAST).await;
    assert!(told.contains("digest"), "{told}");

    let operator = operator.with("PLUMECAST_ARTEFACTS", "/srv/models");
    let told = fail(&operator, &FORECAST).await;
    assert!(told.contains("cannot use /srv/models for artefacts") && told.contains("s3://BUCKET/PREFIX"), "{told}");
}
