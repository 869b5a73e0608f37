//! Gaps filled with draws that respect what came before them and what came after them.

use std::collections::BTreeMap;
use std::ops::Range;

use crate::model::N_SAMPLES_TOGETHER;
use crate::noise::NoiseSource;
use crate::observed::Past;
use crate::sampler::{Draw, PinnedStart};
use crate::support::make_whole;
use crate::{Calendar, Error, Grid, Model, SampleConfig, Trajectories, Window};

/// Draws of the gaps of some samples: for each element of the context, a standard value of each sample.
type Draws = BTreeMap<usize, Vec<f64>>;

/// A part of the context that is drawn in one go.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Stretch {
    /// The last step before it.
    anchor: usize,
    /// The last step that is drawn or pins what is drawn.
    last: usize,
    /// The last step whose draws are kept.
    kept: usize,
}

impl Model {
    /// Draws what is missing of the targets in the context of a window, jointly over all series, given everything that was observed
    /// before and after it. The window's horizon and future play no part.
    ///
    /// The trajectories begin with the first step at which every modelled series has a value and end with the context (step 0).
    /// Where a value was observed, every trajectory has it. A measurement error makes it count for less in what is drawn, but
    /// it is not drawn itself.
    ///
    /// # Method
    /// From left to right, in stretches: the step before a gap is an anchor, the trained horizon after it is drawn, and all
    /// that was observed there pins the draws (see [`crate::pins`]), as far ahead as can be met together. Draws are kept up to the next step at which every series
    /// has a value. Where there is none within the horizon, they are kept for half a horizon, or less so that both ends of
    /// every gap that is kept were in sight, and each sample goes on from its own draws.
    ///
    /// # Errors
    /// - [`Error::SeriesCount`], [`Error::CalendarFeatures`], [`Error::CalendarLength`] when the window is not the model's
    /// - [`Error::Zero`] when samples, passes or a schedule's parameter are 0
    /// - [`Error::NothingObserved`] when no value is known, [`Error::NoCompleteStep`] when no step has a value of every series
    /// - [`Error::GapTooLong`] when a gap does not fit in the trained horizon together with a value after it, or, at the end of the
    ///   context, does not fit in it
    /// - [`Error::TooManyPins`] when more than 2500 values beside the gaps depend on each other, those behind them left out
    pub fn impute(&self, window: &Window, config: &SampleConfig) -> Result<Trajectories, Error> {
        let window = &*self.modelled(window)?;
        config.check()?;
        let context = &window.context;
        let (n_steps, n_series) = (context.n_steps(), self.n_series());
        let is_complete = |step: &usize| context.row(*step).iter().all(|value| !value.is_nan());
        if context.values().iter().all(|value| value.is_nan()) {
            return Err(Error::NothingObserved);
        }
        let start = (0..n_steps).find(is_complete).ok_or(Error::NoCompleteStep)?;
        let gaps = Gaps {
            model: self,
            context,
            past: self.past(context, &window.calendar, n_steps - 1),
            calendar: self.padded_calendar(window, n_steps + self.horizon()),
            effects: (0..n_steps).flat_map(|step| self.effects(&window.calendar, step).into_iter().flatten()).collect(),
            stretches: stretches(context, start, self.horizon()).map_err(|error| self.roles.in_panel(error))?,
        };
        let observed: Vec<f32> = context.values()[start * n_series..].iter().map(|&value| value as f32).collect();
        let mut values = Vec::with_capacity(config.n_samples * observed.len());
        for first_sample in (0..config.n_samples).step_by(N_SAMPLES_TOGETHER) {
            let samples = first_sample..config.n_samples.min(first_sample + N_SAMPLES_TOGETHER);
            let draws = gaps.draw(&samples, config)?;
            for sample in 0..samples.len() {
                let mut path = observed.clone();
                for (&element, draws) in &draws {
                    let value = self.restore(element % n_series, draws[sample], &window.bounds);
                    path[element - start * n_series] = value as f32;
                }
                let noise = NoiseSource::Seed(config.seed);
                make_whole(&self.supports, &window.bounds, noise, first_sample + sample, &mut path);
                let known = path.iter_mut().zip(&observed).filter(|(_, observed)| !observed.is_nan());
                known.for_each(|(value, observed)| *value = *observed);
                values.extend(path);
            }
        }
        let first_step = 1 - (n_steps - start) as i32;
        let drawn = Trajectories::new(config.n_samples, first_step, n_steps - start, n_series, values)?;
        Ok(self.roles.targets_of(drawn))
    }
}

