//! How long what is kept: by kind, with exceptions by panel.

use std::collections::BTreeMap;

use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::problem::Violation;

/// Longest that can be asked for as a number: a hundred years.
const DAYS_MAX: u32 = 36_500;

/// Jobs are kept at least as long as a schedule looks back, so that an occasion has one job.
const JOB_DAYS_MIN: u32 = 8;

/// For how long something is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, ToSchema)]
#[serde(untagged, expecting = "a number of days, or \"forever\"")]
pub enum Days {
    /// So many days at least.
    Count(u32),
    /// For ever.
    Forever(Forever),
}

/// The word for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Forever {
    /// Nothing of it goes.
    Forever,
}

/// Days that each kind of data is kept; what is left out stays for ever, or for a panel, as long as in general.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Keep {
    /// Trajectories; at most as long as forecasts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trajectory_days: Option<Days>,
    /// Quantiles and means; at most as long as scores.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub forecast_days: Option<Days>,
    /// Scores, with the record of the forecast itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub score_days: Option<Days>,
    /// Observations, in whole years; at least as long as forecasts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observation_days: Option<Days>,
    /// Models that do not serve and of which no forecast is kept, with their files.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model_days: Option<Days>,
    /// Jobs that have ended, with their logs; at least 8.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub job_days: Option<Days>,
    /// Records of loads, with the rows that were not taken.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub load_days: Option<Days>,
}

/// What is kept for how long.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
#[schema(example = json!({
    "keep": {"trajectory_days": 90, "job_days": 30}, "panels": {"valencia": {"trajectory_days": "forever"}}, "export": true
}))]
pub struct RetentionPolicy {
    /// In general.
    pub keep: Keep,
    /// Exceptions, by name of the panel.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub panels: BTreeMap<String, Keep>,
    /// Whether trajectories, forecasts, scores and observations are written to Parquet files before they go.
    pub export: bool,
}

/// The instants before which the data of one panel are old; `None` where nothing is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cutoffs {
    /// Trajectories.
    pub trajectory: Option<DateTime<Utc>>,
    /// Quantiles and means.
    pub forecast: Option<DateTime<Utc>>,
    /// Scores and the record of the forecast.
    pub score: Option<DateTime<Utc>>,
    /// Observations.
    pub observation: Option<DateTime<Utc>>,
    /// Models.
    pub model: Option<DateTime<Utc>>,
    /// Jobs.
    pub job: Option<DateTime<Utc>>,
    /// Loads.
    pub load: Option<DateTime<Utc>>,
}

impl Days {
    fn count(self) -> Option<u32> {
        match self {
            Self::Count(days) => Some(days),
            Self::Forever(_) => None,
        }
    }
}

impl Keep {
    /// With the words in which this says nothing taken from another.
    fn or(self, other: Self) -> Self {
        Self {
            trajectory_days: self.trajectory_days.or(other.trajectory_days),
            forecast_days: self.forecast_days.or(other.forecast_days),
            score_days: self.score_days.or(other.score_days),
            observation_days: self.observation_days.or(other.observation_days),
            model_days: self.model_days.or(other.model_days),
            job_days: self.job_days.or(other.job_days),
            load_days: self.load_days.or(other.load_days),
        }
    }

    /// With what a forecast consists of kept no longer than the forecast.
    fn bounded(self) -> Self {
        let forecast_days = self.forecast_days.or(self.score_days);
        Self { forecast_days, trajectory_days: self.trajectory_days.or(forecast_days), ..self }
    }

