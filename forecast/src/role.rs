//! What each series of a panel is to a model: forecast, supplied, or looked at.

use serde::{Deserialize, Serialize};

use crate::{Error, Grid, Trajectories};

/// What a series is to a model.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// It is forecast.
    #[default]
    Target,
    /// A covariate whose future is supplied: a weather forecast, a price, a plan, a holiday.
    Known,
    /// A covariate of which only the past helps.
    Past,
}

/// Covariates of a model: their columns, lags and interactions must stay few enough to be estimated.
pub const N_COVARIATES_MAX: usize = 64;

/// The series of a panel, sorted by what they are to a model.
///
/// *Modelled* are targets and past covariates: one joint law. Known covariates are what it is conditioned on.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Roles {
    /// Of every series of the panel, in its order.
    pub all: Vec<Role>,
    /// The modelled series, as columns of the panel.
    pub modelled: Vec<usize>,
    /// The known covariates, as columns of the panel.
    pub known: Vec<usize>,
    /// The targets among the modelled series.
    pub targets: Vec<usize>,
    /// The past covariates among the modelled series.
    pub past: Vec<usize>,
}

impl Roles {
    /// Sorts the series; no roles at all make every series a target.
    ///
    /// # Errors
    /// [`Error::SeriesCount`] when there are not as many roles as series, [`Error::NoTarget`],
    /// [`Error::TooManyCovariates`].
    pub fn new(roles: &[Role], n_series: usize) -> Result<Self, Error> {
        let all = if roles.is_empty() { vec![Role::Target; n_series] } else { roles.to_vec() };
        if all.len() != n_series {
            return Err(Error::SeriesCount { given: all.len(), expected: n_series });
        }
        let of = |wanted: &dyn Fn(Role) -> bool| (0..n_series).filter(|&series| wanted(all[series])).collect();
        let modelled: Vec<usize> = of(&|role| role != Role::Known);
        let known: Vec<usize> = of(&|role| role == Role::Known);
        let of_modelled = |wanted: Role| {
            let positions = modelled.iter().enumerate().filter(|&(_, &series)| all[series] == wanted);
            positions.map(|(position, _)| position).collect::<Vec<_>>()
        };
        let (targets, past) = (of_modelled(Role::Target), of_modelled(Role::Past));
        if targets.is_empty() {
            return Err(Error::NoTarget);
        }
        let given = known.len() + past.len();
        if given > N_COVARIATES_MAX {
            return Err(Error::TooManyCovariates { given, limit: N_COVARIATES_MAX });
        }
        Ok(Self { all, modelled, known, targets, past })
    }

    /// Whether every series is a target.
    pub fn are_all_targets(&self) -> bool {
        self.targets.len() == self.all.len()
    }

    /// The targets, as columns of the panel.
    pub fn target_columns(&self) -> Vec<usize> {
        self.targets.iter().map(|&target| self.modelled[target]).collect()
    }

    /// Trajectories of the targets out of those of the modelled series.
    pub fn targets_of(&self, trajectories: Trajectories) -> Trajectories {
        if self.past.is_empty() { trajectories } else { trajectories.columns(&self.targets) }
    }

    /// An error about a modelled series as one about a column of the panel.
    pub fn in_panel(&self, error: Error) -> Error {
        match error {
            Error::BeyondHorizon { series, step, last } => {
                Error::BeyondHorizon { series: self.modelled[series], step, last }
            }
            Error::GapTooLong { series, step, length, limit } => {
                Error::GapTooLong { series: self.modelled[series], step, length, limit }
            }
            other => other,
        }
    }
}

impl Grid {
    /// Some of the columns, in the given order.
    pub fn columns(&self, columns: &[usize]) -> Grid {
        let picked = |step: usize| columns.iter().map(move |&series| (step, series));
        let cells = || (0..self.n_steps()).flat_map(picked);
        let grid = Grid::from_rows(columns.len(), cells().map(|(step, series)| self.get(step, series)).collect());
        if self.is_exact() {
            return grid;
        }
        grid.with_known_sd(cells().map(|(step, series)| self.sd(step, series)).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn series_are_sorted_by_role_and_keep_their_order() {
        let roles = [Role::Known, Role::Target, Role::Past, Role::Target];
        let sorted = Roles::new(&roles, 4).expect("a target");
        assert_eq!((sorted.modelled.as_slice(), sorted.known.as_slice()), (&[1, 2, 3][..], &[0][..]));
        assert_eq!((sorted.targets.as_slice(), sorted.past.as_slice()), (&[0, 2][..], &[1][..]));
        assert_eq!(sorted.target_columns(), [1, 3]);
        assert!(Roles::new(&[], 2).expect("targets").are_all_targets());
    }

    #[test]
    fn a_panel_needs_a_target_and_few_covariates() {
        assert!(matches!(Roles::new(&[Role::Known], 1), Err(Error::NoTarget)));
        assert!(matches!(Roles::new(&[Role::Known], 2), Err(Error::SeriesCount { given: 1, expected: 2 })));
        let mut many = vec![Role::Past; N_COVARIATES_MAX + 1];
        many.push(Role::Target);
        let refused = Roles::new(&many, many.len());
        assert!(matches!(refused, Err(Error::TooManyCovariates { given: 65, limit: 64 })));
    }

    #[test]
    fn columns_keep_the_errors_of_their_values() {
        let grid = Grid::new(2, vec![1.0, 2.0, 3.0, 4.0]).expect("whole rows");
        let grid = grid.with_sd(vec![0.0, 0.5, 0.0, 0.0]).expect("as many as values");
        let column = grid.columns(&[1]);
        assert_eq!((column.values(), column.sd(0, 0), column.sd(1, 0)), (&[2.0, 4.0][..], 0.5, 0.0));
        assert!(grid.columns(&[0]).is_exact());
    }
}
