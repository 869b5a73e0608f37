//! What happens to registered models: promotion, roll-back, archiving, deletion. A row in the database says where a
//! model stands; the files that it needs are artefacts and are checked before it may serve.

use serde::Deserialize;
use serde_json::Value;
use sqlx::PgPool;

use crate::Error;
use crate::artefacts::Artefacts;
use crate::db::model::Model;
use crate::db::panel::Panel;
use crate::db::words::Stage;
use crate::db::{self, DEFAULT_TENANT};

/// The panel of a name.
///
/// # Errors
/// [`Error::UnknownPanel`].
pub async fn find_panel(pool: &PgPool, name: &str) -> Result<Panel, Error> {
    db::panel::get(pool, DEFAULT_TENANT, name).await?.ok_or_else(|| Error::UnknownPanel { panel: name.to_owned() })
}

/// A panel and its model of a version, given as text.
///
/// # Errors
/// [`Error::UnknownPanel`], [`Error::UnknownModel`].
pub async fn find(pool: &PgPool, panel: &str, version: &str) -> Result<(Panel, Model), Error> {
    let panel = find_panel(pool, panel).await?;
    let unknown = || Error::UnknownModel { panel: panel.name.clone(), version: version.to_owned() };
    let number = version.parse().map_err(|_| unknown())?;
    let model = db::model::get_by_version(pool, DEFAULT_TENANT, panel.panel_id, number).await?.ok_or_else(unknown)?;
    Ok((panel, model))
}

/// The champion of a panel.
///
/// # Errors
/// [`Error::NoModel`], [`Error::Database`].
pub async fn champion(pool: &PgPool, panel: &Panel) -> Result<Model, Error> {
    let champion = db::model::champion(pool, DEFAULT_TENANT, panel.panel_id).await?;
    champion.ok_or_else(|| Error::NoModel { panel: panel.name.clone() })
}

/// Makes a model the champion, once its files have been checked; gives it as it is then.
///
/// # Errors
/// [`Error::BrokenModel`], [`Error::Database`]; [`Error::UnknownModel`] when it has been deleted meanwhile.
pub async fn promote(
    pool: &PgPool,
    artefacts: &Artefacts,
    panel: &Panel,
    model: &Model,
    reason: &str,
) -> Result<Model, Error> {
    artefacts.load(model, &forecast::cpu()).await?;
    db::model::promote(pool, DEFAULT_TENANT, model.model_id, reason)
        .await
        .map_err(|error| named(error, panel, model))?;
    reread(pool, panel, model).await
}

/// Puts the model that the champion replaced in its place again; gives that model. With `from`, only when this version
/// serves.
///
/// # Errors
/// [`Error::NoModel`], [`Error::NoEarlierChampion`], [`Error::ChampionChanged`], [`Error::BrokenModel`],
/// [`Error::Database`].
pub async fn roll_back(pool: &PgPool, artefacts: &Artefacts, panel: &Panel, from: Option<i32>) -> Result<Model, Error> {
    let champion = champion(pool, panel).await?;
    if from.is_some_and(|version| version != champion.version) {
        return Err(Error::ChampionChanged { panel: panel.name.clone() });
    }
    let earlier = match champion.replaced_model_id {
        Some(model_id) => db::model::get(pool, DEFAULT_TENANT, model_id).await?,
        None => None,
    };
    let earlier = earlier.ok_or_else(|| Error::NoEarlierChampion { panel: panel.name.clone() })?;
    artefacts.load(&earlier, &forecast::cpu()).await?;
    db::model::roll_back(pool, DEFAULT_TENANT, &champion, &earlier)
        .await
        .map_err(|error| named(error, panel, &champion))?;
    reread(pool, panel, &earlier).await
}

