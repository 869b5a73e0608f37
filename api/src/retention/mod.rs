//! Retention: what is older than a policy says goes.
//!
//! Ages count from `now`; those of observations from the newest one of their panel, so that a panel at rest keeps its last
//! ones. Forecasts go by the month in which they were issued and observations by the year, at the earliest when all of it is
//! old, and those of which the last interval is not old yet are kept: then partitions, which are months and years, are
//! dropped whole. What is old in a partition that holds something else is deleted, some forecasts at a time.
//!
//! What is referred to by something that is kept is kept: the row of a forecast while any part of it is there, a model
//! while forecasts of it are, the model that a roll-back goes to, the last job of a schedule.
//!
//! Every step is one transaction and follows from what is stored. So a run that was killed is made good by the next one, and
//! doing it twice changes nothing. Files are removed before the rows that name them are gone for good: a kill in between
//! leaves a row that goes next time. What others use at the moment stays until the next run; the rest goes.

mod export;
mod policy;

use std::ops::ControlFlow;
use std::path::{Component, Path, PathBuf};

use chrono::{DateTime, Utc};
use serde::Serialize;
use sqlx::{PgConnection, PgPool, Postgres, Transaction};

pub use self::policy::{Cutoffs, Days, Forever, Keep, RetentionPolicy};
use crate::artefacts::Artefacts;
use crate::db::partition::Partitioned;
use crate::db::retention::{self as store, Partition, Rules, export::Selection, records};
use crate::db::{self, DEFAULT_TENANT};
use crate::registry;
use crate::{Error, blocking};

/// Forecasts whose rows are deleted in one transaction.
const N_FORECASTS_TOGETHER: i64 = 50;

/// Observations, jobs or loads that are.
const N_ROWS_TOGETHER: i64 = 20_000;

/// Panels that are looked up at a time.
const N_PANELS_TOGETHER: i64 = 1000;

/// What has gone, or (of a dry run) what would go.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Retained {
    /// Forecasts that lose their trajectories.
    pub n_trajectories: i64,
    /// Forecasts that lose quantiles and means.
    pub n_forecasts: i64,
    /// Forecasts that go with their scores.
    pub n_scores: i64,
    /// Observations.
    pub n_observations: i64,
    /// Models.
    pub n_models: i64,
    /// Jobs.
    pub n_jobs: i64,
    /// Records of loads.
    pub n_loads: i64,
    /// Partitions that are dropped, with what is in them.
    pub partitions: Vec<String>,
    /// Bytes that they took on disk.
    pub partition_bytes: i64,
    /// Files that were written before, below the data folder.
    pub files: Vec<String>,
    /// Partitions, tables and models that others used for too long: what is old in them goes next time.
    pub busy: Vec<String>,
}

/// What a run needs to know.
#[derive(Clone, Copy, Debug)]
pub struct Retention<'a> {
    /// Connections to Postgres; it uses two at a time.
    pub pool: &'a PgPool,
    /// Folder below which rejected rows and exports are.
    pub data_dir: &'a Path,
    /// Files of models.
    pub artefacts: &'a Artefacts,
    /// How long what is kept.
    pub policy: &'a RetentionPolicy,
    /// From when ages count.
    pub now: DateTime<Utc>,
    /// Whether to say what would go, and change nothing.
    pub is_dry: bool,
}

/// The rules of all panels, by kind.
struct AllRules {
    trajectory: Rules,
    forecast: Rules,
    score: Rules,
    observation: Rules,
    model: Rules,
    job: Rules,
    load: Rules,
}

