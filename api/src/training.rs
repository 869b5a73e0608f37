//! Training a model of a stored panel, and registering it.

use std::borrow::Cow;
use std::ops::ControlFlow;

use anyhow::Context;
use chrono::{DateTime, Utc};
use forecast::{Budget, Device, Fitted, History, Means, Progress, Resumed, TrainConfig, backtest, fit_with};
use ingest::FoundHolidays;
use serde_json::json;
use sqlx::{PgConnection, PgPool};
use uuid::Uuid;

use crate::Error;
use crate::artefacts::Artefacts;
use crate::blocking;
use crate::companions::{Companion, Companions};
use crate::curves::{self, Curves};
use crate::db::{self, DEFAULT_TENANT, model::NewModel, panel::Panel, panel_version::PanelVersion};
use crate::drift::profile::Profile;
use crate::forecaster::{Grid, known_panel};
use crate::training_state::StoredState;
use crate::warm_start::{Origin, WarmStart};

/// Most minutes that anybody may ask for: a day.
pub const MINUTES_MAX: f64 = 1440.0;

/// Most optimiser steps that anybody may ask for.
pub const STEPS_MAX: usize = 1_000_000;

/// How long training may take: so many steps, or else so many minutes.
#[must_use]
pub fn budget(steps: Option<usize>, minutes: f64) -> Budget {
    steps.map_or(Budget::Seconds(minutes * 60.0), Budget::Steps)
}

/// A stored panel as it was known at some instant.
pub struct TrainingData {
    /// The panel.
    pub panel: Panel,
    /// Its newest version: the series that are modelled, in order.
    pub panel_version: PanelVersion,
    /// The values on the grid.
    pub values: ingest::Panel,
    /// The instant.
    pub as_of: DateTime<Utc>,
    /// The holidays that its days are told by, where values showed them.
    pub found_holidays: Option<FoundHolidays>,
}

impl TrainingData {
    /// Where the panel declares no holidays, tells its days by those that its first rows show. It takes up to a second, on a thread for
    /// such work.
    ///
    /// # Errors
    /// [`Error::Internal`] when that thread fails.
    pub async fn find_holidays(mut self, n_rows: usize) -> Result<Self, Error> {
        blocking::run("finding holidays", move || {
            self.found_holidays = self.values.find_holidays(n_rows);
            self
        })
        .await
    }
}

/// Reads what was known of a panel at an instant.
///
/// # Errors
/// When the panel is unknown, nothing of it was known, or the database fails.
pub async fn read(pool: &PgPool, name: &str, as_of: DateTime<Utc>) -> anyhow::Result<TrainingData> {
    let panel = db::panel::get(pool, DEFAULT_TENANT, name)
        .await?
        .with_context(|| format!("there is no panel `{name}`; load one with `plumecast load`"))?;
    read_latest(pool, &panel, as_of).await
}

/// Reads what was known at an instant of the series of a panel's newest version.
///
/// # Errors
/// When it has none, nothing of them was known, or the database fails.
pub async fn read_latest(pool: &PgPool, panel: &Panel, as_of: DateTime<Utc>) -> anyhow::Result<TrainingData> {
    let panel_version = db::panel_version::latest(pool, DEFAULT_TENANT, panel.panel_id)
        .await?
        .with_context(|| format!("panel `{}` has no series", panel.name))?;
    read_version(pool, panel, &panel_version, as_of).await
}

/// Reads what was known at an instant of the series of a panel version, and at every one before it.
///
/// # Errors
/// When nothing of it was known, or the database fails.
pub async fn read_version(
    pool: &PgPool,
    panel: &Panel,
    panel_version: &PanelVersion,
    as_of: DateTime<Utc>,
) -> anyhow::Result<TrainingData> {
    let panel_version_id = panel_version.panel_version_id;
    let series = db::panel_version::series(pool, DEFAULT_TENANT, panel_version_id).await?;
    let span = db::observation::span(pool, DEFAULT_TENANT, panel_version_id, as_of)
        .await?
        .with_context(|| format!("nothing of panel `{}` is known as of {as_of}", panel.name))?;
    let grid = Grid::of(panel)?;
    let valid_times = span.first_valid_time..grid.advance(span.last_valid_time, 1);
    let observations =
        db::observation::versions_as_of(pool, DEFAULT_TENANT, panel_version_id, as_of, valid_times).await?;
    let values = known_panel(panel, grid, &series, &observations)?;
    Ok(TrainingData { panel: panel.clone(), panel_version: panel_version.clone(), values, as_of, found_holidays: None })
}

/// Which rows a model is trained on, and how it is tested.
#[derive(Clone, Copy, Debug)]
pub struct TestWindows {
    /// Windows at the end of the data that are kept out of training and scored; 0 trains on everything.
    pub n_windows: usize,
    /// How forecasts of the test are sampled.
    pub sample: forecast::SampleConfig,
}

/// A model that was trained, with its scores on the windows that were kept out.
pub struct Trained {
    /// The model and the record of its training.
    pub fitted: Fitted,
    /// A row for each forecaster, ours first; empty without test windows.
    pub scores: Vec<backtest::BacktestRow>,
    /// Rows that were trained on.
    pub n_train: usize,
    /// How the losses moved.
    pub curves: Curves,
    /// The model whose weights it was to begin with.
    pub origin: Option<Origin>,
    /// The panels that its network learned from too.
    pub companions: Vec<Companion>,
    /// Names the training, whose state is kept until the model is registered.
    pub fingerprint: String,
}