/// The gaps of a context, and what is told to base and network about it.
struct Gaps<'a> {
    model: &'a Model,
    context: &'a Grid,
    past: Past,
    calendar: Calendar,
    /// Effects of known covariates, which the past does not have, `[time, series]`; empty when there are none.
    effects: Vec<f64>,
    stretches: Vec<Stretch>,
}

impl Gaps<'_> {
    /// Draws of all gaps, for some of the samples.
    fn draw(&self, samples: &Range<usize>, config: &SampleConfig) -> Result<Draws, Error> {
        let horizon = self.model.horizon();
        let mut draws = Draws::new();
        for (number, stretch) in self.stretches.iter().enumerate() {
            let n_drawn = stretch.last - stretch.anchor;
            let draw = Draw {
                first_sample: samples.start,
                n_samples: samples.len(),
                // Steps may be drawn again in the next stretch, given what is kept of this one: with noise of their own.
                first_step: number * horizon,
                n_tokens: n_drawn.div_ceil(self.model.layout.patch),
            };
            let paths = self.paths(stretch, draw, config, &draws)?;
            let n_series = self.context.n_series();
            let first = (stretch.anchor + 1) * n_series;
            let is_gap = |element: &usize| self.context.values()[*element].is_nan();
            for element in (first..(stretch.kept + 1) * n_series).filter(is_gap) {
                draws.insert(element, paths.iter().map(|path| path[element - first]).collect());
            }
        }
        Ok(draws)
    }

    /// Standard values `[step, series]` of a stretch for each sample, given its draws of earlier ones.
    fn paths(
        &self,
        stretch: &Stretch,
        draw: Draw,
        config: &SampleConfig,
        earlier: &Draws,
    ) -> Result<Vec<Vec<f64>>, Error> {
        let (model, n_series) = (self.model, self.context.n_series());
        let rows = (stretch.anchor + 1).saturating_sub(model.n_past())..stretch.anchor + 1;
        let elements = rows.start * n_series..rows.end * n_series;
        let pasts = pasts(&self.past, earlier, &self.effects, elements, draw.n_samples);
        let calendar = match self.calendar.n_steps() {
            Some(_) => self.calendar.rows(rows.start..rows.end + model.horizon()),
            None => self.calendar.clone(),
        };
        let (views, outlooks): (Vec<_>, Vec<_>) = pasts.iter().map(|past| model.condition(past, &calendar)).unzip();
        let (n_drawn, n_kept) = (stretch.last - stretch.anchor, stretch.kept - stretch.anchor);
        let mut observed = model.observed(self.context, stretch.anchor + 1..stretch.last + 1, 1);
        let mut reach = n_drawn;
        let pinned = loop {
            match model.pins(&observed, 0, &outlooks) {
                // Of more than can be met together, those furthest behind the gap say least.
                Err(Error::TooManyPins { .. }) if reach > n_kept => {
                    reach = n_kept + (reach - n_kept) / 2;
                    observed.retain(|observed| observed.step <= reach);
                }
                pinned => break pinned?,
            }
        };
        let scores: Vec<Vec<f64>> = outlooks.iter().map(|outlook| model.scores(&observed, outlook)).collect();
        let start = pinned.as_ref().map(|(pins, n_tokens)| PinnedStart { pins, scores: &scores, n_tokens: *n_tokens });
        let innovations = model.sampler().draw(&views, draw, config, start)?;
        let innovations = model.with_pool(innovations, &[], draw, NoiseSource::Seed(config.seed), start);
        Ok(model.paths_of(&innovations, draw.n_samples, n_drawn, &outlooks, &observed))
    }
}

/// The past of each sample in a range of elements; one for all where nothing was drawn.
fn pasts(past: &Past, draws: &Draws, effects: &[f64], elements: Range<usize>, n_samples: usize) -> Vec<Past> {
    let shared = Past {
        standard: past.standard[elements.clone()].to_vec(),
        filled: past.filled[elements.clone()].to_vec(),
        sd: past.sd.get(elements.clone()).unwrap_or_default().to_vec(),
    };
    if draws.range(elements.clone()).next().is_none() {
        return vec![shared];
    }
    let of_sample = |sample: usize| {
        let mut past = shared.clone();
        for (&element, draws) in draws.range(elements.clone()) {
            let rest = effects.get(element).map_or(draws[sample], |effect| draws[sample] - effect);
            past.standard[element - elements.start] = rest;
            past.filled[element - elements.start] = rest;
        }
        past
    };
    (0..n_samples).map(of_sample).collect()
}

