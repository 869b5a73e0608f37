//! The model that serves a panel, and what it needs to be asked.

use sqlx::PgPool;

use super::Grid;
use crate::{
    Error,
    artefacts::Checkpoint,
    db::{self, DEFAULT_TENANT, model::Model, panel::Panel, series::Series},
    predictor::Predictor,
    registry,
};

/// A panel with its champion.
pub(super) struct Serving {
    pub panel: Panel,
    pub model: Model,
    /// The series of the model, in its order.
    pub series: Vec<Series>,
    pub grid: Grid,
    pub checkpoint: Checkpoint,
}

/// What a model has learned, in steps.
#[derive(Clone, Copy)]
pub(super) struct Learned {
    pub context_length: usize,
    pub horizon: usize,
}

impl Serving {
    /// The champion of the panel of this name; no model is loaded.
    ///
    /// # Errors
    /// [`Error::UnknownPanel`], [`Error::NoModel`], [`Error::Database`].
    pub(super) async fn find(pool: &PgPool, panel: &str) -> Result<Self, Error> {
        let panel = registry::find_panel(pool, panel).await?;
        let model = registry::champion(pool, &panel).await?;
        let series = db::panel_version::series(pool, DEFAULT_TENANT, model.panel_version_id).await?;
        let (grid, checkpoint) = (Grid::of(&panel)?, Checkpoint::of(&model));
        let panel = model.as_learned(&panel);
        Ok(Self { panel, model, series, grid, checkpoint })
    }

    /// Loads the model. From then on the series have the roles that they had when it was trained: these count.
    ///
    /// # Errors
    /// [`Error::QueueFull`], [`Error::BrokenModel`].
    pub(super) async fn load(&mut self, predictor: &Predictor) -> Result<Learned, Error> {
        let checkpoint = self.checkpoint.clone();
        let (learned, roles) = predictor
            .run(move |models| {
                let model = models.get(&checkpoint)?;
                let learned = Learned { context_length: model.context_length(), horizon: model.horizon() };
                Ok((learned, model.roles().to_vec()))
            })
            .await?;
        self.series.iter_mut().zip(roles).for_each(|(series, role)| series.role = role.into());
        Ok(learned)
    }
}
