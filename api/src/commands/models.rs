//! `plumecast models`: the models of a panel, and what becomes of them.

use std::fmt::Write;

use chrono::SecondsFormat;
use sqlx::PgPool;

use crate::config::DatabaseConfig;
use crate::db::{self, DEFAULT_TENANT, model::Model};
use crate::registry::{self, Artefacts};

/// Most models that are listed.
const N_LISTED_MAX: i64 = 1000;

/// List, promote, roll back, archive or delete the models of a panel.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// What to do.
    #[command(subcommand)]
    pub action: Action,
}

/// What to do with models.
#[derive(Debug, clap::Subcommand)]
pub enum Action {
    /// List the models of a panel, the newest first.
    List(PanelArgs),
    /// Make a model the champion; the one that serves is archived.
    Promote(ModelArgs),
    /// Put the model that the champion replaced in its place again.
    Rollback(PanelArgs),
    /// Set a model aside that does not serve.
    Archive(ModelArgs),
    /// Delete a model that does not serve and has made no stored forecast, with its files.
    Delete(ModelArgs),
}

/// A panel.
#[derive(Debug, clap::Args)]
pub struct PanelArgs {
    /// The panel.
    #[arg(long, value_name = "NAME")]
    pub panel: String,

    /// Where the data are.
    #[command(flatten)]
    pub database: DatabaseConfig,
}

/// A model of a panel.
#[derive(Debug, clap::Args)]
pub struct ModelArgs {
    /// Version of the model.
    #[arg(long, value_name = "N")]
    pub version: i32,

    /// Its panel, and where the data are.
    #[command(flatten)]
    pub panel: PanelArgs,
}

impl Action {
    fn panel(&self) -> &PanelArgs {
        match self {
            Self::List(panel) | Self::Rollback(panel) => panel,
            Self::Promote(model) | Self::Archive(model) | Self::Delete(model) => &model.panel,
        }
    }
}

/// Does it, and prints what came of it.
///
/// # Errors
/// When there is no such panel or model, it may not be done, or the database fails.
pub async fn run(args: &Args) -> anyhow::Result<()> {
    let PanelArgs { panel, database: config } = args.action.panel();
    let database = super::open(config).await?;
    let done = act(database.pool(), &Artefacts::new(&config.data_dir), panel, &args.action).await;
    database.close().await;
    Ok(super::say(&done?)?)
}

async fn act(pool: &PgPool, artefacts: &Artefacts, panel: &str, action: &Action) -> Result<String, crate::Error> {
    const REASON: &str = "by `plumecast models`";
    let find = async |args: &ModelArgs| registry::find(pool, panel, &args.version.to_string()).await;
    match action {
        Action::List(_) => {
            let panel = registry::find_panel(pool, panel).await?;
            let models = db::model::list(pool, DEFAULT_TENANT, panel.panel_id, None, N_LISTED_MAX).await?;
            Ok(table(&models))
        }
        Action::Promote(args) => {
            let (panel, model) = find(args).await?;
            let model = registry::promote(pool, artefacts, &panel, &model, &format!("promoted {REASON}")).await?;
            Ok(table(&[model]))
        }
        Action::Rollback(_) => {
            let panel = registry::find_panel(pool, panel).await?;
            Ok(table(&[registry::roll_back(pool, artefacts, &panel, None).await?]))
        }
        Action::Archive(args) => {
            let (panel, model) = find(args).await?;
            Ok(table(&[registry::archive(pool, &panel, &model, &format!("archived {REASON}")).await?]))
        }
        Action::Delete(args) => {
            let (panel, model) = find(args).await?;
            registry::delete(pool, artefacts, &panel, &model).await?;
            Ok(format!("version {} of panel `{}` is deleted", model.version, panel.name))
        }
    }
}

/// Models as text, a line each.
fn table(models: &[Model]) -> String {
    let mut text =
        format!("{:>7}  {:9}  {:>6}  {:20}  {:>10}  reason", "version", "stage", "parent", "data cutoff", "bytes");
    for model in models {
        let or_dash = |number: Option<String>| number.unwrap_or_else(|| "-".to_owned());
        // Writing to a string cannot fail.
        let _ = write!(
            text,
            "\n{:>7}  {:9}  {:>6}  {:20}  {:>10}  {}",
            model.version,
            model.stage,
            or_dash(model.parent_version.map(|version| version.to_string())),
            model.data_cutoff.to_rfc3339_opts(SecondsFormat::Secs, true),
            or_dash(model.artefact_bytes.map(|bytes| bytes.to_string())),
            model.reason.as_deref().unwrap_or_default(),
        );
    }
    text
}
