//! Noise of samples that are drawn together, so spread that their scores lie where they should.
//!
//! Of a hundred independent draws of a score, not quite ten fall below its 10 % quantile: that error is in everything that is read
//! off them. Here the samples of a group share out the strata of every score between them, one element after the other, and each
//! of them is still a draw from the law: its noise is independent and standard normal. This is Array-RQMC (L'Ecuyer, Lécot and Tuffin, "A
//! randomized quasi-Monte Carlo simulation method for Markov chains", Operations Research 2008): where the score of each sample is
//! expected, given its noise so far, is sorted; what is new about it is stratified along that order.

use std::ops::Range;

use nalgebra::{DMatrix, DVectorView};

use crate::correlation::{Correlation, PrincipalFactors, add, dot};
use crate::innovation::Innovation;
use crate::noise::Noise;
use crate::parallel;
use crate::pool::Pool;
use crate::scaling::standard_normal_quantile;

/// Samples of a forecast that are spread together: what is usually asked for. An even number.
pub const N_TOGETHER: usize = 100;

/// What is stratified.
#[derive(Clone, Copy)]
pub struct Stratified<'a> {
    /// The law of the scores.
    pub innovation: &'a Innovation,
    /// Samples that take a path of the pool are not spread.
    pub pool: &'a Pool,
    /// Seed of the noise.
    pub seed: u64,
    /// Samples that are spread together, an even number.
    pub n_together: usize,
}

/// Noise of some samples for a block of the trained horizon.
#[derive(Clone, Debug)]
pub struct StratifiedNoise {
    seed: u64,
    first_sample: usize,
    first_step: usize,
    n_series: usize,
    n_steps: usize,
    /// `[sample, step, series]`.
    normals: Vec<f32>,
}

impl StratifiedNoise {
    /// The seed that it belongs to.
    pub fn seed(&self) -> u64 {
        self.seed
    }

    /// The noise of a sample from the first step of the block on, `[step, series]`.
    pub fn of_sample(&self, sample: usize) -> &[f32] {
        let n_numbers = self.n_steps * self.n_series;
        &self.normals[(sample - self.first_sample) * n_numbers..][..n_numbers]
    }

    /// The noise of an element of the whole path.
    pub fn normal(&self, sample: usize, step: usize, series: usize) -> f32 {
        self.of_sample(sample)[(step - self.first_step) * self.n_series + series]
    }
}

impl Stratified<'_> {
    /// The noise of samples for some steps from the first one of a block of the trained horizon on. It is the same however many
    /// samples and steps are asked for; 0 for samples of the pool, which have no use for it.
    pub fn noise(&self, samples: Range<usize>, first_step: usize, n_steps: usize) -> StratifiedNoise {
        let n_series = self.innovation.n_series();
        let n_numbers = n_steps * n_series;
        let groups: Vec<usize> = (samples.start / self.n_together..samples.end.div_ceil(self.n_together)).collect();
        let drawn = parallel::map(&groups, |&group| self.group(group, first_step, n_steps));
        let of_sample = |sample: usize| {
            let group = &drawn[sample / self.n_together - groups[0]];
            &group[sample % self.n_together * n_numbers..][..n_numbers]
        };
        let normals = samples.clone().flat_map(of_sample).copied().collect();
        StratifiedNoise { seed: self.seed, first_sample: samples.start, first_step, n_series, n_steps, normals }
    }

    /// The noise of all samples of a group, `[sample, step, series]`.
    fn group(&self, group: usize, first_step: usize, n_steps: usize) -> Vec<f32> {
        let n_series = self.innovation.n_series();
        let samples = group * self.n_together..(group + 1) * self.n_together;
        let pairs: Vec<usize> = samples.clone().step_by(2).filter(|&first| !self.pool.takes(first)).collect();
        let strata = Strata { noise: Noise::new(self.seed), samples: &pairs, first_step };
        let drawn = unfold(&self.innovation.correlation, n_series, n_steps, &strata);
        let mut normals = vec![0.0; samples.len() * n_steps * n_series];
        for (first, normals_of_pair) in pairs.iter().zip(drawn) {
            let pair = &mut normals[(first - samples.start) * n_steps * n_series..][..2 * n_steps * n_series];
            let (normals, images) = pair.split_at_mut(n_steps * n_series);
            for ((normal, image), drawn) in normals.iter_mut().zip(images).zip(normals_of_pair) {
                *normal = drawn as f32;
                *image = -*normal;
            }
        }
        normals
    }
}

