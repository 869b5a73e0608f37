"""The table of what docs/benchmark.sh has measured.

    python3 docs/benchmark.py OUT

Scores are means over the seeds in OUT, with their smallest and largest where there are several; ratios are relative to the best of
eleven other forecasters, which were measured on the same windows (docs/BENCHMARKS.md).
"""

import json
import math
import pathlib
import sys

# CRPS and CRPS_sum of the best other forecaster of each.
BEST = {
    "exchange_rate": (0.00718, 0.00391),
    "ETTh1_h24": (0.18859, 0.15894),
    "ETTh1_h96": (0.19318, 0.16821),
    "ETTm1_h96": (0.17741, 0.14674),
    "vic_elec": (0.05493, 0.05462),
    "ecl_2_of_321": (0.03529, 0.03485),
    "air_passengers": (0.03448, 0.03448),
    "m5_sample": (0.68250, 0.31867),
    "elec2": (0.06813, 0.04529),
}
SCORES = ("crps", "crps_sum", "energy_score")


def mean(values):
    return sum(values) / len(values)


def geometric(values):
    return math.exp(mean([math.log(value) for value in values]))


def spread(values, text):
    if len(values) == 1:
        return text(values[0])
    return f"{text(mean(values))} [{text(min(values))} {text(max(values))}]"


def main():
    out = pathlib.Path(sys.argv[1])
    runs = {}
    for path in sorted(out.glob("*.*/metrics.json")):
        name, seed = path.parent.name.rsplit(".", 1)
        runs.setdefault(name, {})[int(seed)] = json.loads(path.read_text())
    rows = lambda run: {row["model"]: row for row in run["rows"]}
    print("| set | CRPS | CRPS_sum | of the best other | ours / base | ours / seasonal naive | coverage 50 80 90 |\n|---|---|---|---|---|---|---|")
    ratios = {}
    for name, best in BEST.items():
        found = {seed: rows(run) for seed, run in runs[name].items()}
        ours = [found[seed]["plumecast"] for seed in found]
        for seed, models in found.items():
            of = ratios.setdefault(seed, {"best": [], "base_only": [], "seasonal_naive": []})
            of["best"].append([models["plumecast"][score] / other for score, other in zip(SCORES, best)])
            for other in ("base_only", "seasonal_naive"):
                of[other].append([models["plumecast"][score] / models[other][score] for score in SCORES])
        last = lambda other, n: " / ".join(f"{mean([ratios[seed][other][-1][index] for seed in found]):.3f}" for index in range(n))
        coverage = " ".join(f"{mean([row[f'coverage_{share}'] for row in ours]):.2f}" for share in (50, 80, 90))
        scores = [spread([row[score] for row in ours], lambda value: f"{value:.5f}") for score in SCORES[:2]]
        print(f"| {name} | {' | '.join(scores)} | {last('best', 2)} | {last('base_only', 3)} | {last('seasonal_naive', 2)} | {coverage} |")
    for seed, of in sorted(ratios.items()):
        means = {other: " ".join(f"{geometric(column):.4f}" for column in zip(*found)) for other, found in of.items()}
        print(f"seed {seed}: of the best other {means['best']}; of base {means['base_only']}; of seasonal naive {means['seasonal_naive']}")


if __name__ == "__main__":
    main()