/// Sets a model aside that does not serve.
///
/// # Errors
/// [`Error::ChampionServes`], [`Error::UnknownModel`], [`Error::Database`].
pub async fn archive(pool: &PgPool, panel: &Panel, model: &Model, reason: &str) -> Result<Model, Error> {
    let mut transaction = pool.begin().await?;
    db::model::set_aside(&mut transaction, DEFAULT_TENANT, model.model_id, Stage::Archived, Some(reason))
        .await
        .map_err(|error| named(error, panel, model))?;
    transaction.commit().await?;
    reread(pool, panel, model).await
}

/// Deletes a model that does not serve and has made no stored forecast, with its files and, unless another model
/// learned from it, its snapshot.
///
/// # Errors
/// [`Error::ChampionServes`], [`Error::ModelInUse`], [`Error::UnknownModel`], [`Error::Database`].
pub async fn delete(pool: &PgPool, artefacts: &Artefacts, panel: &Panel, model: &Model) -> Result<(), Error> {
    // Files go before the row is gone for good: whoever is stopped in between leaves a model to be deleted again, and no
    // files that nobody knows of.
    let mut transaction = pool.begin().await?;
    db::model::delete(&mut transaction, DEFAULT_TENANT, model.model_id)
        .await
        .map_err(|error| named(error, panel, model))?;
    artefacts.remove_model(&mut transaction, model).await?;
    Ok(transaction.commit().await?)
}

async fn reread(pool: &PgPool, panel: &Panel, model: &Model) -> Result<Model, Error> {
    let unknown = db::Error::UnknownModel { model_id: model.model_id };
    db::model::get(pool, DEFAULT_TENANT, model.model_id).await?.ok_or_else(|| named(unknown, panel, model))
}

/// The error with the names that people know.
fn named(error: db::Error, panel: &Panel, model: &Model) -> Error {
    let (panel, version) = (panel.name.clone(), model.version);
    match error {
        db::Error::UnknownModel { .. } => Error::UnknownModel { panel, version: version.to_string() },
        db::Error::ChampionServes { .. } => Error::ChampionServes { panel, version },
        db::Error::ChampionChanged { .. } => Error::ChampionChanged { panel },
        db::Error::ModelInUse { .. } => Error::ModelInUse { panel, version },
        other => other.into(),
    }
}

/// What a model's test windows gave.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TestScores {
    /// CRPS of the model.
    pub crps: f64,
    /// That of the seasonal naive forecast on the same windows.
    pub naive_crps: Option<f64>,
    /// Share of the truth inside the model's central 80 % intervals.
    pub coverage_80: f64,
}

impl TestScores {
    /// Reads the rows that are stored with a model under `backtest`; `None` where it was not tested.
    #[must_use]
    pub fn of(backtest: &Value) -> Option<Self> {
        #[derive(Deserialize)]
        struct Row {
            model: String,
            crps: f64,
            coverage_80: f64,
        }
        let rows = Vec::<Row>::deserialize(backtest).ok()?;
        let of = |model: &str| rows.iter().find(|row| row.model == model);
        let ours = of("plumecast")?;
        let naive_crps = of("seasonal_naive").map(|naive| naive.crps);
        Some(Self { crps: ours.crps, naive_crps, coverage_80: ours.coverage_80 })
    }

    /// One minus the CRPS over that of the seasonal naive forecast, where that made an error.
    #[must_use]
    pub fn skill(&self) -> Option<f64> {
        Some(1.0 - self.crps / self.naive_crps?).filter(|skill| skill.is_finite())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn skill_is_told_of_models_that_were_tested_beside_seasonal_naive() {
        let ours = json!({"model": "plumecast", "crps": 0.3, "coverage_80": 0.8});
        let naive = json!({"model": "seasonal_naive", "crps": 0.4, "coverage_80": 0.6});
        let skill = TestScores::of(&json!([ours, naive])).expect("it was tested").skill().expect("naive errs");
        assert!((skill - 0.25).abs() < 1e-12);
        for backtest in [json!([]), json!(null), json!([ours])] {
            assert_eq!(TestScores::of(&backtest).and_then(|scores| scores.skill()), None, "{backtest}");
        }
    }
}
