"""Scores of a small made-up backtest by GluonTS, for metrics.rs to compare with: writes metrics.json beside this file.

    pip install gluonts==0.17.0 numpy==2.4.6 pandas==2.3.3 packaging
    python metrics.py

GluonTS takes the sample nearest to a quantile, we interpolate between samples. With 41 samples the place of every
level k/20 is a whole number, 2k, so both rules take the same sample and the scores must be equal.

GluonTS means coverage and MASE over (window, series), we over all values and over series. With equally many values
observed in each window of each series the two are equal; so every window and series of the case "gaps" has one gap.

Samples are multiples of 1/16 and the truth odd multiples of 1/32: exact as f32, and never equal, so that it does not
matter on which side of a quantile a tie is counted.
"""

import json
from pathlib import Path

import numpy as np
import pandas as pd
from gluonts.evaluation import MultivariateEvaluator
from gluonts.model.forecast import SampleForecast

N_WINDOWS, N_SAMPLES, N_STEPS, N_SERIES = 3, 41, 6, 3
N_BEFORE, SEASON = 15, 4
LEVELS = [k / 20 for k in range(1, 20)]


def draw(rng):
    """Rows before the test, samples and truth of the windows; many values and sums are negative."""
    level, scale = np.array([6.0, 0.0, -4.0]), np.array([2.0, 1.5, 9.0])
    before = level + scale * rng.standard_normal((N_BEFORE, N_SERIES))
    before[5, 1] = np.nan
    centre = level + 0.7 * scale * rng.standard_normal((N_WINDOWS, 1, N_STEPS, N_SERIES))
    shared = rng.standard_normal((N_WINDOWS, N_SAMPLES, 1, 1))
    samples = centre + scale * (0.6 * shared + 0.8 * rng.standard_normal((N_WINDOWS, N_SAMPLES, N_STEPS, N_SERIES)))
    truth = level + scale * rng.standard_normal((N_WINDOWS, N_STEPS, N_SERIES))
    return np.round(before * 16) / 16, np.round(samples * 16) / 16, (2 * np.floor(truth * 16) + 1) / 32


def with_gaps(truth):
    """One gap for each window and series, at two of the six steps."""
    truth = truth.copy()
    for window in range(N_WINDOWS):
        truth[window, window, :2] = np.nan
        truth[window, window + 2, 2] = np.nan
    return truth


def total(values, axis=0):
    """Sum over series; a gap where one of them has a gap, which pandas would take for 0."""
    return np.sum(np.asarray(values), axis=axis)


def gluonts_scores(before, samples, truth):
    """Every window gets the same past, as we scale MASE by the rows before the first window alone."""
    index = pd.period_range("2024-01-01", periods=N_BEFORE + N_STEPS, freq="D")
    series = [pd.DataFrame(np.concatenate([before, window]), index=index) for window in truth]
    forecasts = [SampleForecast(window, start_date=index[N_BEFORE]) for window in samples]
    evaluator = MultivariateEvaluator(quantiles=LEVELS, seasonality=SEASON, target_agg_funcs={"sum": total})
    scores, _ = evaluator(series, forecasts)

    def inside(low, high):
        return scores[f"Coverage[{high}]"] - scores[f"Coverage[{low}]"]

    return {
        "crps_sum": scores["m_sum_mean_wQuantileLoss"],
        "crps": scores["mean_wQuantileLoss"],
        "nd": scores["ND"],
        "mase": scores["MASE"],
        "coverage_50": inside(0.25, 0.75),
        "coverage_80": inside(0.1, 0.9),
        "coverage_90": inside(0.05, 0.95),
    }


def energy_score(before, samples, truth):
    """GluonTS has none: E|X - y| - E|X - X'| / 2 of each window, series divided by their mean magnitude; their mean."""
    magnitude = np.nanmean(np.abs(before), axis=0)
    scores = []
    for draws, observed in zip(samples / magnitude, truth / magnitude):
        draws, observed = draws[:, ~np.isnan(observed)], observed[~np.isnan(observed)]
        to_truth = np.linalg.norm(draws - observed, axis=1).mean()
        between = np.linalg.norm(draws[:, None] - draws[None], axis=2).mean()
        scores.append(to_truth - between / 2)
    return float(np.mean(scores))


def main():
    before, samples, truth = draw(np.random.default_rng(1))
    case = {"n_samples": N_SAMPLES, "n_series": N_SERIES, "season": SEASON}
    case |= {"before": before.ravel(), "samples": samples.reshape(N_WINDOWS, -1)}
    for name, observed in [("complete", truth), ("gaps", with_gaps(truth))]:
        scores = gluonts_scores(before, samples, observed) | {"energy_score": energy_score(before, samples, observed)}
        case[name] = {"truth": observed.reshape(N_WINDOWS, -1), "scores": scores}

    def plain(value):
        """Arrays as lists, gaps as null."""
        return np.where(np.isnan(value), None, value).tolist()

    lines = [f"{json.dumps(key)}: {json.dumps(value, default=plain)}" for key, value in case.items()]
    Path(__file__).with_name("metrics.json").write_text("{\n" + ",\n".join(lines) + "\n}\n")


if __name__ == "__main__":
    main()
