//! The tables of scores that the command line prints.

use forecast::backtest::BacktestRow;
use forecast::paired::{Comparison, Ratio};

/// Scores as aligned text, a row for each forecaster. Lower is better, but for coverage, which should be as named.
pub fn scores(rows: &[BacktestRow]) -> String {
    let mut text = format!(
        "{:15} {:>9} {:>9} {:>9} {:>8} {:>9} {:>6} {:>6} {:>6} {:>9} {:>10}",
        "model", "CRPS", "CRPS_sum", "ND", "MASE", "energy", "cov50", "cov80", "cov90", "train s", "sample s"
    );
    for BacktestRow { model, scores, train_seconds, sample_seconds } in rows {
        text += &format!(
            "\n{model:15} {:9.5} {:9.5} {:9.5} {:8.3} {:9.3} {:6.2} {:6.2} {:6.2} {train_seconds:9.1} {sample_seconds:10.2}",
            scores.crps,
            scores.crps_sum,
            scores.nd,
            scores.mase,
            scores.energy_score,
            scores.coverage_50,
            scores.coverage_80,
            scores.coverage_90,
        );
    }
    text
}

/// Ratios of our scores to those of others as aligned text, with their standard errors; below 1 ours are better.
pub fn comparisons(comparisons: &[Comparison]) -> String {
    let mut text = format!("{:15} {:>17} {:>17} {:>17}", "plumecast over", "CRPS", "CRPS_sum", "energy");
    for Comparison { model, crps, crps_sum, energy_score } in comparisons {
        let [crps, crps_sum, energy] = [crps, crps_sum, energy_score].map(ratio);
        text += &format!("\n{model:15} {crps:>17} {crps_sum:>17} {energy:>17}");
    }
    text
}

fn ratio(found: &Ratio) -> String {
    match (found.ratio, found.standard_error) {
        (Some(ratio), Some(error)) => format!("{ratio:.4} ± {error:.4}"),
        (Some(ratio), None) => format!("{ratio:.4}"),
        (None, _) => "-".to_owned(),
    }
}
