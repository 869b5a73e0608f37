//! Warm starts: training that begins with the weights of a registered model, and what these weights have learned from.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use forecast::{Device, Start};
use serde::{Deserialize, Serialize};
use sqlx::PgPool;

use crate::Error;
use crate::artefacts::Artefacts;
use crate::companions::Companion;
use crate::db::model::Model;
use crate::registry;
use crate::training::{Trained, TrainingData};

/// The word for the model that serves a panel.
const CHAMPION: &str = "champion";

/// Which weights a network began with, as it is kept with its model.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Origin {
    /// The panel of the model.
    pub panel: String,
    /// Its version.
    pub version: i32,
    /// End of the last interval that its weights, and those that they began with, have learned from, by the identifier of the
    /// panel.
    pub learned_until: BTreeMap<i32, DateTime<Utc>>,
}

impl Origin {
    /// What is kept with a model that did not begin with nothing.
    fn of(model: &Model) -> Option<Self> {
        Self::deserialize(&model.config["warm_start"]).ok()
    }
}

/// A model whose weights training begins with.
#[derive(Debug)]
pub struct WarmStart {
    /// Where it comes from.
    pub origin: Origin,
    model: forecast::Model,
    n_rows_seen: usize,
}

impl WarmStart {
    /// Loads the champion of a panel, or a version, for a training on some data: `champion`, `3`, or with another panel than that of
    /// the data `berlin/3`.
    ///
    /// Of another panel's model, nothing of the data counts as seen but what it learned from as a companion.
    ///
    /// # Errors
    /// [`Error::UnknownPanel`], [`Error::UnknownModel`], [`Error::NoModel`], [`Error::BrokenModel`], [`Error::Database`].
    pub async fn load(
        pool: &PgPool,
        artefacts: &Artefacts,
        device: &Device,
        data: &TrainingData,
        from: &str,
    ) -> Result<Self, Error> {
        let (panel, version) = from.rsplit_once('/').unwrap_or((&data.panel.name, from));
        let (panel, row) = if version == CHAMPION {
            let panel = registry::find_panel(pool, panel).await?;
            let champion = registry::champion(pool, &panel).await?;
            (panel, champion)
        } else {
            registry::find(pool, panel, version).await?
        };
        let model = artefacts.load(&row, device).await?;
        Ok(Self::new(&panel.name, &row, model, data))
    }

    /// A model that is loaded, for a training on some data.
    #[must_use]
    pub fn new(panel: &str, row: &Model, model: forecast::Model, data: &TrainingData) -> Self {
        let mut learned_until = Origin::of(row).map_or_else(BTreeMap::new, |origin| origin.learned_until);
        let own = row.trained_until().unwrap_or(row.data_cutoff);
        let companions = Companion::of(row).into_iter().map(|companion| (companion.panel_id, companion.learned_until));
        for (panel_id, until) in companions.chain([(row.panel_id, own)]) {
            learned_until.entry(panel_id).and_modify(|earlier| *earlier = until.max(*earlier)).or_insert(until);
        }
        let seen = learned_until.get(&data.panel.panel_id).map(|&until| data.values.issue_row(until));
        let n_rows_seen = seen.and_then(|row| usize::try_from(row).ok()).unwrap_or(0);
        let origin = Origin { panel: panel.to_owned(), version: row.version, learned_until };
        Self { origin, model, n_rows_seen }
    }

    /// The weights, and how much of the data they know.
    #[must_use]
    pub fn start(&self) -> Start<'_> {
        Start { model: &self.model, n_rows_seen: self.n_rows_seen }
    }
}

impl Trained {
    /// What became of a warm start that was asked for, in words; `None` where none was.
    #[must_use]
    pub fn start_told(&self) -> Option<String> {
        let Origin { panel, version, .. } = self.origin.as_ref()?;
        Some(match self.fitted.report.warm_start.as_ref()? {
            forecast::WarmStart::Weights { n_origins } => {
                format!(
                    "began with the weights of version {version} of panel `{panel}`, chosen by {n_origins} origins after it"
                )
            }
            forecast::WarmStart::Nothing { reason } => {
                format!("began with nothing, not with version {version} of panel `{panel}`: {reason}")
            }
        })
    }

    /// The model whose weights the network did begin with.
    pub(crate) fn origin_used(&self) -> Option<&Origin> {
        let is_used = matches!(self.fitted.report.warm_start, Some(forecast::WarmStart::Weights { .. }));
        self.origin.as_ref().filter(|_| is_used)
    }
}

/// Whether a text can name a model to begin with.
#[must_use]
pub fn is_name(from: &str) -> bool {
    let version = from.rsplit_once('/').map_or(from, |(_, version)| version);
    version == CHAMPION || version.parse::<i32>().is_ok_and(|version| version > 0)
}