/// Kinds of coordinates of the noise, which have random numbers of their own.
#[derive(Clone, Copy)]
enum Coordinate {
    Series(usize),
    Direction(usize),
}

/// What stratifies the noise of the first samples of antithetic pairs.
struct Strata<'a> {
    noise: Noise,
    samples: &'a [usize],
    first_step: usize,
}

impl Strata<'_> {
    /// The noise of each sample for a coordinate of a step, for what is expected of a score before it is known.
    ///
    /// The mirror image of a sample is expected on the other side of 0, so the order is that of the distance from 0, and what
    /// leads away from it is stratified. Along the order the samples form about as many bands as each has samples. In each band
    /// every sample has a stratum, and in each stratum every band has a part.
    fn draw(&self, lead: usize, coordinate: Coordinate, expected: &[f64]) -> Vec<f64> {
        let words: Vec<[u32; 4]> = self.samples.iter().map(|&sample| self.words(sample, lead, coordinate)).collect();
        let n = expected.len();
        let mut order: Vec<usize> = (0..n).collect();
        let distance = |&index: &usize| expected[index].abs();
        order.sort_unstable_by(|a, b| distance(a).total_cmp(&distance(b)).then(words[*a][1].cmp(&words[*b][1])));
        let n_bands = n.isqrt().max(1);
        let mut strata: Vec<Vec<(usize, usize)>> = vec![vec![]; n.div_ceil(n_bands)];
        let mut rest = &mut order[..];
        for band in 0..n_bands {
            let (members, others) = rest.split_at_mut(rest.len() / (n_bands - band));
            members.sort_unstable_by_key(|&index| words[index][2]);
            let width = members.len();
            strata.iter_mut().zip(members).for_each(|(stratum, index)| stratum.push((*index, width)));
            rest = others;
        }
        let mut drawn = vec![0.0; n];
        for (number, stratum) in strata.iter_mut().enumerate() {
            stratum.sort_unstable_by_key(|&(index, _)| words[index][3]);
            let n_parts = stratum.len() as f64;
            for (part, &(index, width)) in stratum.iter().enumerate() {
                let inside = (f64::from(words[index][0]) + 0.5) / (f64::from(u32::MAX) + 1.0);
                let level = (number as f64 + (part as f64 + inside) / n_parts) / width as f64;
                let away = standard_normal_quantile(level);
                drawn[index] = if expected[index] < 0.0 { -away } else { away };
            }
        }
        drawn
    }

    fn words(&self, sample: usize, lead: usize, coordinate: Coordinate) -> [u32; 4] {
        let step = self.first_step + lead;
        match coordinate {
            Coordinate::Series(series) => self.noise.stratified(sample, step, series, 0),
            Coordinate::Direction(direction) => self.noise.stratified(sample, step, direction, 1),
        }
    }
}

/// Noise `[step, series]` of each sample, coordinate by coordinate, each told what is expected of the score that it is about.
fn unfold(correlation: &Correlation, n_series: usize, n_steps: usize, strata: &Strata<'_>) -> Vec<Vec<f64>> {
    let mut paths: Vec<Vec<f64>> = vec![Vec::with_capacity(n_steps * n_series); strata.samples.len()];
    match correlation {
        Correlation::None => {
            let expected = vec![0.0; paths.len()];
            for element in 0..n_steps * n_series {
                let coordinate = Coordinate::Series(element % n_series);
                push_each(&mut paths, &strata.draw(element / n_series, coordinate, &expected));
            }
        }
        Correlation::Dense { factor } => {
            let n_elements = factor.len().isqrt();
            for element in 0..n_steps * n_series {
                let row = &factor[element * n_elements..][..element];
                let expected: Vec<f64> = paths.iter().map(|path| dot(row, path)).collect();
                let coordinate = Coordinate::Series(element % n_series);
                push_each(&mut paths, &strata.draw(element / n_series, coordinate, &expected));
            }
        }
        Correlation::Principal { directions, factors, horizon, .. } => {
            let principal = PrincipalFactors { directions, factors, horizon: *horizon, n_series };
            // Innovations in each direction, `[sample][direction][lead]`.
            let mut components = vec![vec![vec![]; principal.n_directions()]; paths.len()];
            for lead in 0..n_steps {
                let explained =
                    |(path, components): (&Vec<f64>, &Vec<Vec<f64>>)| principal.explained(lead, path, components);
                let expected: Vec<Vec<f64>> = paths.iter().zip(&components).map(explained).collect();
                let steps = if principal.n_directions() == n_series {
                    whole_step(principal, lead, expected, strata)
                } else {
                    step_with_rest(principal, lead, expected, &components, strata)
                };
                for ((path, components), step) in paths.iter_mut().zip(&mut components).zip(steps) {
                    for (component, direction) in components.iter_mut().zip(directions.chunks_exact(n_series)) {
                        component.push(dot(direction, &step));
                    }
                    path.extend(step);
                }
            }
        }
    }
    paths
}

