//! A pool of past innovations: some trajectories take the path that the errors once took.
//!
//! Rare events hold together in ways that neither a correlation nor a network learns from the few that there are: a price
//! stays high for hours, and in both markets. Whole paths of out-of-fold innovations keep that. They go through the same
//! correlation, spread and base as what is sampled, so only the noise comes from the past, not the state. The share of
//! the trajectories that take one is chosen on the last fold, and is at most a half.

use crate::noise::Stream;

/// Paths that are kept, the newest.
const N_PATHS_MAX: usize = 1000;
/// Numbers that are kept.
const N_ELEMENTS_MAX: usize = 2_000_000;

/// Shares of the trajectories that are tried.
pub const POOL_SHARES: [f64; 3] = [0.0, 0.25, 0.5];

/// Whole past paths of innovations, and the share of trajectories that take one.
#[derive(Clone, Debug, PartialEq)]
pub struct Pool {
    /// Share of the trajectories, one of [`POOL_SHARES`].
    pub share: f64,
    /// Elements of a path.
    pub n_elements: usize,
    /// Innovations `[path, lead, series]`.
    pub innovations: Vec<f32>,
}

impl Pool {
    /// A pool of paths, the oldest first; those with gaps are left out.
    pub fn new(share: f64, n_elements: usize, paths: impl DoubleEndedIterator<Item = Vec<f32>>) -> Self {
        let n_paths_max = N_PATHS_MAX.min(N_ELEMENTS_MAX / n_elements);
        let is_whole = |path: &Vec<f32>| path.iter().all(|z| !z.is_nan());
        let newest: Vec<Vec<f32>> = paths.rev().filter(is_whole).take(n_paths_max).collect();
        Self { share, n_elements, innovations: newest.concat() }
    }

    /// Whether a sample takes a path. Samples do so in pairs, because they come in antithetic pairs.
    pub fn takes(&self, sample: usize) -> bool {
        let pair = sample / 2;
        let is_pooled = ((pair + 1) as f64 * self.share).floor() > (pair as f64 * self.share).floor();
        is_pooled && !self.innovations.is_empty()
    }

    /// The path that a sample takes in a block of the trained horizon; `None` when it is to be denoised.
    pub fn path(&self, seed: u64, sample: usize, block: usize) -> Option<&[f32]> {
        self.takes(sample).then(|| {
            let n_paths = self.innovations.len() / self.n_elements;
            let mut stream = Stream::new(seed ^ (sample as u64) << 32, STREAM_POOL + block as u32);
            &self.innovations[stream.below(n_paths) * self.n_elements..][..self.n_elements]
        })
    }
}

/// Streams of random numbers of the pool, one per block.
const STREAM_POOL: u32 = 1 << 16;

#[cfg(test)]
mod tests {
    use super::*;

    fn pool(share: f64) -> Pool {
        Pool::new(share, 2, (0..10).map(|path| vec![path as f32, if path == 3 { f32::NAN } else { 1.0 }]))
    }

    #[test]
    fn the_share_of_the_samples_takes_a_whole_path_without_gaps() {
        for share in POOL_SHARES {
            let pool = pool(share);
            let taken: Vec<&[f32]> = (0..80).filter_map(|sample| pool.path(1, sample, 0)).collect();
            assert_eq!(taken.len(), (80.0 * share) as usize);
            assert!(taken.iter().all(|path| path[1] == 1.0 && path[0] != 3.0));
        }
    }

    #[test]
    fn paths_depend_on_seed_sample_and_block_alone() {
        let pool = pool(0.5);
        let drawn = |seed, block| (0..80).filter_map(|sample| pool.path(seed, sample, block)).collect::<Vec<_>>();
        assert_eq!(drawn(1, 0), drawn(1, 0));
        assert_ne!(drawn(1, 0), drawn(2, 0));
        assert_ne!(drawn(1, 0), drawn(1, 1));
    }
}
