//! The commands of the program, a file each.

use std::fs;
use std::io::{self, ErrorKind, Write};
use std::path::Path;

use ::forecast::{NetworkConfig, Role};
use anyhow::Context;
use serde::de::DeserializeOwned;

use crate::config::DatabaseConfig;
use crate::database::Database;
use crate::db;
use crate::postgres::Listen;
use crate::reader::{RoleName, Secret, generated_password};
use crate::telemetry;

pub mod anomalies;
pub mod backfill;
pub mod backtest;
pub mod bench;
mod bench_dashboards;
mod bench_ingest;
mod bench_service;
pub mod demo;
pub mod dev_db;
pub mod forecast;
pub mod impute;
pub mod load;
pub mod migrate;
pub mod models;
pub mod openapi;
pub mod retain;
pub mod retrain;
pub mod run_job;
pub mod score;
pub mod serve;
pub mod train;
pub mod work;

/// Prints lines to standard output. A reader that has seen enough and went away is no failure.
///
/// # Errors
/// When standard output fails otherwise.
fn say(text: &str) -> io::Result<()> {
    match writeln!(io::stdout(), "{text}") {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        result => result,
    }
}

/// The network of a file, for a horizon; the defaults without one.
fn network(path: Option<&Path>, horizon: usize) -> anyhow::Result<NetworkConfig> {
    let Some(path) = path else { return Ok(NetworkConfig::default()) };
    let network: NetworkConfig = read_toml(path, "configuration of a network")?;
    network.check(horizon).with_context(|| path.display().to_string())?;
    Ok(network)
}

/// Reads a TOML file; `what` names what it has to be.
fn read_toml<T: DeserializeOwned>(path: &Path, what: &str) -> anyhow::Result<T> {
    let text = fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))?;
    toml::from_str(&text).with_context(|| format!("{} is no {what}", path.display()))
}

/// A CSV field, in quotes where it must be.
fn quoted(field: &str) -> String {
    if field.contains([',', '"', '\n', '\r']) {
        format!("\"{}\"", field.replace('"', "\"\""))
    } else {
        field.to_owned()
    }
}

/// What each series of a file is, by the names of covariates; empty when there are none.
///
/// # Errors
/// For a name that the file does not have, or that is given twice.
fn roles(series: &[String], known: &[String], past: &[String]) -> anyhow::Result<Vec<Role>> {
    if known.is_empty() && past.is_empty() {
        return Ok(vec![]);
    }
    let mut roles = vec![Role::Target; series.len()];
    let given = known.iter().map(|name| (name, Role::Known, "known"));
    for (name, role, flag) in given.chain(past.iter().map(|name| (name, Role::Past, "past"))) {
        let position = series.iter().position(|series| series == name);
        let position = position
            .with_context(|| format!("--{flag}: there is no series `{name}`; the file has {}", series.join(", ")))?;
        anyhow::ensure!(roles[position] == Role::Target, "--{flag}: the role of series `{name}` is given twice");
        roles[position] = role;
    }
    Ok(roles)
}

/// The name of the panel that a file holds: that of the file, up to its first dot.
fn panel_name(path: &Path) -> String {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    name.split('.').next().unwrap_or_default().to_owned()
}

/// Opens the database of a command and brings its schema up to date.
///
/// Await it on the main thread: see [`crate::postgres::PrivatePostgres::start_or_attach`].
async fn open(config: &DatabaseConfig) -> anyhow::Result<Database> {
    let url = config.database_url.as_ref().map(crate::config::DatabaseUrl::expose);
    let role = config.reader.role(config.postgres_listen.is_some());
    let listen = config.postgres_listen.zip(role.clone()).map(|(address, role)| Listen { address, role });
    let database =
        Database::open(url, &config.data_dir, listen, &config.limits()).await.context("opening the database")?;
    database.migrate().await.context("bringing the schema up to date")?;
    if let Some(role) = role {
        make_reader(config, &database, &role).await?;
    }
    Ok(database)
}

/// Makes the role that dashboards read with, and says how they connect.
async fn make_reader(config: &DatabaseConfig, database: &Database, role: &RoleName) -> anyhow::Result<()> {
    let (password, origin) = match (config.reader.given_password()?, config.postgres_listen) {
        (Some(password), _) => (Some(password), "the password that was given".to_owned()),
        // By TCP nobody gets in without one.
        (None, Some(_)) => {
            let (password, path) = generated_password(&config.data_dir)?;
            (Some(password), format!("the password in {}", path.display()))
        }
        (None, None) => (None, "the password that the role has, if any".to_owned()),
    };
    db::reader::ensure(database.pool(), role.as_str(), password.as_ref().map(Secret::expose))
        .await
        .context("making the reader role")?;
    let place = config.postgres_listen.map_or_else(|| "the database".to_owned(), |address| address.to_string());
    telemetry::note(format_args!("dashboards may read {place} as `{role}`, with {origin}"));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn covariates_are_named_and_the_rest_are_targets() {
        let series = ["a", "b", "c"].map(str::to_owned);
        let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        let found = roles(&series, &names(&["c"]), &names(&["a"])).expect("names of the file");
        assert_eq!(found, [Role::Past, Role::Target, Role::Known]);
        assert!(roles(&series, &[], &[]).expect("no names").is_empty());
        let unknown = roles(&series, &names(&["d"]), &[]).expect_err("no such series").to_string();
        assert_eq!(unknown, "--known: there is no series `d`; the file has a, b, c");
        let twice = roles(&series, &names(&["a"]), &names(&["a"])).expect_err("given twice").to_string();
        assert_eq!(twice, "--past: the role of series `a` is given twice");
    }
}
