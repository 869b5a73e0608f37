//! A question to the trajectories: how a total, a mean or an extreme over some steps is distributed, and how likely it is
//! to pass a threshold.

use std::ops::RangeInclusive;

use forecast::{Aggregate, Over, QuantileLevel, Trajectories, quantile_of_sorted};

use crate::{
    Error,
    db::{series::Series, words::Kind},
    page::chart::level,
    routes::{
        extract::{FromQuery, Parameters},
        forecasts::aggregate::parse_function,
    },
};

/// What is asked, as far as the address says; the rest follows from the series.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Question {
    function: Option<Aggregate>,
    first_step: Option<usize>,
    last_step: Option<usize>,
    with_same_unit: bool,
    threshold: Option<f64>,
}

impl FromQuery for Question {
    fn from_query(parameters: &mut Parameters) -> Result<Self, Error> {
        let step = |text: &str| text.parse().ok().filter(|&step: &usize| step > 0);
        Ok(Self {
            function: parameters.take_parsed("fn", "`sum`, `max`, `min` or `mean`", parse_function)?,
            first_step: parameters.take_parsed("first", "the number of a step", step)?,
            last_step: parameters.take_parsed("last", "the number of a step", step)?,
            with_same_unit: parameters
                .take_parsed("of", "`series` or `unit`", |text| match text {
                    "series" => Some(false),
                    "unit" => Some(true),
                    _ => None,
                })?
                .unwrap_or(false),
            threshold: parameters
                .take_parsed("above", "a number", |text| match text.trim() {
                    "" => Some(None),
                    number => number.parse().ok().filter(|number: &f64| number.is_finite()).map(Some),
                })?
                .flatten(),
        })
    }
}

/// What the trajectories answer.
#[derive(Clone, Debug)]
pub struct Answer {
    /// How the steps of a trajectory were combined.
    pub function: Aggregate,
    /// The steps that were combined, within the horizon.
    pub steps: RangeInclusive<usize>,
    /// Whether all series of the unit were added up before.
    pub with_same_unit: bool,
    /// One number per trajectory, ascending.
    pub draws: Vec<f64>,
    /// The 0.05, 0.5 and 0.95 quantiles.
    pub quantiles: [f64; 3],
    /// What combining the 0.05 and the 0.95 quantiles of single steps and series would give, which is wrong.
    pub of_quantiles: (f64, f64),
    /// The threshold, and how many trajectories are above it.
    pub above: Option<(f64, usize)>,
}

impl Question {
    /// Whether `other` is added to `series` before steps are combined.
    pub fn adds_up(&self, other: &Series, series: &Series) -> bool {
        self.with_same_unit && other.unit == series.unit && other.kind == series.kind
    }

    /// Reads the answer off the trajectories of the series that add up. Steps beyond the horizon are cut off.
    pub fn answer(&self, kind: Kind, trajectories: &Trajectories) -> Result<Answer, Error> {
        let function = self.function.unwrap_or(match kind {
            Kind::Sum => Aggregate::Sum,
            Kind::Mean | Kind::Point => Aggregate::Mean,
        });
        let chosen = self.chosen_steps(trajectories);
        let sorted = chosen.aggregate(Aggregate::Sum, Over::Series).aggregate(function, Over::Horizon).sorted(0, 0);
        let at = |number| Ok::<_, Error>(quantile_of_sorted(&sorted, level(number)?));
        let draws: Vec<f64> = sorted.iter().copied().map(f64::from).collect();
        let of_quantiles = |number| Ok::<_, Error>(combine(function, &chosen, level(number)?));
        let first_step = self.first_step(trajectories);
        Ok(Answer {
            function,
            steps: first_step..=first_step + chosen.n_steps() - 1,
            with_same_unit: self.with_same_unit,
            quantiles: [at(0.05)?, at(0.5)?, at(0.95)?],
            of_quantiles: (of_quantiles(0.05)?, of_quantiles(0.95)?),
            above: self.threshold.map(|threshold| (threshold, draws.iter().filter(|&&draw| draw > threshold).count())),
            draws,
        })
    }

    fn first_step(&self, trajectories: &Trajectories) -> usize {
        self.first_step.unwrap_or(1).min(trajectories.horizon())
    }

    /// The steps that are asked for, without nowcasts.
    fn chosen_steps(&self, trajectories: &Trajectories) -> Trajectories {
        let first = self.first_step(trajectories);
        let n_steps = trajectories.horizon();
        trajectories.steps(first..=self.last_step.unwrap_or(n_steps).clamp(first, n_steps))
    }
}

/// The quantiles of all elements at one level, combined like the values of a trajectory.
fn combine(function: Aggregate, chosen: &Trajectories, level: QuantileLevel) -> f64 {
    let quantiles = chosen.quantiles(&[level]);
    function.of(quantiles.chunks_exact(chosen.n_series()).map(|step| step.iter().sum::<f64>()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Three trajectories of two steps that always cancel.
    fn cancelling() -> Trajectories {
        Trajectories::new(3, 1, 2, 1, vec![-1.0, 1.0, 0.0, 0.0, 1.0, -1.0]).expect("the shape is right")
    }

    fn ask(question: Question, kind: Kind, trajectories: &Trajectories) -> Answer {
        question.answer(kind, trajectories).expect("levels are in range")
    }

    #[test]
    fn a_total_is_more_certain_than_its_steps_where_they_cancel() {
        let total = ask(Question::default(), Kind::Sum, &cancelling());
        assert_eq!((total.function, total.quantiles), (Aggregate::Sum, [0.0; 3]));
        assert!(total.of_quantiles.0 < -1.5 && total.of_quantiles.1 > 1.5, "{:?}", total.of_quantiles);
    }

    #[test]
    fn averages_are_averaged() {
        let mean = ask(Question::default(), Kind::Mean, &cancelling());
        assert_eq!(mean.function, Aggregate::Mean);
        assert!(mean.of_quantiles.1 < 1.0);
    }

    #[test]
    fn thresholds_count_trajectories_and_steps_are_cut_to_the_horizon() {
        let question = Question {
            function: Some(Aggregate::Max),
            first_step: Some(2),
            last_step: Some(9),
            threshold: Some(0.5),
            ..Question::default()
        };
        let answer = ask(question, Kind::Mean, &cancelling());
        assert_eq!((answer.steps, answer.above), (2..=2, Some((0.5, 1))));
        let beyond = ask(Question { first_step: Some(7), ..question }, Kind::Mean, &cancelling());
        assert_eq!(beyond.steps, 2..=2);
    }

    #[test]
    fn series_are_added_up_before_steps_are_combined() {
        // In each of two trajectories one series is high where the other is low; the nowcast does not count.
        let values = vec![9.0, 9.0, 1.0, 3.0, 2.0, 2.0, 9.0, 9.0, 3.0, 1.0, 2.0, 2.0];
        let trajectories = Trajectories::new(2, 0, 3, 2, values).expect("the shape is right");
        let highest =
            ask(Question { function: Some(Aggregate::Max), ..Question::default() }, Kind::Mean, &trajectories);
        assert_eq!((highest.draws.as_slice(), highest.steps), ([4.0, 4.0].as_slice(), 1..=2));
    }
}