/// How far each element is from the next observation of its series, itself included; `None` when there is none.
fn next_observed(context: &Grid) -> Vec<Option<usize>> {
    let n_series = context.n_series();
    let mut next = vec![None; context.values().len()];
    for index in (0..next.len()).rev() {
        next[index] = if context.values()[index].is_nan() {
            next.get(index + n_series).copied().flatten()
        } else {
            Some(index / n_series)
        };
    }
    next
}

/// Cuts the gaps after a complete step into stretches.
fn stretches(context: &Grid, start: usize, horizon: usize) -> Result<Vec<Stretch>, Error> {
    let (n_steps, n_series) = (context.n_steps(), context.n_series());
    let next = next_observed(context);
    let is_complete = |step: usize| context.row(step).iter().all(|value| !value.is_nan());
    for step in start + 1..n_steps {
        for series in 0..n_series {
            let begins = context.get(step, series).is_nan() && !context.get(step - 1, series).is_nan();
            let (length, limit) = match next[step * n_series + series] {
                Some(next) => (next - step, horizon - 1),
                None => (n_steps - step, horizon),
            };
            if begins && length > limit {
                return Err(Error::GapTooLong { series, step, length, limit });
            }
        }
    }

    let mut stretches = vec![];
    let mut done = start;
    while let Some(gap) = (done + 1..n_steps).find(|&step| !is_complete(step)) {
        let anchor = gap - 1;
        let last = (anchor + horizon).min(n_steps - 1);
        // Both ends of a gap are in sight, or it has but one.
        let in_sight = |step: usize| {
            let row = &next[step * n_series..(step + 1) * n_series];
            row.iter().all(|next| next.map_or(last == n_steps - 1, |next| next <= last))
        };
        let kept = match (gap..=last).find(|&step| is_complete(step)) {
            Some(complete) => complete - 1,
            None if last == n_steps - 1 => last,
            None => {
                let seen = (gap..=last).take_while(|&step| in_sight(step)).count();
                gap + seen.min(horizon.div_ceil(2)).max(1) - 1
            }
        };
        stretches.push(Stretch { anchor, last, kept });
        done = kept;
    }
    Ok(stretches)
}

#[cfg(test)]
mod tests {
    use nalgebra::{DMatrix, DVector};

    use super::*;
    use crate::noise::Stream;
    use crate::pool::Pool;
    use crate::{Bounds, Budget, History, TrainConfig};

    const GAP: f64 = f64::NAN;

    fn window(n_series: usize, context: Vec<f64>) -> Window {
        Window {
            context: Grid::new(n_series, context).expect("whole rows"),
            calendar: Calendar::new(0, vec![]).expect("no features"),
            horizon: 1,
            bounds: vec![Bounds::default(); n_series],
            future: None,
        }
    }

    fn impute(model: &Model, window: &Window, n_samples: usize) -> Trajectories {
        let config = SampleConfig { n_samples, seed: 3, passes: 1, ..SampleConfig::default() };
        model.impute(window, &config).expect("gaps that fit")
    }

    fn mean_and_sd(trajectories: &Trajectories, step: usize, series: usize) -> (f64, f64) {
        let draws: Vec<f64> =
            (0..trajectories.n_samples()).map(|k| f64::from(trajectories.value(k, step, series))).collect();
        let mean = draws.iter().sum::<f64>() / draws.len() as f64;
        (mean, (draws.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / draws.len() as f64).sqrt())
    }

    /// Mean and standard deviation of each gap given all other values, for a Gaussian process with mean 0 and a covariance
    /// of any two elements.
    fn exact(values: &[f64], covariance: impl Fn(usize, usize) -> f64) -> BTreeMap<usize, (f64, f64)> {
        let (gaps, known): (Vec<usize>, Vec<usize>) = (0..values.len()).partition(|&index| values[index].is_nan());
        let block = |a: &[usize], b: &[usize]| DMatrix::from_fn(a.len(), b.len(), |i, j| covariance(a[i], b[j]));
        let gain =
            block(&known, &known).cholesky().expect("positive definite").solve(&block(&known, &gaps)).transpose();
        let mean = &gain * DVector::from_iterator(known.len(), known.iter().map(|&index| values[index]));
        let left = block(&gaps, &gaps) - &gain * block(&known, &gaps);
        gaps.iter().enumerate().map(|(i, &index)| (index, (mean[i], left[(i, i)].sqrt()))).collect()
    }