    fn fields(&self) -> [(&'static str, Option<Days>); 7] {
        [
            ("trajectory_days", self.trajectory_days),
            ("forecast_days", self.forecast_days),
            ("score_days", self.score_days),
            ("observation_days", self.observation_days),
            ("model_days", self.model_days),
            ("job_days", self.job_days),
            ("load_days", self.load_days),
        ]
    }

    /// What is out of range, or at odds with each other, with pointers below `place`.
    fn check(&self, place: &str) -> Vec<Violation> {
        let of_field = |field: &str, code, message: String| Violation::at(format!("{place}/{field}"), code, message);
        let mut wrong = vec![];
        for (field, days) in self.fields() {
            let least = if field == "job_days" { JOB_DAYS_MIN } else { 1 };
            let count = days.and_then(Days::count);
            if count.is_some_and(|count| !(least..=DAYS_MAX).contains(&count)) {
                let message = format!("must lie between {least} and {DAYS_MAX}, or be \"forever\"");
                wrong.push(of_field(field, "out-of-range", message));
            }
        }
        let bounded = self.bounded();
        for (field, days, longer, longer_days) in [
            ("trajectory_days", bounded.trajectory_days, "forecast_days", bounded.forecast_days),
            ("forecast_days", bounded.forecast_days, "score_days", bounded.score_days),
            ("forecast_days", bounded.forecast_days, "observation_days", bounded.observation_days),
        ] {
            let (days, limit) = (days.and_then(Days::count), longer_days.and_then(Days::count));
            if limit.is_some_and(|limit| days.is_none_or(|days| days > limit)) {
                wrong.push(of_field(field, "too-long", format!("must be at most `{longer}`")));
            }
        }
        wrong
    }
}

impl RetentionPolicy {
    /// What is wrong, with pointers into the policy.
    #[must_use]
    pub fn violations(&self) -> Vec<Violation> {
        let of_panel = |(name, keep): (&String, &Keep)| {
            let place = format!("/panels/{}", name.replace('~', "~0").replace('/', "~1"));
            keep.or(self.keep).check(&place)
        };
        let general = self.keep.check("/keep");
        // What is wrong in general is wrong in every exception, too.
        if general.is_empty() { self.panels.iter().flat_map(of_panel).collect() } else { general }
    }

    /// The instants before which data of a panel are old at `now`; of what belongs to no panel, with `None`.
    #[must_use]
    pub fn cutoffs(&self, panel: Option<&str>, now: DateTime<Utc>) -> Cutoffs {
        let own = panel.and_then(|name| self.panels.get(name)).copied().unwrap_or_default();
        let keep = own.or(self.keep).bounded();
        let before = |days: Option<Days>| Some(now - TimeDelta::days(i64::from(days?.count()?)));
        Cutoffs {
            trajectory: before(keep.trajectory_days),
            forecast: before(keep.forecast_days),
            score: before(keep.score_days),
            observation: before(keep.observation_days),
            model: before(keep.model_days),
            job: before(keep.job_days),
            load: before(keep.load_days),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(text: &str) -> RetentionPolicy {
        toml::from_str(text).expect("it is a policy")
    }

    fn now() -> DateTime<Utc> {
        "2026-03-31T12:00:00Z".parse().expect("a time")
    }

    #[test]
    fn an_exception_counts_for_its_panel_alone() {
        let policy =
            policy("keep = { trajectory_days = 30 }\npanels.city = { trajectory_days = 'forever', job_days = 9 }");
        assert_eq!(policy.violations(), []);
        let days = |days| Some(now() - TimeDelta::days(days));
        assert_eq!(policy.cutoffs(Some("town"), now()).trajectory, days(30));
        let city = policy.cutoffs(Some("city"), now());
        assert_eq!((city.trajectory, city.job, city.score), (None, days(9), None));
    }

    #[test]
    fn a_forecast_takes_along_what_it_consists_of() {
        let cutoffs = policy("keep.score_days = 90").cutoffs(None, now());
        assert_eq!((cutoffs.trajectory, cutoffs.forecast), (cutoffs.score, cutoffs.score));
        assert!(cutoffs.score.is_some() && cutoffs.observation.is_none());
    }

    #[test]
    fn what_is_at_odds_is_named() {
        for (text, pointer) in [
            ("keep.trajectory_days = 0", "/keep/trajectory_days"),
            ("keep.job_days = 7", "/keep/job_days"),
            ("keep.load_days = 40000", "/keep/load_days"),
            ("keep = { trajectory_days = 31, forecast_days = 30 }", "/keep/trajectory_days"),
            ("keep = { trajectory_days = 'forever', score_days = 30 }", "/keep/trajectory_days"),
            ("keep = { observation_days = 365 }", "/keep/forecast_days"),
            ("keep.score_days = 30\npanels.'a/b'.forecast_days = 60", "/panels/a~1b/forecast_days"),
        ] {
            let wrong = policy(text).violations();
            assert_eq!(wrong.first().and_then(|wrong| wrong.pointer.as_deref()), Some(pointer), "{text}");
        }
        assert!(toml::from_str::<RetentionPolicy>("keep.trajectory_days = 'always'").is_err());
        assert!(toml::from_str::<RetentionPolicy>("keep.days = 3").is_err());
    }
}
