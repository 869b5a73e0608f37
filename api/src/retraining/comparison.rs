//! Whether a candidate is better than what it is to replace: the paired difference of their scores on the same windows.
//!
//! ```text
//! d_w  = (c_w − r_w) / mean(r)          c, r: CRPS of candidate and reference on window w
//! mean(d) ± t(confidence, n − 1) · sd(d) / √n
//! ```
//!
//! Windows do not overlap, so that the differences depend on each other little; the interval takes them for independent.

use chrono::{DateTime, Utc};

use super::policy::Policy;
use crate::db::words::Decision;

/// What the central 80 % intervals promise to cover.
const NOMINAL: f64 = 0.8;

/// Scores of one forecast of one window.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct WindowScore {
    /// CRPS, relative to the mean magnitude of the truth, as everywhere.
    pub crps: f64,
    /// Share of the truth inside the central 80 % interval.
    pub coverage_80: f64,
}

/// A window that both models forecast from what was known at its issue time.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct WindowPair {
    /// When both forecasts were made.
    pub issue_time: DateTime<Utc>,
    /// Whether nothing that became known later was seen when the reference was trained.
    pub is_fair: bool,
    /// The candidate's score.
    pub candidate: WindowScore,
    /// The score of what it was compared with.
    pub reference: WindowScore,
}

/// What a candidate is compared with.
#[derive(Clone, Debug, PartialEq)]
pub enum Reference {
    /// The champion.
    Champion {
        /// Its identifier.
        model_id: i32,
        /// Its version.
        version: i32,
    },
    /// Last season's values with the errors that they made before.
    SeasonalNaive {
        /// Why there is no champion to compare with, as the beginning of a sentence.
        why: String,
    },
}

/// Mean relative difference in CRPS with its confidence interval; below 0 the candidate is better.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Difference {
    /// The mean.
    pub mean: f64,
    /// Lower end.
    pub lower: f64,
    /// Upper end.
    pub upper: f64,
}

/// What was decided, and why.
#[derive(Clone, Debug, PartialEq)]
pub struct Verdict {
    /// Over the fair windows; none where there are less than two, or the reference is perfect.
    pub difference: Option<Difference>,
    /// What becomes of the candidate.
    pub decision: Decision,
    /// Whether a person should look at it.
    pub is_flagged: bool,
    /// The reason in words.
    pub reason: String,
}

/// Compares and decides.
///
/// Against a champion, only fair windows count, and with too few of them nothing is decided. The candidate is promoted
/// when its mean CRPS is lower, the upper end of the interval is at most the tolerance, and its coverage lies within
/// bounds, or nearer to 80 % than the champion's, which is flagged; otherwise it is rejected.
///
/// Without a champion that can be used, the candidate is promoted, since a panel without a model answers nothing; it is
/// flagged unless it beats seasonal naive and its coverage lies within bounds.
#[must_use]
pub fn judge(windows: &[WindowPair], reference: &Reference, policy: &Policy) -> Verdict {
    let fair: Vec<&WindowPair> = windows.iter().filter(|window| window.is_fair).collect();
    let difference = difference(&fair, policy.confidence);
    let verdict = |decision, is_flagged, reason| Verdict { difference, decision, is_flagged, reason };
    let coverage_of = |score: fn(&WindowPair) -> WindowScore| {
        fair.iter().map(|window| score(window).coverage_80).sum::<f64>() / fair.len() as f64
    };
    let (coverage, coverage_before) = (coverage_of(|window| window.candidate), coverage_of(|window| window.reference));
    let is_covered = (policy.coverage_80_min..=policy.coverage_80_max).contains(&coverage);
    let bounds = format!("{} to {}", percent(policy.coverage_80_min), percent(policy.coverage_80_max));
    let covered = format!("its 80 % intervals held {} of the truth", percent(coverage));
    match reference {
        Reference::Champion { version, .. } => {
            if fair.len() < policy.windows_min {
                let (n, n_fair, needed) = (windows.len(), fair.len(), policy.windows_min);
                let reason = format!(
                    "{n_fair} of {n} windows lie after all that the champion, version {version}, had learned from; {needed} \
                     are needed to decide"
                );
                return verdict(Decision::Undecided, false, reason);
            }
            let Some(Difference { mean, lower, upper }) = difference else {
                let reason = format!("the champion, version {version}, made no error: nothing can be better");
                return verdict(Decision::Rejected, false, reason);
            };
            let found = format!(
                "CRPS {} against version {version} over {} windows, {} interval {} to {}",
                signed_percent(mean),
                fair.len(),
                percent(policy.confidence),
                signed_percent(lower),
                signed_percent(upper)
            );
            if mean >= 0.0 {
                verdict(Decision::Rejected, false, format!("not better: {found}"))
            } else if upper > policy.tolerance {
                let tolerance = percent(policy.tolerance);
                verdict(Decision::Rejected, false, format!("not surely within {tolerance} of the champion: {found}"))
            } else if is_covered {
                verdict(Decision::Promoted, false, format!("better: {found}; {covered}"))
            } else {
                let missed =
                    format!("{covered}, outside of {bounds}, those of version {version} {}", percent(coverage_before));
                if (coverage - NOMINAL).abs() < (coverage_before - NOMINAL).abs() {
                    verdict(Decision::Promoted, true, format!("better: {found}; {missed}"))
                } else {
                    verdict(Decision::Rejected, false, format!("{missed}; {found}"))
                }
            }
        }
        Reference::SeasonalNaive { why } => {
            let Some(Difference { mean, .. }) = difference else {
                let reason = format!("{why}; too little was observed to compare this one with seasonal naive");
                return verdict(Decision::Promoted, true, reason);
            };
            let is_better = mean < 0.0;
            let relation = if is_better { "beats" } else { "does not beat" };
            let mut reason = format!(
                "{why}; this one {relation} seasonal naive: CRPS {} over {} windows; {covered}",
                signed_percent(mean),
                fair.len()
            );
            if !is_covered {
                reason += &format!(", outside of {bounds}");
            }
            verdict(Decision::Promoted, !(is_better && is_covered), reason)
        }
    }
}

