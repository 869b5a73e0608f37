"""Backtests of variants of the network and of sampling, and what each of them changes.

    python3 docs/ablation.py FOLDER OUT [SEED ...]

FOLDER has a wide CSV for each set, named as below, whose last rows are the windows. Every run takes the same number of optimiser
steps, whatever the machine; what is in OUT already is not run again. PLUMECAST names the program.
"""

import json
import math
import os
import pathlib
import subprocess
import sys

SETS = {
    "ETTh1_h24": ["--freq", "1h", "--horizon", "24", "--windows", "40"],
    "vic_elec": ["--freq", "30min", "--horizon", "48", "--windows", "40"],
    "ecl_2_of_321": ["--freq", "1h", "--horizon", "24", "--windows", "40"],
}
STEPS = ["--train-steps", "200", "--samples", "100"]

# The TOML of the network and the options of sampling.
VARIANTS = {
    "default": ("", []),
    "levels: each token its own, context too": ("levels = { clean_context = 0.0, by_element = 0.0 }", []),
    "levels: the same without element-wise ones": ("levels = { by_element = 0.0 }", []),
    "levels: one for the whole horizon": ("levels = { by_element = 0.0, shared = 1.0 }", []),
    "levels: log-normal, as in EDM": ("levels = { distribution = 'log_normal' }", []),
    "patch of 1 step": ("patch = 1", []),
    "patch of 8 steps": ("patch = 8", []),
    "width 32": ("d_model = 32", []),
    "width 128": ("d_model = 128", []),
    "4 layers": ("n_layers = 4", []),
    "joint attention, schedule full": ("attention = 'joint'", ["--schedule", "full"]),
    "schedule full": ("", ["--schedule", "full"]),
    "schedule pyramid:6": ("", ["--schedule", "pyramid:6"]),
    "6 passes": ("", ["--passes", "6"]),
    "tokens of single series": ("token = 'series'", []),
    "levels: a thousand, as published": ("levels = { n_levels = 1000 }", []),
    "loss weight: min-SNR": ("loss_weight = 'min_snr'", []),
    "loss weight: fused SNR": ("loss_weight = { fused_snr = { decay = 0.9 } }", []),
    "stabilization 0.05": ("", ["--stabilization", "0.05"]),
}


def run(folder, out, name, variant, seed):
    """The metrics of a variant on a set, from a run or from an earlier one."""
    place = out / f"{name}.{list(VARIANTS).index(variant)}.{seed}"
    if not (place / "metrics.json").exists():
        place.mkdir(parents=True, exist_ok=True)
        network, options = VARIANTS[variant]
        (place / "network.toml").write_text(network)
        command = [os.environ.get("PLUMECAST", "plumecast"), "backtest", "--data", f"{folder}/{name}.csv.gz", *SETS[name]]
        command += [*STEPS, "--seed", str(seed), "--network", f"{place}/network.toml", *options, "--out", str(place)]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return json.loads((place / "metrics.json").read_text())


def ratio(ours, other, part):
    """Ratio of the sums over windows and its standard error."""
    pairs = [(a[part], b[part]) for a, b in zip(ours, other)]
    total = sum(b for _, b in pairs)
    found, n = sum(a for a, _ in pairs) / total, len(pairs)
    return found, math.sqrt(n / (n - 1) * sum((a - found * b) ** 2 for a, b in pairs)) / total


def mean_ratio(pairs):
    """Geometric mean of ratios with the standard error that follows from theirs."""
    mean = math.exp(sum(math.log(found) for found, _ in pairs) / len(pairs))
    return f"{mean:.4f} ± {mean * math.sqrt(sum((error / found) ** 2 for found, error in pairs)) / len(pairs):.4f}"


def main():
    folder, out, seeds = sys.argv[1], pathlib.Path(sys.argv[2]), [int(seed) for seed in sys.argv[3:]] or [1]
    print("| variant | CRPS | CRPS_sum | energy | validation loss | shares of the velocity |\n|---|---|---|---|---|---|")
    for variant in VARIANTS:
        ratios, losses, shares = {"crps": [], "crps_sum": [], "energy_score": []}, [], []
        for name in SETS:
            for seed in seeds:
                found = run(folder, out, name, variant, seed)
                default = run(folder, out, name, "default", seed)
                for part, pairs in ratios.items():
                    pairs.append(ratio(*(m["window_scores"]["plumecast"] for m in (found, default)), part))
                training = found["training"]
                losses.append(training["validation_loss"] / training["validation_loss_gaussian"])
                shares.append(f"{training['velocity_share']:.2f}")
        scores = ["1", "1", "1"] if variant == "default" else [mean_ratio(pairs) for pairs in ratios.values()]
        loss = math.exp(sum(map(math.log, losses)) / len(losses))
        print(f"| {variant} | {' | '.join(scores)} | {loss:.4f} | {' '.join(shares)} |", flush=True)


if __name__ == "__main__":
    main()
