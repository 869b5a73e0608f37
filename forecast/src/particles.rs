//! Particles that are brought to meet limits, level by level (see [`crate::guidance`]).

use std::collections::HashMap;

use crate::Error;
use crate::condition::{Condition, Demand};
use crate::guidance::{Guide, Weighted};
use crate::noise::{NoiseSource, SampleNoise, Stream};

const STREAM_GUIDANCE: u32 = 6;
/// Fewest particles of a level.
const N_PARTICLES_MIN: usize = 256;
/// Share of the particles that meets the next level.
const SURVIVORS: f64 = 0.25;
/// Levels after which limits count as out of reach.
const N_LEVELS_MAX: usize = 60;
/// Particles are moved until their correlation with where they came from is this: between levels, and at the last one.
const MEMORY: [f64; 2] = [0.6, 0.15];
/// Most moves: between levels, and at the last one.
const N_MOVES_MAX: [usize; 2] = [5, 60];
/// Acceptance below and above which moves get shorter and longer.
const ACCEPTANCE: [f64; 2] = [0.25, 0.45];
/// Logarithms of weights that differ by less are equal.
const LOG_WEIGHT_ROUNDING: f64 = 1e-6;

/// What was drawn under conditions.
pub(crate) struct Drawn {
    pub paths: Vec<Vec<f32>>,
    pub effective_sample_size: f64,
    /// Share of the candidates' weight that meets the limits, and its standard error.
    pub probability: f64,
    pub standard_error: f64,
    pub n_drawn: usize,
}

/// Particles of one level.
struct Particles {
    noise: Vec<SampleNoise>,
    drawn: Weighted,
    /// Which survivor each comes from.
    families: Vec<usize>,
}