/// The mean relative difference with its interval; `None` with less than two windows or where the reference is perfect.
fn difference(windows: &[&WindowPair], confidence: f64) -> Option<Difference> {
    let n = windows.len() as f64;
    let scale = windows.iter().map(|window| window.reference.crps).sum::<f64>() / n;
    if windows.len() < 2 || scale <= 0.0 {
        return None;
    }
    let differences: Vec<f64> =
        windows.iter().map(|window| (window.candidate.crps - window.reference.crps) / scale).collect();
    let mean = differences.iter().sum::<f64>() / n;
    let variance = differences.iter().map(|difference| (difference - mean).powi(2)).sum::<f64>() / (n - 1.0);
    let half = student_t(confidence, windows.len() - 1) * (variance / n).sqrt();
    Some(Difference { mean, lower: mean - half, upper: mean + half })
}

/// The `t` with `P(|T| <= t) = confidence` for Student's law with so many degrees of freedom.
pub(crate) fn student_t(confidence: f64, n_degrees: usize) -> f64 {
    let (mut low, mut high) = (0.0, 1.0);
    while central_probability(high, n_degrees) < confidence {
        high *= 2.0;
    }
    // Sixty halvings exhaust the digits of the number.
    for _ in 0..60 {
        let middle = 0.5 * (low + high);
        if central_probability(middle, n_degrees) < confidence {
            low = middle;
        } else {
            high = middle;
        }
    }
    high
}

/// `P(|T| <= t)`: Abramowitz and Stegun, 26.7.3 and 26.7.4.
fn central_probability(t: f64, n_degrees: usize) -> f64 {
    let angle = (t / (n_degrees as f64).sqrt()).atan();
    let cosine_squared = angle.cos().powi(2);
    let is_odd = n_degrees % 2 == 1;
    // The sums run over powers of the cosine up to n - 2, of the parity of n.
    let mut term = if is_odd { angle.cos() } else { 1.0 };
    let mut sum = 0.0;
    for power in (if is_odd { 1 } else { 0 }..n_degrees.saturating_sub(1)).step_by(2) {
        sum += term;
        term *= cosine_squared * (power + 1) as f64 / (power + 2) as f64;
    }
    if is_odd { (angle + angle.sin() * sum) * std::f64::consts::FRAC_2_PI } else { angle.sin() * sum }
}

fn percent(share: f64) -> String {
    format!("{} %", (1000.0 * share).round() / 10.0)
}