/// A step of each sample where every direction has a factor of its own. What is new about its scores has the covariance
/// `B² = Σ_j t_j² u_j u_jᵀ`; series by series it is `C ε` with the Cholesky factor `C` of that, and the step is `B⁻¹ C ε`.
fn whole_step(
    principal: PrincipalFactors<'_>,
    lead: usize,
    mut expected: Vec<Vec<f64>>,
    strata: &Strata<'_>,
) -> Vec<Vec<f64>> {
    let PrincipalFactors { directions, n_series, .. } = principal;
    let in_series = |weight: &dyn Fn(f64) -> f64| {
        DMatrix::from_fn(n_series, n_series, |a, b| {
            let directions = directions.chunks_exact(n_series).enumerate();
            directions.map(|(index, u)| weight(principal.row(index, lead)[lead]) * u[a] * u[b]).sum()
        })
    };
    let (new, turn) = match in_series(&|own| own.powi(2)).cholesky() {
        Some(cholesky) => {
            let new = cholesky.l();
            let turn = in_series(&f64::recip) * &new;
            (new, turn)
        }
        // The order among the series of the step is then not quite that of their scores.
        None => (in_series(&|own| own), DMatrix::identity(n_series, n_series)),
    };
    let mut drawn = vec![Vec::with_capacity(n_series); expected.len()];
    for series in 0..n_series {
        let here: Vec<f64> = expected.iter().map(|expected| expected[series]).collect();
        let normals = strata.draw(lead, Coordinate::Series(series), &here);
        for (expected, &normal) in expected.iter_mut().zip(&normals) {
            add(expected, new.column(series).as_slice(), normal);
        }
        push_each(&mut drawn, &normals);
    }
    let turned = |normals: Vec<f64>| (&turn * DVectorView::from_slice(&normals, n_series)).as_slice().to_vec();
    drawn.into_iter().map(turned).collect()
}

/// A step of each sample where what lies outside of the directions shares one factor: first the directions, then the series,
/// of which there are so many more that what their noise has in the directions hardly counts.
fn step_with_rest(
    principal: PrincipalFactors<'_>,
    lead: usize,
    mut expected: Vec<Vec<f64>>,
    components: &[Vec<Vec<f64>>],
    strata: &Strata<'_>,
) -> Vec<Vec<f64>> {
    let PrincipalFactors { directions, n_series, .. } = principal;
    let mut along = vec![Vec::with_capacity(principal.n_directions()); expected.len()];
    for (index, direction) in directions.chunks_exact(n_series).enumerate() {
        let row = principal.row(index, lead);
        let here: Vec<f64> = components.iter().map(|components| dot(&row[..lead], &components[index])).collect();
        let normals = strata.draw(lead, Coordinate::Direction(index), &here);
        for (expected, normal) in expected.iter_mut().zip(&normals) {
            add(expected, direction, row[lead] * normal);
        }
        push_each(&mut along, &normals);
    }
    let mut steps = vec![Vec::with_capacity(n_series); expected.len()];
    for series in 0..n_series {
        let here: Vec<f64> = expected.iter().map(|expected| expected[series]).collect();
        push_each(&mut steps, &strata.draw(lead, Coordinate::Series(series), &here));
    }
    for (step, along) in steps.iter_mut().zip(&along) {
        let inside: Vec<f64> = directions.chunks_exact(n_series).map(|direction| dot(direction, step)).collect();
        for ((direction, along), inside) in directions.chunks_exact(n_series).zip(along).zip(inside) {
            add(step, direction, along - inside);
        }
    }
    steps
}