    /// A walk of two series whose increments have correlation 0.8.
    const INCREMENTS: [f64; 4] = [1.0, 0.0, 0.8, 0.6];

    fn walk_covariance(a: usize, b: usize) -> f64 {
        // Started long ago; the first step is 0.
        (1.0 + (a / 2).min(b / 2) as f64) * if a % 2 == b % 2 { 1.0 } else { 0.8 }
    }

    fn walk(n_steps: usize, is_gap: impl Fn(usize, usize) -> bool) -> Vec<f64> {
        let mut stream = Stream::new(4, 0);
        let (mut a, mut b) = (0.0, 0.0);
        let mut values = vec![];
        for step in 0..n_steps {
            let (shared, own) = (stream.normal(), stream.normal());
            a += shared;
            b += 0.8 * shared + 0.6 * own;
            values.extend([(0, a), (1, b)].map(|(series, value)| if is_gap(step, series) { GAP } else { value }));
        }
        values
    }

    #[test]
    fn a_gap_of_a_walk_is_a_bridge_in_both_series() {
        let model = Model::random_walk(&INCREMENTS, 2, 8);
        let values = walk(16, |step, series| (6..10).contains(&step) || step == 10 && series == 1 || step == 15);
        let imputed = impute(&model, &window(2, values.clone()), 4000);
        assert_eq!((imputed.first_step(), imputed.n_steps()), (-15, 16));
        let exact = exact(&values, walk_covariance);
        assert_eq!(exact.len(), 11);
        for (&element, &(mean, sd)) in &exact {
            let drawn = mean_and_sd(&imputed, element / 2, element % 2);
            assert!((drawn.0 - mean).abs() < 0.08 * sd, "{element}: mean {} instead of {mean}", drawn.0);
            assert!((drawn.1 / sd - 1.0).abs() < 0.05, "{element}: sd {} instead of {sd}", drawn.1);
        }
        for (index, &value) in values.iter().enumerate().filter(|(_, value)| !value.is_nan()) {
            assert_eq!(imputed.value(17, index / 2, index % 2), value as f32, "what is known is not drawn");
        }
        // A causal pass would have variance 3 in the middle of the gap, where the bridge has 6 / 5.
        assert!(mean_and_sd(&imputed, 8, 0).1 < 1.2);
    }

    #[test]
    fn gaps_that_overlap_without_end_are_drawn_in_stretches() {
        let model = Model::random_walk(&INCREMENTS, 4, 24);
        // From step 3 to 36 there is no step at which both series are observed.
        // What one series lacks is smoothed over many steps, at least half a horizon of which a stretch looks ahead.
        let values = walk(40, |step, series| (3..37).contains(&step) && (step / 3) % 2 == series);
        let imputed = impute(&model, &window(2, values.clone()), 4000);
        for (element, (mean, sd)) in exact(&values, walk_covariance) {
            let drawn = mean_and_sd(&imputed, element / 2, element % 2);
            assert!((drawn.0 - mean).abs() < 0.15 * sd, "{element}: mean {} instead of {mean}", drawn.0);
            assert!((drawn.1 / sd - 1.0).abs() < 0.06, "{element}: sd {} instead of {sd}", drawn.1);
        }
    }

    #[test]
    fn gaps_far_apart_are_drawn_independently() {
        let model = Model::random_walk(&[1.0], 1, 4);
        let mut values = vec![0.0; 20];
        (values[3], values[16]) = (GAP, GAP);
        let imputed = impute(&model, &window(1, values), 4000);
        let product: f64 = (0..4000).map(|k| f64::from(imputed.value(k, 3, 0) * imputed.value(k, 16, 0))).sum();
        // Each has variance 1/2; samples come in pairs, so 2000 products count.
        assert!((product / 4000.0 / 0.5).abs() < 0.08, "correlation {}", product / 4000.0 / 0.5);
    }