impl Guide<'_> {
    /// Draws as many paths as were asked for, from candidates.
    pub(crate) fn draw(&self, candidates: Weighted, mut n_drawn: usize, n_draws_max: usize) -> Result<Drawn, Error> {
        let n_samples = self.config.n_samples;
        let mut excesses = self.excesses(&candidates.paths);
        let mut tilts = self.tilts(&candidates.paths);
        let tilted: Vec<f64> =
            candidates.log_weights.iter().zip(&tilts).map(|(log_weight, tilt)| log_weight + tilt).collect();
        let mut weights = relative_weights(&tilted);
        if weights.iter().all(|weight| *weight == 0.0) {
            return Err(self.prescribed_not_met(&candidates, n_drawn));
        }
        let met: Vec<usize> =
            (0..weights.len()).filter(|&index| excesses[index] == 0.0 && weights[index] > 0.0).collect();
        let met_weights: Vec<f64> = met.iter().map(|&index| weights[index]).collect();
        let probability = met_weights.iter().sum::<f64>() / weights.iter().sum::<f64>();
        if effective(&met_weights) >= n_samples as f64 {
            // The first ones where all count the same, so that conditions that are always met change nothing.
            let is_even = met_weights.iter().all(|weight| *weight == met_weights[0]);
            let chosen: Vec<usize> =
                if is_even { (0..n_samples).collect() } else { systematic(&met_weights, n_samples, 0.5) };
            return Ok(Drawn {
                effective_sample_size: n_samples as f64 / mean_family_size(&chosen),
                paths: chosen.into_iter().map(|index| candidates.paths[met[index]].clone()).collect(),
                probability,
                standard_error: (probability * (1.0 - probability) / effective(&weights)).sqrt(),
                n_drawn,
            });
        }

        let n_particles = n_samples.max(N_PARTICLES_MIN);
        let mut stream = Stream::new(self.config.seed, STREAM_GUIDANCE);
        let mut particles = Particles { noise: vec![], drawn: candidates, families: vec![] };
        let (mut level, mut rate, mut relative_variance, mut memory, mut beta) = (f64::INFINITY, 1.0, 0.0, 0.0, 0.5);
        // Tilts, too, come by and by: particles of a level have the law with this share of them. Without any it is all at once.
        let mut share_of_tilt = 0.0;
        weights = relative_weights(&particles.drawn.log_weights);
        for _ in 0..N_LEVELS_MAX {
            let n_wanted = SURVIVORS * n_particles as f64;
            let next_share = next_share_of_tilt(&tilts, &weights, share_of_tilt);
            weights = tilted_weights(&tilts, &weights, next_share - share_of_tilt);
            let next = next_level(&excesses, &weights, n_wanted);
            if next >= level && next_share == share_of_tilt {
                break;
            }
            share_of_tilt = next_share;
            let survivors: Vec<usize> =
                (0..weights.len()).filter(|&index| excesses[index] <= next && weights[index] > 0.0).collect();
            let survivors_weights: Vec<f64> = survivors.iter().map(|&index| weights[index]).collect();
            let share = survivors_weights.iter().sum::<f64>() / weights.iter().sum::<f64>();
            let family_size = if particles.families.is_empty() { 1.0 } else { mean_family_size(&particles.families) };
            relative_variance +=
                (1.0 - share) / share / effective(&weights) * (1.0 + (family_size - 1.0) * memory * memory);
            rate *= share;
            level = next;

            let families = systematic(&survivors_weights, n_particles, stream.uniform());
            particles = self.resampled(&particles, &survivors, families);
            let is_done = level == 0.0 && share_of_tilt == 1.0;
            let is_last = usize::from(is_done);
            let origins = particles.drawn.paths.clone();
            memory = 1.0;
            for _ in 0..N_MOVES_MAX[is_last] {
                if memory <= MEMORY[is_last] || n_drawn + n_particles > n_draws_max {
                    break;
                }
                self.step(&mut particles, level, share_of_tilt, &mut beta, &mut stream)?;
                n_drawn += n_particles;
                memory = self.memory(&origins, &particles.drawn.paths);
            }
            excesses = self.excesses(&particles.drawn.paths);
            tilts = self.tilts(&particles.drawn.paths);
            weights = vec![1.0; n_particles];
            if is_done {
                let chosen: Vec<usize> = (0..n_samples).map(|index| index * n_particles / n_samples).collect();
                let families: Vec<usize> = chosen.iter().map(|&index| particles.families[index]).collect();
                let paths: Vec<Vec<f32>> =
                    chosen.into_iter().map(|index| particles.drawn.paths[index].clone()).collect();
                // Copies of one path of the pool are one, whatever families they are of.
                let sharing = 1.0 + (mean_family_size(&families) - 1.0) * memory * memory;
                let sharing = sharing.max(mean_family_size(&copies(&paths)));
                return Ok(Drawn {
                    paths,
                    effective_sample_size: n_samples as f64 / sharing,
                    probability: rate,
                    standard_error: rate * relative_variance.sqrt(),
                    n_drawn,
                });
            }
            if n_drawn + n_particles > n_draws_max {
                break;
            }
        }
        Err(self.limit_not_met(&particles.drawn.paths, n_drawn))
    }

    /// Copies of survivors; a candidate of the first level gets its noise here.
    fn resampled(&self, particles: &Particles, survivors: &[usize], families: Vec<usize>) -> Particles {
        let chosen: Vec<usize> = families.iter().map(|&family| survivors[family]).collect();
        let noise = if particles.noise.is_empty() {
            self.prepared.noise(self.config.seed, &chosen)
        } else {
            chosen.iter().map(|&index| particles.noise[index].clone()).collect()
        };
        let mut drawn = Weighted::default();
        for &index in &chosen {
            drawn.push(particles.drawn.paths[index].clone(), particles.drawn.log_weights[index]);
        }
        Particles { noise, drawn, families }
    }

    fn tilts(&self, paths: &[Vec<f32>]) -> Vec<f64> {
        paths.iter().map(|path| self.tilt(path)).collect()
    }

    /// Moves every particle once, inside the level.
    fn step(
        &self,
        particles: &mut Particles,
        level: f64,
        share_of_tilt: f64,
        beta: &mut f64,
        stream: &mut Stream,
    ) -> Result<(), Error> {
        let proposed: Vec<SampleNoise> = particles.noise.iter().map(|noise| noise.moved(*beta, stream)).collect();
        let mut drawn = Weighted::default();
        let source = NoiseSource::Given(&proposed);
        self.prepared.draw(
            proposed.len(),
            &self.config,
            source,
            self.equalities.as_ref(),
            None,
            &mut |path, log_weight| {
                drawn.push(path, log_weight);
            },
        )?;
        let excesses = self.excesses(&drawn.paths);
        let (mut n_tried, mut n_accepted) = (0, 0);
        let moves = proposed.into_iter().zip(drawn.paths).zip(drawn.log_weights).zip(excesses).enumerate();
        for (index, (((noise, path), log_weight), excess)) in moves {
            let tilt = self.tilt(&path) - self.tilt(&particles.drawn.paths[index]);
            let log_ratio = log_weight - particles.drawn.log_weights[index] + share_of_tilt * tilt;
            let is_accepted = excess <= level && libm::log(stream.uniform()) < log_ratio;
            if !self.prepared.is_pooled(&noise) {
                n_tried += 1;
                n_accepted += usize::from(is_accepted);
            }
            if is_accepted {
                particles.noise[index] = noise;
                particles.drawn.paths[index] = path;
                particles.drawn.log_weights[index] = log_weight;
            }
        }
        let acceptance = n_accepted as f64 / n_tried.max(1) as f64;
        let [low, high] = ACCEPTANCE;
        *beta *= if acceptance < low {
            0.7
        } else if acceptance > high {
            1.4
        } else {
            1.0
        };
        *beta = beta.clamp(1e-3, 1.0);
        Ok(())
    }

    /// Correlation over the particles between where they came from and where they are: the mean over the elements of the path, or
    /// that of the number of a condition, whichever is larger.
    fn memory(&self, before: &[Vec<f32>], after: &[Vec<f32>]) -> f64 {
        let of_element = |element: usize| {
            let pair = |index: usize| (f64::from(before[index][element]), f64::from(after[index][element]));
            correlation((0..before.len()).map(pair))
        };
        let elements: Vec<f64> = (0..before[0].len()).filter_map(of_element).collect();
        let mean = elements.iter().sum::<f64>() / elements.len().max(1) as f64;
        let of_number = |condition: &Condition| {
            let read =
                |(before, after): (&Vec<f32>, &Vec<f32>)| (self.read(condition, before), self.read(condition, after));
            match condition.demand {
                Demand::Equal(_) => None,
                Demand::Within(_) | Demand::Tilt(_) => correlation(before.iter().zip(after).map(read)),
            }
        };
        self.conditions.iter().filter_map(of_number).fold(mean, f64::max).clamp(0.0, 1.0)
    }
}

