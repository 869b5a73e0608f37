//! How the time of a training is divided once its base is known.

use std::time::Instant;

use serde::{Deserialize, Serialize};

/// Share of the time that is kept for what nobody has counted.
const MARGIN: f64 = 0.03;
/// Most steps of a pass.
pub(crate) const N_STEPS_MAX: usize = 2000;
/// Time of a step of the first pass with its part of the looks at the validation windows, relative to the step alone.
const VALIDATION_OVERHEAD: f64 = 1.25;
/// Share of what is left for the network that comparing trajectories takes at most.
const COMPARE_SHARE_MAX: f64 = 1.0 / 3.0;

/// What is left to do: a first pass, comparing the trajectories of its networks, fitting the base on all folds, and a second
/// pass of at most as many steps.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Timetable {
    /// When the whole training began.
    pub started: Instant,
    /// Seconds of the whole training.
    pub seconds: f64,
    /// Seconds that fitting the base on all folds takes.
    pub base_seconds: f64,
}

/// What parts of the work take, as was measured.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Pace {
    /// Seconds of a step.
    pub step: f64,
    /// Seconds until the trajectories of a network are compared.
    pub comparison: f64,
}

impl Timetable {
    fn elapsed(&self) -> f64 {
        self.started.elapsed().as_secs_f64()
    }

    /// Seconds that are left for the network.
    fn left(&self) -> f64 {
        self.seconds * (1.0 - MARGIN) - self.base_seconds - self.elapsed()
    }

    /// Steps that the first pass has time for, where so many networks are compared after so many steps.
    pub fn n_steps(&self, pace: Pace, n_compared: impl Fn(usize) -> usize) -> usize {
        let left = self.left();
        let is_in_time = |n_steps: &usize| {
            let passes = (VALIDATION_OVERHEAD + 1.0) * pace.step * *n_steps as f64;
            let comparing = pace.comparison * n_compared(*n_steps) as f64;
            passes + comparing.min(COMPARE_SHARE_MAX * left) <= left
        };
        (1..=N_STEPS_MAX).take_while(is_in_time).count()
    }

    /// Whether there is time for so many comparisons before a second pass of so many steps.
    pub fn has_time_for(&self, n_comparisons: usize, n_steps: usize, pace: Pace) -> bool {
        pace.comparison * n_comparisons as f64 + pace.step * n_steps as f64 <= self.left()
    }

    /// Whether time is over.
    pub fn is_over(&self) -> bool {
        self.elapsed() > self.seconds
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn timetable(seconds: f64) -> Timetable {
        Timetable { started: Instant::now(), seconds, base_seconds: 10.0 }
    }

    #[test]
    fn all_that_is_left_to_do_has_its_time() {
        let (pace, n_compared) = (Pace { step: 0.05, comparison: 1.0 }, |n_steps: usize| 5 + n_steps / 100);
        let n_steps = timetable(60.0).n_steps(pace, n_compared);
        let seconds = |n_steps: usize| 10.0 + 2.25 * 0.05 * n_steps as f64 + n_compared(n_steps) as f64;
        assert!(seconds(n_steps) < 60.0 && seconds(n_steps + 1) > 0.95 * 60.0, "{n_steps}");
        assert_eq!(timetable(3600.0).n_steps(pace, n_compared), N_STEPS_MAX);
        assert_eq!(timetable(5.0).n_steps(pace, n_compared), 0);
        // Comparing is cut short where it would take most of the time.
        let slow = Pace { comparison: 100.0, ..pace };
        assert!(timetable(60.0).n_steps(slow, n_compared) > 200);
    }

    #[test]
    fn what_comes_after_comparing_has_its_time() {
        let pace = Pace { step: 0.05, comparison: 1.0 };
        assert!(timetable(60.0).has_time_for(3, 100, pace));
        assert!(!timetable(60.0).has_time_for(3, 1000, pace));
        assert!(!timetable(60.0).has_time_for(50, 0, pace));
    }
}