    #[test]
    fn a_doubtful_value_after_a_gap_counts_for_less() {
        let model = Model::random_walk(&[1.0], 1, 4);
        let values = vec![0.0, 0.0, 0.0, GAP, 4.0, GAP];
        let mut sd = vec![0.0; 6];
        sd[4] = 2.0_f64.sqrt();
        let mut doubtful = window(1, values);
        doubtful.context = doubtful.context.with_sd(sd).expect("as many as values");
        let imputed = impute(&model, &doubtful, 4000);
        // The value two steps on has variance 2, and so has its error: half of it is believed, and half of that is in the gap.
        let (mean, deviation) = mean_and_sd(&imputed, 3, 0);
        assert!((mean - 1.0).abs() < 0.06 && (deviation - 0.75_f64.sqrt()).abs() < 0.04, "{mean} {deviation}");
        assert_eq!(imputed.value(0, 4, 0), 4.0);
    }

    /// Covariance of two elements of `x_t = φ x_{t−1} + e`, two series whose `e` have the correlation of [`INCREMENTS`].
    fn autoregression_covariance(a: usize, b: usize) -> f64 {
        PHI.powi((a / 2).abs_diff(b / 2) as i32) / (1.0 - PHI * PHI) * if a % 2 == b % 2 { 1.0 } else { 0.8 }
    }

    const PHI: f64 = 0.8;

    fn autoregression(n_steps: usize) -> Vec<f64> {
        let mut stream = Stream::new(8, 0);
        let (mut a, mut b) = (0.0, 0.0);
        let step = |_| {
            let (shared, own) = (stream.normal(), stream.normal());
            a = PHI * a + shared;
            b = PHI * b + 0.8 * shared + 0.6 * own;
            [a, b]
        };
        (0..n_steps).flat_map(step).collect()
    }

    #[test]
    fn a_gap_of_an_autoregression_has_the_law_of_the_process() {
        const HORIZON: usize = 12;
        let mut values = autoregression(60)[20..100].to_vec();
        // The base has `φ^h last` as `last + (1 − φ^h) (0 − last)`, with the 0 at the start of the window.
        values[..2].fill(0.0);
        (25..31).for_each(|step| values[step * 2] = GAP);
        (27..30).for_each(|step| values[step * 2 + 1] = GAP);
        let mut model = Model::random_walk(&INCREMENTS, 2, HORIZON);
        model.base.linear.lags = vec![24];
        let weights = (1..=HORIZON).map(|lead| 1.0 - PHI.powi(lead as i32));
        model.base.linear.weights = vec![[vec![0.0; HORIZON], weights.collect()].concat()];
        let covariance = |a: usize, b: usize| {
            let (first, distance) = ((a / 2).min(b / 2) as i32, (a / 2).abs_diff(b / 2) as i32);
            let variance: f64 = (0..=first).map(|k| PHI.powi(2 * k)).sum();
            PHI.powi(distance) * variance * if a % 2 == b % 2 { 1.0 } else { 0.8 }
        };
        let factor = DMatrix::from_fn(2 * HORIZON, 2 * HORIZON, covariance).cholesky().expect("positive definite").l();
        let factor = factor.transpose().as_slice().to_vec();
        model.innovation.deviation = vec![1.0; 2 * HORIZON];
        model.innovation.correlation = crate::correlation::Correlation::Dense { factor };

        let imputed = impute(&model, &window(2, values.clone()), 4000);
        let exact = exact(&values, autoregression_covariance);
        assert_eq!(exact.len(), 9);
        for (&element, &(mean, sd)) in &exact {
            let drawn = mean_and_sd(&imputed, element / 2, element % 2);
            assert!((drawn.0 - mean).abs() < 0.06 * sd, "{element}: mean {} instead of {mean}", drawn.0);
            assert!((drawn.1 / sd - 1.0).abs() < 0.04, "{element}: sd {} instead of {sd}", drawn.1);
        }
        // In the middle of the second series' gap, with both ends in sight: less than a causal pass would have.
        let causal = (1.0 + PHI * PHI).sqrt();
        assert!(exact[&(28 * 2 + 1)].1 < 0.9 * causal);
    }