impl Retention<'_> {
    /// Removes what is old. `tell` hears what is done, and ends the run early between two steps.
    ///
    /// # Errors
    /// - [`Error::InvalidBody`] with what is wrong with the policy, [`Error::UnknownPanel`] for an exception
    /// - [`Error::Database`] when the database fails, or another run takes long
    /// - [`Error::Internal`] when a file cannot be written: then what it was to hold is not removed
    pub async fn run(&self, mut tell: impl FnMut(&str) -> ControlFlow<()>) -> Result<Retained, Error> {
        let errors = self.policy.violations();
        if !errors.is_empty() {
            return Err(Error::InvalidBody { errors });
        }
        // Ends with this transaction, however it ends.
        let mut guard = self.pool.begin().await?;
        store::lock(&mut guard).await?;
        let rules = self.rules().await?;
        let mut retained = Retained::default();
        let done = self.steps(&rules, &mut retained, &mut tell).await;
        guard.rollback().await?;
        done.map(|_| retained)
    }

    async fn steps(
        &self,
        rules: &AllRules,
        retained: &mut Retained,
        tell: &mut impl FnMut(&str) -> ControlFlow<()>,
    ) -> Result<ControlFlow<()>, Error> {
        for (table, rules) in [
            (Partitioned::Trajectory, &rules.trajectory),
            (Partitioned::ForecastValue, &rules.forecast),
            (Partitioned::Score, &rules.score),
            (Partitioned::Observation, &rules.observation),
        ] {
            if tell(table.name()).is_break() {
                return Ok(ControlFlow::Break(()));
            }
            let n_before = self.n_old(table, rules).await?;
            let n_busy = retained.busy.len();
            let mut done = self.drop_partitions(table, rules, retained, tell).await?;
            // What is in a partition that others use is left to be dropped with it.
            if done.is_continue() && !self.is_dry && retained.busy.len() == n_busy {
                done = self.delete(table, rules, retained, tell).await?;
            }
            let n_left = if self.is_dry { 0 } else { self.n_old(table, rules).await? };
            *(match table {
                Partitioned::Trajectory => &mut retained.n_trajectories,
                Partitioned::ForecastValue => &mut retained.n_forecasts,
                Partitioned::Score => &mut retained.n_scores,
                Partitioned::Observation => &mut retained.n_observations,
            }) = (n_before - n_left).max(0);
            if done.is_break() {
                return Ok(done);
            }
        }
        self.records(rules, retained, tell).await
    }

    /// How much of a table is old: forecasts, or observations.
    async fn n_old(&self, table: Partitioned, rules: &Rules) -> Result<i64, Error> {
        Ok(match table {
            Partitioned::Observation => records::n_old_observations(self.pool, DEFAULT_TENANT, rules).await?,
            _ => store::n_old(self.pool, DEFAULT_TENANT, table, rules).await?,
        })
    }

    /// The rules of every panel that there is.
    async fn rules(&self) -> Result<AllRules, Error> {
        let mut panels: Vec<db::panel::Panel> = vec![];
        loop {
            let after = panels.last().map(|panel| panel.name.clone());
            let page = db::panel::list(self.pool, DEFAULT_TENANT, after.as_deref(), N_PANELS_TOGETHER).await?;
            if page.is_empty() {
                break;
            }
            panels.extend(page);
        }
        if let Some(unknown) = self.policy.panels.keys().find(|name| panels.iter().all(|panel| panel.name != **name)) {
            return Err(Error::UnknownPanel { panel: unknown.clone() });
        }
        let newest = records::newest_valid_times(self.pool, DEFAULT_TENANT).await?;
        let rules = |cutoff: &dyn Fn(&db::panel::Panel) -> Option<DateTime<Utc>>| Rules {
            panel_ids: panels.iter().map(|panel| panel.panel_id).collect(),
            cutoffs: panels.iter().map(cutoff).collect(),
        };
        let cutoffs = |panel: &db::panel::Panel, now| self.policy.cutoffs(Some(&panel.name), now);
        Ok(AllRules {
            trajectory: rules(&|panel| cutoffs(panel, self.now).trajectory),
            forecast: rules(&|panel| cutoffs(panel, self.now).forecast),
            score: rules(&|panel| cutoffs(panel, self.now).score),
            observation: rules(&|panel| {
                let newest = newest.get(&panel.panel_id).copied().unwrap_or(self.now);
                cutoffs(panel, newest.min(self.now)).observation
            }),
            model: rules(&|panel| cutoffs(panel, self.now).model),
            job: rules(&|panel| cutoffs(panel, self.now).job),
            load: rules(&|panel| cutoffs(panel, self.now).load),
        })
    }

    /// Drops the partitions that hold nothing but what is old, and notes those that others use.
    async fn drop_partitions(
        &self,
        table: Partitioned,
        rules: &Rules,
        retained: &mut Retained,
        tell: &mut impl FnMut(&str) -> ControlFlow<()>,
    ) -> Result<ControlFlow<()>, Error> {
        // A partition that begins after every cutoff is kept, also where it is empty: somebody made it for what comes.
        let newest = rules.cutoffs.iter().flatten().max();
        let partitions = store::partitions(self.pool, table).await?;
        for partition in partitions.iter().filter(|one| newest.is_some_and(|newest| one.upper_bound <= *newest)) {
            match self.drop_partition(table, rules, partition, retained).await {
                Err(Error::Database(error)) if error.is_conflict() => retained.busy.push(partition.name.clone()),
                dropped => dropped?,
            }
            if tell(table.name()).is_break() {
                return Ok(ControlFlow::Break(()));
            }
        }
        Ok(ControlFlow::Continue(()))
    }

    /// Drops a partition, unless it holds something that is kept.
    async fn drop_partition(
        &self,
        table: Partitioned,
        rules: &Rules,
        partition: &Partition,
        retained: &mut Retained,
    ) -> Result<(), Error> {
        let mut transaction = self.pool.begin().await?;
        if !self.is_dry {
            store::close(&mut transaction, partition).await?;
        }
        if store::holds_kept(&mut *transaction, DEFAULT_TENANT, table, partition, rules).await? {
            return Ok(());
        }
        if !self.is_dry {
            let selection = Selection::of_partition(partition);
            self.export(&mut transaction, table, &export::Source::Selected(&selection), retained).await?;
            store::drop_partition(&mut transaction, table, partition).await?;
            transaction.commit().await?;
        }
        retained.partitions.push(partition.name.clone());
        retained.partition_bytes += partition.bytes;
        Ok(())
    }

    /// Deletes what is old in partitions that hold something else, until others hold on to it.
    async fn delete(
        &self,
        table: Partitioned,
        rules: &Rules,
        retained: &mut Retained,
        tell: &mut impl FnMut(&str) -> ControlFlow<()>,
    ) -> Result<ControlFlow<()>, Error> {
        loop {
            match self.delete_some(table, rules, retained).await {
                Err(Error::Database(error)) if error.is_conflict() => {
                    retained.busy.push(table.name().to_owned());
                    return Ok(ControlFlow::Continue(()));
                }
                Ok(false) => return Ok(ControlFlow::Continue(())),
                deleted => deleted?,
            };
            if tell(table.name()).is_break() {
                return Ok(ControlFlow::Break(()));
            }
        }
    }

    /// Deletes some of what is old in partitions that hold something else; tells whether there was any.
    async fn delete_some(&self, table: Partitioned, rules: &Rules, retained: &mut Retained) -> Result<bool, Error> {
        let mut transaction = self.begin().await?;
        let found = match table {
            Partitioned::Observation => {
                let source = export::Source::OldObservations { rules, limit: N_ROWS_TOGETHER };
                self.export(&mut transaction, table, &source, retained).await?;
                let n = records::delete_observations(&mut transaction, DEFAULT_TENANT, rules, N_ROWS_TOGETHER).await?;
                n > 0
            }
            _ => {
                let old = store::old(&mut *transaction, DEFAULT_TENANT, table, rules, N_FORECASTS_TOGETHER).await?;
                if old.is_empty() {
                    return Ok(false);
                }
                let selection = Selection::of_forecasts(table, &old);
                self.export(&mut transaction, table, &export::Source::Selected(&selection), retained).await?;
                store::delete(&mut transaction, DEFAULT_TENANT, table, &old).await?;
                true
            }
        };
        transaction.commit().await?;
        Ok(found)
    }

    /// A transaction that deletes just what it has exported, whatever is stored meanwhile.
    async fn begin(&self) -> Result<Transaction<'static, Postgres>, Error> {
        let mut transaction = self.pool.begin_with("begin isolation level repeatable read").await?;
        store::wait_briefly(&mut transaction).await?;
        Ok(transaction)
    }

    /// Writes a file with rows that are about to go, if the policy wants one.
    async fn export(
        &self,
        connection: &mut PgConnection,
        table: Partitioned,
        source: &export::Source<'_>,
        retained: &mut Retained,
    ) -> Result<(), Error> {
        if !self.policy.export {
            return Ok(());
        }
        let folder = PathBuf::from("exports").join(table.name());
        if let Some(path) = export::export(connection, &self.data_dir.join(&folder), table, source).await? {
            let name = folder.join(path.file_name().unwrap_or_default());
            retained.files.push(name.to_string_lossy().into_owned());
        }
        Ok(())
    }

    /// Models, jobs and loads.
    async fn records(
        &self,
        rules: &AllRules,
        retained: &mut Retained,
        tell: &mut impl FnMut(&str) -> ControlFlow<()>,
    ) -> Result<ControlFlow<()>, Error> {
        let other = self.policy.cutoffs(None, self.now);
        let models = records::old_models(self.pool, DEFAULT_TENANT, &rules.model, &rules.score).await?;
        if self.is_dry {
            retained.n_models = i64::try_from(models.len()).unwrap_or(i64::MAX);
            retained.n_jobs = records::n_old_jobs(self.pool, DEFAULT_TENANT, &rules.job, other.job).await?;
            retained.n_loads = records::n_old_loads(self.pool, DEFAULT_TENANT, &rules.load, other.load).await?;
            return Ok(ControlFlow::Continue(()));
        }
        for model_id in models {
            if tell("model").is_break() {
                return Ok(ControlFlow::Break(()));
            }
            let Some(model) = db::model::get(self.pool, DEFAULT_TENANT, model_id).await? else { continue };
            let panel = db::panel::get_by_id(self.pool, DEFAULT_TENANT, model.panel_id).await?;
            let Some(panel) = panel else { continue };
            match registry::delete(self.pool, self.artefacts, &panel, &model).await {
                Ok(()) => retained.n_models += 1,
                // It was promoted, or has made a forecast, just now.
                Err(Error::ChampionServes { .. } | Error::ModelInUse { .. } | Error::UnknownModel { .. }) => {}
                Err(Error::Database(error)) if error.is_transient() => {
                    retained.busy.push(format!("version {} of {}", model.version, panel.name));
                }
                Err(error) => return Err(error),
            }
        }
        loop {
            if tell("job").is_break() {
                return Ok(ControlFlow::Break(()));
            }
            let deleted =
                records::delete_jobs(self.pool, DEFAULT_TENANT, &rules.job, other.job, N_ROWS_TOGETHER).await?;
            retained.n_jobs += i64::try_from(deleted).unwrap_or(i64::MAX);
            if deleted == 0 {
                break;
            }
        }
        loop {
            if tell("load").is_break() {
                return Ok(ControlFlow::Break(()));
            }
            let n_deleted = self.delete_loads(&rules.load, other.load).await?;
            retained.n_loads += i64::try_from(n_deleted).unwrap_or(i64::MAX);
            if n_deleted == 0 {
                return Ok(ControlFlow::Continue(()));
            }
        }
    }

    /// Deletes some records of loads with the files that they name; tells how many.
    async fn delete_loads(&self, rules: &Rules, other: Option<DateTime<Utc>>) -> Result<usize, Error> {
        let mut transaction = self.pool.begin().await?;
        let deleted = records::delete_loads(&mut transaction, DEFAULT_TENANT, rules, other, N_ROWS_TOGETHER).await?;
        let n_deleted = deleted.len();
        // A path that leads elsewhere was not written by us.
        let is_below = |path: &PathBuf| path.components().all(|part| matches!(part, Component::Normal(_)));
        let files: Vec<PathBuf> = deleted.into_iter().flatten().map(PathBuf::from).filter(is_below).collect();
        let data_dir = self.data_dir.to_owned();
        blocking::run("removing rejected rows", move || {
            for file in files {
                match std::fs::remove_file(data_dir.join(&file)) {
                    Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                        tracing::warn!("cannot remove {}: {error}", file.display());
                    }
                    _ => {}
                }
            }
        })
        .await?;
        transaction.commit().await?;
        Ok(n_deleted)
    }
}