fn signed_percent(share: f64) -> String {
    format!("{:+.1} %", 100.0 * share)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_of_student_are_those_of_the_tables() {
        for (confidence, n_degrees, expected) in [
            (0.9, 1, 6.313_751_5),
            (0.9, 2, 2.919_985_6),
            (0.95, 5, 2.570_581_8),
            (0.9, 9, 1.833_112_9),
            (0.99, 30, 2.749_995_7),
            (0.9, 999, 1.646_380),
        ] {
            let found = student_t(confidence, n_degrees);
            assert!((found - expected).abs() < 1e-6 * expected, "{confidence} {n_degrees}: {found}");
        }
    }

    fn windows(pairs: &[(f64, f64)], n_unfair: usize) -> Vec<WindowPair> {
        let pair = |(index, &(candidate, reference))| WindowPair {
            issue_time: DateTime::UNIX_EPOCH,
            is_fair: index >= n_unfair,
            candidate: WindowScore { crps: candidate, coverage_80: 0.8 },
            reference: WindowScore { crps: reference, coverage_80: 0.8 },
        };
        pairs.iter().enumerate().map(pair).collect()
    }

    fn champion() -> Reference {
        Reference::Champion { model_id: 7, version: 3 }
    }

    fn decided(pairs: &[(f64, f64)]) -> Verdict {
        judge(&windows(pairs, 0), &champion(), &Policy::default())
    }

    #[test]
    fn a_clear_gain_is_promoted_and_a_doubtful_one_is_not() {
        let clear = decided(&[(0.8, 1.0), (1.7, 2.0), (0.9, 1.1), (0.8, 0.9), (1.0, 1.2)]);
        assert_eq!((clear.decision, clear.is_flagged), (Decision::Promoted, false), "{}", clear.reason);
        let Difference { mean, lower, upper } = clear.difference.expect("five windows");
        assert!((mean - (5.2 / 6.2 - 1.0)).abs() < 1e-12 && lower < mean && upper < 0.0);

        let doubtful = decided(&[(0.5, 1.0), (1.4, 1.0), (0.5, 1.0), (1.4, 1.0)]);
        assert!(doubtful.difference.expect("four windows").mean < 0.0);
        assert_eq!(doubtful.decision, Decision::Rejected);
        assert!(
            doubtful.reason.starts_with("not surely within 1 % of the champion: CRPS -5.0 %"),
            "{}",
            doubtful.reason
        );
    }

    #[test]
    fn a_small_gain_is_promoted_when_it_surely_does_no_harm() {
        let small = decided(&[(0.999, 1.0), (0.998, 1.0), (0.999, 1.0), (0.998, 1.0)]);
        assert_eq!(small.decision, Decision::Promoted, "{}", small.reason);
    }

    #[test]
    fn a_copy_of_the_champion_is_not_better() {
        assert_eq!(decided(&[(1.0, 1.0); 5]).decision, Decision::Rejected);
    }

    #[test]
    fn a_better_score_does_not_excuse_intervals_that_miss() {
        let mut narrow = windows(&[(0.5, 1.0); 5], 0);
        narrow.iter_mut().for_each(|window| window.candidate.coverage_80 = 0.3);
        let verdict = judge(&narrow, &champion(), &Policy::default());
        assert_eq!(verdict.decision, Decision::Rejected);
        let missed = "held 30 % of the truth, outside of 60 % to 97 %, those of version 3 80 %";
        assert!(verdict.reason.contains(missed), "{}", verdict.reason);
    }

    #[test]
    fn intervals_that_miss_replace_those_that_miss_by_more_and_are_flagged() {
        let mut wide = windows(&[(0.5, 1.0); 5], 0);
        for window in &mut wide {
            (window.candidate.coverage_80, window.reference.coverage_80) = (1.0, 0.1);
        }
        let verdict = judge(&wide, &champion(), &Policy::default());
        assert_eq!((verdict.decision, verdict.is_flagged), (Decision::Promoted, true), "{}", verdict.reason);
        assert!(verdict.reason.ends_with("outside of 60 % to 97 %, those of version 3 10 %"), "{}", verdict.reason);
        wide.iter_mut().for_each(|window| window.reference.coverage_80 = 0.7);
        assert_eq!(judge(&wide, &champion(), &Policy::default()).decision, Decision::Rejected);
    }

    #[test]
    fn windows_that_the_champion_has_learned_from_decide_nothing() {
        // The champion looks better than it is on the first two.
        let pairs = [(1.0, 0.1), (1.0, 0.1), (0.8, 1.0), (0.8, 1.0), (0.8, 1.0), (0.8, 1.0)];
        assert_eq!(judge(&windows(&pairs, 2), &champion(), &Policy::default()).decision, Decision::Promoted);
        let undecided = judge(&windows(&pairs, 3), &champion(), &Policy::default());
        assert_eq!(undecided.decision, Decision::Undecided);
        assert!(undecided.reason.starts_with("3 of 6 windows lie after all that"), "{}", undecided.reason);
    }

    #[test]
    fn a_first_model_serves_but_is_flagged_unless_it_beats_seasonal_naive() {
        let first = Reference::SeasonalNaive { why: "the panel has no champion".to_owned() };
        let judged = |pairs: &[(f64, f64)]| judge(&windows(pairs, 0), &first, &Policy::default());
        let (good, bad, blind) = (judged(&[(0.5, 1.0), (0.8, 1.0)]), judged(&[(1.5, 1.0), (1.8, 1.0)]), judged(&[]));
        assert_eq!([good.decision, bad.decision, blind.decision], [Decision::Promoted; 3]);
        assert_eq!([good.is_flagged, bad.is_flagged, blind.is_flagged], [false, true, true]);
        assert!(bad.reason.contains("does not beat seasonal naive: CRPS +65.0 %"), "{}", bad.reason);
    }
}