    #[test]
    fn gaps_of_a_fitted_autoregression_have_the_law_of_the_process() {
        let values = autoregression(1500);
        let history = History {
            values: Grid::new(2, values.clone()).expect("whole rows"),
            calendar: Calendar::new(0, vec![]).expect("no features"),
            seasons: vec![],
            bounds: vec![Bounds::default(); 2],
            roles: vec![],
        };
        let mut config = TrainConfig::new(8, Budget::Steps(1), 1);
        (config.network.d_model, config.network.batch_size) = (Some(16), 4);
        let fitted = crate::fit(&history, &config, &crate::cpu(), &mut |_| std::ops::ControlFlow::Continue(()));
        let fitted = fitted.expect("long enough").model;
        // Nothing of the network, and no past paths: the law is the Gaussian of base and covariance.
        let pool = Pool { share: 0.0, ..fitted.pool.clone() };
        let model = Model { velocity_share: 0.0, pool, ..fitted };

        let mut context = values[1400 * 2..1460 * 2].to_vec();
        for step in 40..46 {
            context[step * 2] = GAP;
            if step >= 42 {
                context[step * 2 + 1] = GAP;
            }
        }
        let imputed = impute(&model, &window(2, context.clone()), 4000);
        let exact = exact(&context, autoregression_covariance);
        assert_eq!(exact.len(), 10);
        for (&element, &(mean, sd)) in &exact {
            let drawn = mean_and_sd(&imputed, element / 2, element % 2);
            // A fitted covariance is shrunk, which makes neighbours tell less about a gap than they could.
            assert!((drawn.0 - mean).abs() < 0.25 * sd, "{element}: mean {} instead of {mean}", drawn.0);
            assert!((drawn.1 / sd - 1.0).abs() < 0.12, "{element}: sd {} instead of {sd}", drawn.1);
        }
        let causal = (0..4).map(|k| PHI.powi(2 * k)).sum::<f64>().sqrt();
        assert!(mean_and_sd(&imputed, 45, 1).1 < 0.7 * causal);
    }

    #[test]
    fn stretches_see_both_ends_of_what_they_keep() {
        let cut = |values: &[f64], n_series: usize| {
            stretches(&Grid::new(n_series, values.to_vec()).expect("whole rows"), 0, 4).expect("gaps that fit")
        };
        let stretch = |anchor, last, kept| Stretch { anchor, last, kept };
        let x = 1.0;
        assert_eq!(cut(&[x, x, x], 1), []);
        assert_eq!(cut(&[x, GAP, x, x, GAP, GAP, GAP, x, x], 1), [stretch(0, 4, 1), stretch(3, 7, 6)]);
        assert_eq!(cut(&[x, x, GAP, GAP], 1), [stretch(1, 3, 3)]);
        // The second series' gap ends at step 4, in sight of the first stretch, which keeps half of it.
        let staggered = [x, x, GAP, x, GAP, GAP, x, GAP, GAP, x, x, x, x, x];
        assert_eq!(cut(&staggered, 2), [stretch(0, 4, 2), stretch(2, 6, 4)]);
    }

    #[test]
    fn what_cannot_be_imputed_is_refused_by_name() {
        let model = Model::random_walk(&INCREMENTS, 2, 4);
        let refused = |values: Vec<f64>| {
            let error = model.impute(&window(2, values), &SampleConfig::default()).expect_err("refused");
            (error.to_string(), error)
        };
        let mut values = walk(12, |step, series| series == 1 && (3..7).contains(&step));
        let (message, error) = refused(values.clone());
        assert!(matches!(error, Error::GapTooLong { series: 1, step: 3, length: 4, limit: 3 }), "{message}");
        values[6 * 2 + 1] = 0.0;
        assert_eq!(impute(&model, &window(2, values), 3).n_steps(), 12);
        let (message, error) = refused(walk(12, |step, series| series == 0 && step >= 7));
        assert!(matches!(error, Error::GapTooLong { series: 0, step: 7, length: 5, limit: 4 }), "{message}");
        assert!(matches!(refused(walk(12, |step, series| step % 2 == series)).1, Error::NoCompleteStep));
        assert!(matches!(refused(vec![GAP; 8]).1, Error::NothingObserved));
    }

    #[test]
    fn an_imputation_begins_where_every_series_has_a_value() {
        let model = Model::random_walk(&INCREMENTS, 2, 4);
        let values = walk(12, |step, series| step < 5 && series == 1 || step == 8);
        let imputed = impute(&model, &window(2, values), 3);
        assert_eq!((imputed.first_step(), imputed.n_steps()), (-6, 7));
        assert!(imputed.values().iter().all(|value| value.is_finite()));
    }
}