impl Trained {
    /// What is to be said of how training began, a line for each: where it went on, and what became of a warm start.
    #[must_use]
    pub fn beginning_told(&self) -> Vec<String> {
        let resumed = self.fitted.report.resumed.as_ref();
        let resumed = resumed.map(|Resumed { stage, step }| format!("went on from step {step} of `{stage}`"));
        resumed.into_iter().chain(self.start_told()).collect()
    }
}

/// What a network learns from besides its panel.
#[derive(Debug, Default)]
pub struct Sources {
    /// The model whose weights it begins with.
    pub from: Option<WarmStart>,
    /// Other panels.
    pub companions: Companions,
}

/// Trains on all rows but those of the test windows, from the weights of a model or from nothing, beside companions, and
/// scores these. The state is kept among the artefacts from time to time, so that the same training goes on when it was cut off.
///
/// Takes as long as the budget says: not for an async thread.
///
/// # Errors
/// Those of [`fit_with`] and [`backtest::score_windows`].
pub fn train(
    history: &History,
    config: &TrainConfig,
    sources: &Sources,
    test: &TestWindows,
    artefacts: &Artefacts,
    device: &Device,
    progress: &mut dyn FnMut(&Progress) -> ControlFlow<()>,
) -> Result<Trained, forecast::Error> {
    let mut curves = Curves::start();
    let mut progress = |state: &Progress| {
        curves.record(state);
        progress(state)
    };
    let origin = sources.from.as_ref().map(|from| from.origin.clone());
    let windows = backtest::BacktestConfig { horizon: config.horizon, n_windows: test.n_windows, sample: test.sample };
    let n_train = if test.n_windows == 0 { history.values.n_steps() } else { windows.n_train(history)? };
    let known = if test.n_windows == 0 { Cow::Borrowed(history) } else { Cow::Owned(history.rows(0..n_train)) };
    let mut memory = StoredState::new(artefacts);
    let Sources { from, companions } = sources;
    let start = from.as_ref().map(WarmStart::start);
    let means = Means { start, memory: Some(&mut memory), companions: &companions.histories };
    let fitted = fit_with(&known, config, means, device, &mut progress)?;
    let scores = if test.n_windows == 0 { vec![] } else { backtest::score_windows(history, &windows, &fitted)?.rows };
    let companions = companions.of.clone();
    Ok(Trained { fitted, scores, n_train, curves, origin, companions, fingerprint: memory.fingerprint })
}

/// Stores a trained model in a transaction of the caller's: checkpoint and training curves in a folder of its own, the snapshot
/// beside them, a row in the database. Where that is not committed, the next call removes the files.
///
/// # Errors
/// When a file cannot be written or the database fails.
pub async fn register(
    connection: &mut PgConnection,
    pool: &PgPool,
    artefacts: &Artefacts,
    data: &TrainingData,
    config: &TrainConfig,
    trained: &Trained,
) -> anyhow::Result<db::model::Model> {
    artefacts.sweep(pool).await?;
    let seen = data.values.rows(0..trained.n_train);
    let (inputs, end, known_since) = (Profile::of(&seen, config.horizon), seen.end(), seen.known_since());
    let folder = Uuid::now_v7().to_string();
    db::artefact_folder::note(connection, pool, DEFAULT_TENANT, &folder).await?;
    let written = blocking::run("writing a model", {
        let (artefacts, model, folder) = (artefacts.clone(), trained.fitted.model.clone(), folder.clone());
        let curves = trained.curves.lines().context("writing the training curves")?;
        move || {
            let snapshot = ingest::snapshot::of(&seen).context("writing the snapshot")?;
            let snapshot_digest = snapshot.digest.clone();
            artefacts.put_snapshot(snapshot).context("writing the snapshot")?;
            let others = vec![(curves::FILE_NAME, curves)];
            let (digest, n_bytes) = artefacts.put_model(&folder, &model, others).context("writing the checkpoint")?;
            anyhow::Ok((snapshot_digest, digest, n_bytes))
        }
    });
    let (snapshot_digest, digest, n_bytes) = written.await??;
    let budget = match config.budget {
        Budget::Steps(steps) => json!({ "steps": steps }),
        Budget::Seconds(seconds) => json!({ "seconds": seconds }),
    };
    // What was kept out of training was known to nobody who trained, but corrections of the rest may have come later.
    let data_cutoff = match trained.n_train < data.values.n_steps() {
        true => known_since.map_or(end, |known_since| known_since.max(end)),
        false => data.as_of,
    };
    let new = NewModel {
        panel_version_id: data.panel_version.panel_version_id,
        config: &json!({
            "horizon": config.horizon, "budget": budget, "seed": config.seed, "network": config.network,
            "warm_start": trained.origin_used(), "companions": trained.companions,
            "holidays": data.values.config().holidays,
        }),
        metrics: &json!({
            "training": trained.fitted.report, "backtest": trained.scores, "inputs": inputs,
            "found_holidays": data.found_holidays,
            // Rows of covariates alone may lie ahead.
            "trained_until": end.min(data_cutoff),
        }),
        digest: &digest,
        snapshot_digest: &snapshot_digest,
        artefact_path: &folder,
        artefact_bytes: Some(i64::try_from(n_bytes).unwrap_or(i64::MAX)),
        data_cutoff,
    };
    let model = db::model::insert(&mut *connection, DEFAULT_TENANT, &new).await?;
    db::artefact_folder::forget(connection, DEFAULT_TENANT, &folder).await?;
    // Where this is not committed, the next attempt begins anew.
    let (artefacts, fingerprint) = (artefacts.clone(), trained.fingerprint.clone());
    let removed = blocking::run("removing a state", move || artefacts.remove_training(&fingerprint)).await?;
    removed.unwrap_or_else(|error| tracing::warn!("cannot remove the state of a training that has ended: {error}"));
    Ok(model)
}