/// Weights of which the largest is 1.
fn relative_weights(log_weights: &[f64]) -> Vec<f64> {
    let largest = log_weights.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let relative = |&log_weight: &f64| match largest - log_weight {
        below if below.is_nan() => 0.0,
        below if below < LOG_WEIGHT_ROUNDING => 1.0,
        below => libm::exp(-below),
    };
    log_weights.iter().map(relative).collect()
}

/// Number of equal weights that say as much (Kish 1965).
fn effective(weights: &[f64]) -> f64 {
    let squares: f64 = weights.iter().map(|weight| weight * weight).sum();
    if squares > 0.0 { weights.iter().sum::<f64>().powi(2) / squares } else { 0.0 }
}

/// Weights with a further share of the tilt, relative to the largest.
fn tilted_weights(tilts: &[f64], weights: &[f64], share: f64) -> Vec<f64> {
    let tilted = |(tilt, weight): (&f64, &f64)| libm::log(*weight) + share * tilt;
    relative_weights(&tilts.iter().zip(weights).map(tilted).collect::<Vec<_>>())
}

/// The largest share of the tilt, up to all of it, that leaves half of the particles by their effective number. With fewer, the
/// particles would miss the tail towards which a larger share leads.
fn next_share_of_tilt(tilts: &[f64], weights: &[f64], now: f64) -> f64 {
    let n_wanted = 0.5 * effective(weights);
    let leaves_enough = |share: f64| effective(&tilted_weights(tilts, weights, share - now)) >= n_wanted;
    if now == 1.0 || leaves_enough(1.0) {
        return 1.0;
    }
    let (mut low, mut high) = (now, 1.0);
    for _ in 0..20 {
        let middle = 0.5 * (low + high);
        *(if leaves_enough(middle) { &mut low } else { &mut high }) = middle;
    }
    low
}

/// The lowest level that so many particles meet, by their effective number; the highest one where there are fewer.
fn next_level(excesses: &[f64], weights: &[f64], n_wanted: f64) -> f64 {
    let mut order: Vec<usize> = (0..excesses.len()).filter(|&index| weights[index] > 0.0).collect();
    order.sort_by(|&a, &b| excesses[a].total_cmp(&excesses[b]));
    let (mut sum, mut squares, mut level) = (0.0, 0.0, 0.0);
    for index in order {
        level = excesses[index];
        sum += weights[index];
        squares += weights[index].powi(2);
        if sum * sum >= n_wanted * squares {
            break;
        }
    }
    level
}

/// Chooses indices in proportion to their weights, evenly, from one offset in (0, 1).
fn systematic(weights: &[f64], n: usize, offset: f64) -> Vec<usize> {
    let step = weights.iter().sum::<f64>() / n as f64;
    let (mut index, mut passed) = (0, weights[0]);
    let mut chosen = Vec::with_capacity(n);
    for number in 0..n {
        let position = (number as f64 + offset) * step;
        while passed < position && index + 1 < weights.len() {
            index += 1;
            passed += weights[index];
        }
        chosen.push(index);
    }
    chosen
}

/// Mean size of the family of a member; equal numbers are one family.
fn mean_family_size(families: &[usize]) -> f64 {
    let mut sorted = families.to_vec();
    sorted.sort_unstable();
    let squares: usize = sorted.chunk_by(|a, b| a == b).map(|family| family.len().pow(2)).sum();
    squares as f64 / families.len() as f64
}

/// For each path the index of the first one that is the same.
fn copies(paths: &[Vec<f32>]) -> Vec<usize> {
    let bits = |path: &Vec<f32>| -> Vec<u32> { path.iter().map(|value| value.to_bits()).collect() };
    let mut first = HashMap::new();
    paths.iter().enumerate().map(|(index, path)| *first.entry(bits(path)).or_insert(index)).collect()
}

/// Correlation of pairs of numbers; `None` where one of them does not vary.
fn correlation(pairs: impl Iterator<Item = (f64, f64)> + Clone) -> Option<f64> {
    let n = pairs.clone().count() as f64;
    let (a, b) = pairs.clone().fold((0.0, 0.0), |(a, b), (x, y)| (a + x / n, b + y / n));
    let (mut aa, mut bb, mut ab) = (0.0, 0.0, 0.0);
    for (x, y) in pairs {
        aa += (x - a).powi(2);
        bb += (y - b).powi(2);
        ab += (x - a) * (y - b);
    }
    let scale = (aa * bb).sqrt();
    (scale > 1e-12 * (a * a + b * b + f64::MIN_POSITIVE) * n).then(|| ab / scale)
}
