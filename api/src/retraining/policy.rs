//! The rules by which a retrained model may serve.

use serde::{Deserialize, Serialize};

use crate::training::{MINUTES_MAX, STEPS_MAX};

/// How a candidate is trained and compared, and what it takes to be promoted.
///
/// In TOML or JSON every field may be left out.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Policy {
    /// Windows at the end of the data that are kept out of training and forecast by both models.
    pub windows: usize,
    /// Windows that must lie after all that the champion had learned from, or nothing is decided; at least 2.
    pub windows_min: usize,
    /// Trajectories of each window.
    pub num_samples: usize,
    /// Level of the confidence interval of the difference in CRPS.
    pub confidence: f64,
    /// The upper end of that interval may be as high as this, relative to the champion's CRPS.
    pub tolerance: f64,
    /// The share of the truth inside the candidate's central 80 % interval must be at least this, or nearer to 80 % than the champion's.
    pub coverage_80_min: f64,
    /// And at most this, or as near.
    pub coverage_80_max: f64,
    /// Learn from so many days before the windows; from all that is known when not given. Fewer forget sooner what was once
    /// true.
    pub history_days: Option<u32>,
    /// Begin with the weights of the champion, where its network has the same shapes and enough has come since it was trained.
    pub warm_start: bool,
    /// Minutes to train.
    pub train_minutes: f64,
    /// Optimiser steps to train instead of minutes: the same on every run.
    pub train_steps: Option<usize>,
    /// Seed of training and of the forecasts of the windows; both models get the same.
    pub seed: u64,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            windows: 10,
            windows_min: 4,
            num_samples: 100,
            confidence: 0.9,
            tolerance: 0.01,
            coverage_80_min: 0.6,
            coverage_80_max: 0.97,
            history_days: None,
            warm_start: false,
            train_minutes: 5.0,
            train_steps: None,
            seed: 1,
        }
    }
}

/// A rule that cannot be meant.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("`{field}` of the retraining policy must {expected}")]
pub struct PolicyError {
    /// The field.
    pub field: &'static str,
    /// What it must do.
    pub expected: &'static str,
}

/// Most windows of a comparison.
const WINDOWS_MAX: usize = 1000;

/// Most trajectories of a window.
const SAMPLES_MAX: usize = 1000;

/// Most days of history: a hundred years.
const DAYS_MAX: u32 = 36_500;

impl Policy {
    /// Checks every field.
    ///
    /// # Errors
    /// For the first one that is out of range.
    pub fn check(&self) -> Result<(), PolicyError> {
        let is_share = |share: f64| (0.0..=1.0).contains(&share);
        let rules = [
            ("windows_min", (2..=WINDOWS_MAX).contains(&self.windows_min), "lie between 2 and 1000"),
            ("windows", (self.windows_min..=WINDOWS_MAX).contains(&self.windows), "lie between `windows_min` and 1000"),
            ("num_samples", (10..=SAMPLES_MAX).contains(&self.num_samples), "lie between 10 and 1000"),
            ("confidence", self.confidence >= 0.5 && self.confidence < 1.0, "be at least 0.5 and below 1"),
            ("tolerance", is_share(self.tolerance), "lie between 0 and 1"),
            ("coverage_80_min", is_share(self.coverage_80_min), "lie between 0 and 1"),
            (
                "coverage_80_max",
                is_share(self.coverage_80_max) && self.coverage_80_min <= self.coverage_80_max,
                "lie between `coverage_80_min` and 1",
            ),
            (
                "history_days",
                self.history_days.is_none_or(|days| (1..=DAYS_MAX).contains(&days)),
                "lie between 1 and 36500",
            ),
            (
                "train_minutes",
                self.train_minutes > 0.0 && self.train_minutes <= MINUTES_MAX,
                "lie between 0 (excluded) and 1440",
            ),
            (
                "train_steps",
                self.train_steps.is_none_or(|steps| (1..=STEPS_MAX).contains(&steps)),
                "lie between 1 and 1000000",
            ),
            ("seed", self.seed < 1 << 53, "be below 2^53"),
        ];
        match rules.into_iter().find(|(_, is_kept, _)| !is_kept) {
            Some((field, _, expected)) => Err(PolicyError { field, expected }),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_is_valid_and_an_empty_file_is_the_default() {
        assert_eq!(Policy::default().check(), Ok(()));
        assert_eq!(toml::from_str(""), Ok(Policy::default()));
        let json = serde_json::to_string(&Policy::default()).expect("it is JSON");
        assert_eq!(serde_json::from_str::<Policy>(&json).expect("it is read back"), Policy::default());
    }

    #[test]
    fn a_field_that_is_misspelt_or_out_of_range_is_named() {
        let error = toml::from_str::<Policy>("tolerence = 0.1").expect_err("the key is misspelt");
        assert!(error.to_string().contains("tolerence"));
        for (text, field) in [
            ("windows_min = 1", "windows_min"),
            ("windows = 3", "windows"),
            ("confidence = 1.0", "confidence"),
            ("tolerance = -0.1", "tolerance"),
            ("coverage_80_min = 0.9\ncoverage_80_max = 0.8", "coverage_80_max"),
            ("train_minutes = nan", "train_minutes"),
            ("train_minutes = 1441", "train_minutes"),
            ("train_steps = 0", "train_steps"),
            ("train_steps = 1000001", "train_steps"),
        ] {
            let policy: Policy = toml::from_str(text).expect("it is a policy");
            assert_eq!(policy.check().map_err(|error| error.field), Err(field), "{text}");
        }
    }
}