fn push_each(paths: &mut [Vec<f64>], values: &[f64]) {
    paths.iter_mut().zip(values).for_each(|(path, value)| path.push(*value));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::correlation::Structure;
    use crate::innovation::ErrorPaths;
    use crate::noise::Stream;
    use crate::scaling::Scaling;

    const N_SERIES: usize = 4;
    const HORIZON: usize = 6;
    const N_ELEMENTS: usize = N_SERIES * HORIZON;
    static NO_POOL: Pool = Pool { share: 0.0, n_elements: N_ELEMENTS, innovations: Vec::new() };

    /// Laws of every structure: steps that follow one another, and series that have something in common.
    fn laws() -> [(&'static str, Innovation); 4] {
        let mut stream = Stream::new(1, 0);
        let mut values = vec![];
        for _ in 0..2000 {
            let mut levels = [0.0; N_SERIES];
            for _ in 0..HORIZON {
                let common = stream.normal();
                levels = levels.map(|level| 0.8 * level + 0.6 * common + 0.5 * stream.normal());
                values.extend(levels);
            }
        }
        let paths = ErrorPaths { n_series: N_SERIES, n_elements: N_ELEMENTS, values };
        let fitted = |structure: Structure| structure.products(&paths, None).factor(0.03).expect("positive definite");
        let law = |correlation| Innovation {
            deviation: vec![1.0; N_ELEMENTS],
            shape: Scaling::identity(N_SERIES),
            correlation,
        };
        [
            ("dense", law(fitted(Structure::Dense))),
            ("directions", law(fitted(Structure::Principal { n_directions: N_SERIES }))),
            ("a direction and the rest", law(fitted(Structure::Principal { n_directions: 1 }))),
            ("none", law(Correlation::None)),
        ]
    }

    fn stratified(innovation: &Innovation, seed: u64) -> Stratified<'_> {
        Stratified { innovation, pool: &NO_POOL, seed, n_together: N_TOGETHER }
    }

    /// How far the samples of a group lie from where their scores should, for noise `[sample][element]` of a seed: the mean over elements
    /// and samples of the squared distance between the share of samples below a score and its level.
    fn misplaced(innovation: &Innovation, noise: impl Fn(u64) -> Vec<Vec<f32>>) -> f64 {
        const N_SEEDS: u64 = 10;
        let mut sum = 0.0;
        for seed in 0..N_SEEDS {
            let scores_of = |normals: Vec<f32>| {
                let normals: Vec<f64> = normals.into_iter().map(f64::from).collect();
                innovation.correlation.colour(&normals, N_SERIES)
            };
            let scores: Vec<Vec<f64>> = noise(seed).into_iter().map(scores_of).collect();
            for element in 0..N_ELEMENTS {
                let row = innovation.correlation.row(element, N_ELEMENTS, N_SERIES);
                let level = |score: &f64| 0.5 * libm::erfc(-score / (2.0 * dot(&row, &row)).sqrt());
                let mut levels: Vec<f64> = scores.iter().map(|path| level(&path[element])).collect();
                levels.sort_by(f64::total_cmp);
                let distance =
                    |(index, level): (usize, f64)| ((index as f64 + 0.5) / N_TOGETHER as f64 - level).powi(2);
                sum += levels.into_iter().enumerate().map(distance).sum::<f64>();
            }
        }
        sum / (N_SEEDS as usize * N_ELEMENTS * N_TOGETHER) as f64
    }

    #[test]
    fn the_noise_of_each_sample_is_independent_and_standard_normal() {
        const N_SEEDS: usize = 4000;
        for (name, innovation) in laws() {
            for sample in [0, 13] {
                let drawn = |seed: usize| {
                    let noise = stratified(&innovation, seed as u64).noise(sample..sample + 1, 0, HORIZON);
                    DVectorView::from_slice(noise.of_sample(sample), N_ELEMENTS).map(f64::from)
                };
                let mut products = DMatrix::zeros(N_ELEMENTS, N_ELEMENTS);
                let mut fourth = 0.0;
                for seed in 0..N_SEEDS {
                    let normals = drawn(seed);
                    products += &normals * normals.transpose() / N_SEEDS as f64;
                    fourth += normals.map(|normal| normal.powi(4)).mean() / N_SEEDS as f64;
                }
                let off = (products - DMatrix::identity(N_ELEMENTS, N_ELEMENTS)).abs().max();
                // Four and a half standard errors of a variance, and of the mean of 24 fourth powers.
                assert!(off < 0.1, "{name}: {off}");
                assert!((fourth - 3.0).abs() < 0.15, "{name}: {fourth}");
            }
        }
    }

    #[test]
    fn scores_lie_where_they_should() {
        for (name, innovation) in laws() {
            let spread = misplaced(&innovation, |seed| {
                let noise = stratified(&innovation, seed).noise(0..N_TOGETHER, 0, HORIZON);
                (0..N_TOGETHER).map(|sample| noise.of_sample(sample).to_vec()).collect()
            });
            let independent = misplaced(&innovation, |seed| {
                let noise = Noise::new(seed);
                let normal = |sample: usize, element: usize| {
                    noise.normal(sample as u32, (element / N_SERIES) as u32, (element % N_SERIES) as u32)
                };
                (0..N_TOGETHER).map(|sample| (0..N_ELEMENTS).map(|element| normal(sample, element)).collect()).collect()
            });
            // Where the rest is of few series, taking the directions out of it disturbs the order.
            let share = if matches!(name, "a direction and the rest") { 0.6 } else { 0.4 };
            assert!(spread < share * independent, "{name}: {spread} {independent}");
        }
    }

    #[test]
    fn what_series_have_in_common_does_not_bring_the_rest_of_them_together() {
        // The order of every series is that of the common part: their own parts must not have the same strata.
        let mut factor = vec![0.0; 100];
        for element in 0..10 {
            factor[element * 10] = 0.8;
            factor[element * 11] = if element == 0 { 1.0 } else { 0.6 };
        }
        let correlation = Correlation::Dense { factor };
        let innovation = Innovation { deviation: vec![1.0; 10], shape: Scaling::identity(10), correlation };
        let pool = Pool { share: 0.0, n_elements: 10, innovations: vec![] };
        let mut squares = 0.0;
        for seed in 0..50 {
            let law = Stratified { innovation: &innovation, pool: &pool, seed, n_together: N_TOGETHER };
            let noise = law.noise(0..N_TOGETHER, 0, 1);
            let pairs = (1..10).flat_map(|a| (1..a).map(move |b| (a, b)));
            squares += pairs
                .map(|(a, b)| {
                    let products = (0..N_TOGETHER).map(|sample| {
                        let noise = noise.of_sample(sample);
                        f64::from(noise[a]) * f64::from(noise[b])
                    });
                    (products.sum::<f64>() / N_TOGETHER as f64).powi(2)
                })
                .sum::<f64>();
        }
        // As for fifty independent pairs of samples, each of whose correlations has a variance of 1/50.
        let root_mean_square = (squares / (50.0 * 36.0)).sqrt();
        assert!((root_mean_square - 0.02_f64.sqrt()).abs() < 0.03, "{root_mean_square}");
    }

    #[test]
    fn noise_is_the_same_whatever_else_is_drawn_and_comes_in_pairs() {
        for (_, innovation) in laws() {
            let law = stratified(&innovation, 3);
            let all = law.noise(0..250, 6, HORIZON);
            let some = law.noise(96..104, 6, 2);
            for sample in 96..104 {
                assert_eq!(some.of_sample(sample), &all.of_sample(sample)[..2 * N_SERIES]);
            }
            for sample in (0..250).step_by(2) {
                let mirrored: Vec<f32> = all.of_sample(sample + 1).iter().map(|normal| -normal).collect();
                assert_eq!(all.of_sample(sample), mirrored);
            }
            assert_eq!(all.normal(7, 8, 1), all.of_sample(7)[2 * N_SERIES + 1]);
            let others = [law.noise(0..1, 0, 1), stratified(&innovation, 4).noise(0..1, 6, 1)];
            assert!(others.iter().all(|other| other.of_sample(0)[0] != all.of_sample(0)[0]));
        }
    }

    #[test]
    fn samples_of_the_pool_leave_their_strata_to_the_others() {
        let pool = Pool { share: 0.5, n_elements: N_ELEMENTS, innovations: vec![1.0; N_ELEMENTS] };
        let [(_, innovation), ..] = &laws();
        let law = Stratified { innovation, pool: &pool, seed: 1, n_together: N_TOGETHER };
        let noise = law.noise(0..N_TOGETHER, 0, HORIZON);
        let drawn = (0..N_TOGETHER).filter(|&sample| !pool.takes(sample));
        // Twenty-five pairs: in each of as many strata there are a sample and the image of another.
        let level = |sample: usize| 0.5 * libm::erfc(-f64::from(noise.of_sample(sample)[0]) / 2.0_f64.sqrt());
        let mut strata: Vec<usize> = drawn.map(|sample| (25.0 * level(sample)) as usize).collect();
        strata.sort_unstable();
        assert_eq!(strata, (0..25).flat_map(|stratum| [stratum; 2]).collect::<Vec<_>>());
    }
}
