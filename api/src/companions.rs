//! Companions: other panels that a network learns from beside its own.

use chrono::{DateTime, Utc};
use ingest::{Holidays, Panel};
use serde::{Deserialize, Serialize};
use sqlx::PgPool;

use crate::db::model::Model;
use crate::db::panel::Panel as Row;
use crate::problem::Violation;
use crate::training::{self, TrainingData};
use crate::{Error, registry};

/// A companion, as it is kept with a model.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Companion {
    /// Its name.
    pub panel: String,
    /// Its identifier.
    pub panel_id: i32,
    /// End of the last interval that was learned from.
    pub learned_until: DateTime<Utc>,
}

/// Companions, and what the network learns from them.
#[derive(Debug, Default)]
pub struct Companions {
    /// Which ones.
    pub of: Vec<Companion>,
    /// Their histories, in the same order.
    pub histories: Vec<forecast::History>,
}

impl Companion {
    /// Those of a model.
    #[must_use]
    pub fn of(model: &Model) -> Vec<Self> {
        Vec::deserialize(&model.config["companions"]).unwrap_or_default()
    }
}

impl Companions {
    /// Reads panels by their names, as they were known when the data were, up to the end of the data's first rows: nothing of them is
    /// learned that came after what is learned of the panel itself.
    ///
    /// # Errors
    /// - [`Error::UnknownPanel`]
    /// - [`Error::UnusableData`] for a panel of another frequency, or without anything by then
    /// - when the database fails
    pub async fn read(pool: &PgPool, names: &[String], data: &TrainingData, n_rows: usize) -> anyhow::Result<Self> {
        let mut panels = Vec::with_capacity(names.len());
        for name in names {
            panels.push(registry::find_panel(pool, name).await?);
        }
        Self::of_panels(pool, panels, data, n_rows).await
    }

    /// As [`Companions::read`], those of a model that are still there.
    ///
    /// # Errors
    /// As there.
    pub async fn again(pool: &PgPool, model: &Model, data: &TrainingData, n_rows: usize) -> anyhow::Result<Self> {
        let mut panels = Vec::new();
        for Companion { panel, .. } in Companion::of(model) {
            match registry::find_panel(pool, &panel).await {
                Ok(panel) => panels.push(panel),
                Err(Error::UnknownPanel { .. }) => {
                    tracing::warn!("panel `{panel}`, from which the champion learned too, is not there any more");
                }
                Err(error) => return Err(error.into()),
            }
        }
        Self::of_panels(pool, panels, data, n_rows).await
    }

    async fn of_panels(pool: &PgPool, panels: Vec<Row>, data: &TrainingData, n_rows: usize) -> anyhow::Result<Self> {
        let mut companions = Self::default();
        let until = data.values.valid_time(n_rows);
        for panel in panels {
            let known = training::read_latest(pool, &panel, data.as_of).await?;
            companions.histories.push(history_beside(&data.values, known.values, until)?);
            let Row { panel_id, name, .. } = panel;
            companions.of.push(Companion { panel: name, panel_id, learned_until: until });
        }
        Ok(companions)
    }
}

/// What a network may learn of a panel beside another one: the rows up to an instant, whose days are told by holidays where those of
/// the other are.
///
/// # Errors
/// [`Error::UnusableData`] when the frequencies differ, or there is nothing by then.
pub fn history_beside(own: &Panel, mut beside: Panel, until: DateTime<Utc>) -> anyhow::Result<forecast::History> {
    let unusable = |reason: String| Error::UnusableData { reason, errors: Vec::new() };
    let (name, frequency) = (beside.name().to_owned(), beside.frequency());
    if frequency != own.frequency() {
        let reason =
            format!("companion `{name}` has steps of {frequency}, panel `{}` of {}", own.name(), own.frequency());
        return Err(unusable(reason).into());
    }
    let is_told = |panel: &Panel| panel.config().holidays.is_some_and(|holidays| holidays != Holidays::NONE);
    match (is_told(own), is_told(&beside)) {
        (true, false) => beside.set_holidays(own.config().holidays),
        (false, true) => beside.set_holidays(None),
        _ => {}
    }
    let n_rows = usize::try_from(beside.issue_row(until)).unwrap_or(0).min(beside.n_steps());
    if n_rows == 0 {
        return Err(unusable(format!("nothing of companion `{name}` is before {until}")).into());
    }
    Ok(beside.rows(0..n_rows).history()?)
}

/// What is wrong with a list of companions of a panel.
#[must_use]
pub fn violation(panel: &str, names: &[String]) -> Option<Violation> {
    let mut seen = std::collections::BTreeSet::from([panel]);
    if names.len() > forecast::N_COMPANIONS_MAX {
        let message = format!("must be at most {}", forecast::N_COMPANIONS_MAX);
        return Some(Violation::at("/companions", "out-of-range", message));
    }
    let twice = names.iter().position(|name| !seen.insert(name))?;
    let message = "must be another panel than the one that is trained, and be named once";
    Some(Violation::at(format!("/companions/{twice}"), "invalid-value", message))
}
