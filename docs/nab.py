"""Scores `plumecast anomalies` on the Numenta Anomaly Benchmark: https://github.com/numenta/NAB (its `data` and `labels`).

    python3 docs/nab.py NAB/data NAB/labels/combined_windows.json --out scored

Only the real series (folders `real*`) are used. The first 15 % of the rows of a series, NAB's probationary period, are for
training and calibration; all later rows are scored. Rows are taken as evenly spaced, as NAB's own detectors take them. A value
is flagged when its p-value is below the threshold. A labelled window is found when any row in it is flagged; each run of
flagged rows outside of all windows is a false alarm; precision is windows found / (windows found + false alarms).

The baseline is the absolute difference to the value before, with the same kind of p-value, calibrated on the whole
probationary period.
"""

import argparse, bisect, csv, gzip, json, math, pathlib, subprocess, time
from datetime import datetime, timedelta, timezone

TRAIN_SHARE = 0.15
# A series has thousands of rows: below one in ten thousand, a series without anomalies has less than one false alarm.
THRESHOLD, OTHER_THRESHOLDS = 1e-4, (1e-3, 1e-5)


def read(path):
    text = gzip.open(path, "rt") if path.suffix == ".gz" else open(path)
    with text as file:
        rows = list(csv.reader(file))[1:]
    return [datetime.fromisoformat(row[0]) for row in rows], [float(row[1]) for row in rows]


def write_regular(times, values, path):
    """The rows in their order on a regular grid whose spacing divides a day."""
    gaps = sorted((b - a).total_seconds() for a, b in zip(times, times[1:]))
    spacing = min((s for s in (60, 300, 600, 900, 1800, 3600, 86400)), key=lambda s: abs(math.log(s / max(gaps[len(gaps) // 2], 1))))
    start = int(times[0].replace(tzinfo=timezone.utc).timestamp()) // spacing * spacing
    with open(path, "w") as file:
        file.write("time,value\n")
        for row, value in enumerate(values):
            at = datetime.fromtimestamp(start, timezone.utc) + timedelta(seconds=row * spacing)
            file.write(f"{at:%Y-%m-%dT%H:%M:%SZ},{value!r}\n")


def pareto(excesses):
    """Shape and scale as in forecast/src/calibration.rs."""
    n, mean = len(excesses), sum(excesses) / len(excesses)
    quartile, n_grid = excesses[min(max(int(n / 4 + 0.5), 1), n) - 1], 30 + int(math.sqrt(n))
    shape_of = lambda theta: sum(math.log1p(-theta * x) for x in excesses) / n
    thetas = [1 / excesses[-1] + (1 - math.sqrt(n_grid / (j - 0.5))) / 3 / quartile for j in range(1, n_grid + 1)]
    fits = []
    for theta in thetas:
        try:
            shape = shape_of(theta)
            fits.append((n * (math.log(-theta / shape) - shape - 1), theta))
        except (ValueError, ZeroDivisionError):
            pass
    best = max(fits)[0]
    theta = sum(math.exp(f - best) * t for f, t in fits) / sum(math.exp(f - best) for f, _ in fits)
    shape = shape_of(theta)
    believed = (n * shape + 10 * 0.5) / (n + 10)
    return (believed, -shape / theta) if believed > 0 else (0.0, mean)


def tail(known):
    """Threshold, share above it, shape and scale."""
    n, n_tail = len(known), max(int(0.1 * len(known)), min(10, len(known) // 2))
    threshold = known[n - n_tail - 1]
    excesses = [s - threshold for s in known[n - n_tail :] if s > threshold]
    shape, scale = pareto(excesses) if len(excesses) >= 5 else (0.5, sum(excesses) / len(excesses) if excesses else 1.0)
    return threshold, n_tail / (n + 1), shape, scale


def p_values(calibrating, scores, running):
    known = sorted(calibrating)
    (threshold, share, shape, scale), n_fitted = tail(known), len(known)
    for score in scores:
        n = len(known)
        p = (1 + n - bisect.bisect_left(known, score)) / (n + 1)
        if score > known[-1]:
            z = (score - threshold) / scale
            p = min(p, share * (math.exp(-z) if shape == 0 else (1 + shape * z) ** (-1 / shape)))
        yield p
        if running:
            bisect.insort(known, score)
            if len(known) * 20 >= n_fitted * 21:
                (threshold, share, shape, scale), n_fitted = tail(known), len(known)


def count(times, first, p_values, windows, threshold):
    """Windows found, windows, false alarms."""
    inside = lambda at: [k for k, (a, b) in enumerate(windows) if a <= at <= b]
    found, false_alarms, in_alarm = set(), 0, False
    for at, p in zip(times[first:], p_values):
        hit = inside(at)
        if p < threshold:
            found.update(hit)
        is_false = p < threshold and not hit
        false_alarms += is_false and not in_alarm
        in_alarm = is_false
    # A window that ends before the first scored row is nobody's to find.
    return len(found), sum(b >= times[first] for _, b in windows), false_alarms


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=pathlib.Path)
    parser.add_argument("windows", type=pathlib.Path)
    parser.add_argument("--out", type=pathlib.Path, required=True, help="folder for the scores of each series")
    parser.add_argument("--plumecast", default="plumecast", help="the program")
    parser.add_argument("--train-steps", default="100")
    parser.add_argument("--comparison", default="running", choices=("running", "fixed"))
    arguments = parser.parse_args()
    labels = {pathlib.Path(name).stem: windows for name, windows in json.loads(arguments.windows.read_text()).items()}
    arguments.out.mkdir(parents=True, exist_ok=True)
    totals, seconds, n_series, n_rows = {}, 0.0, 0, 0
    for path in sorted(arguments.data.glob("real*/*.csv*")):
        name = path.name.split(".csv")[0]
        times, values = read(path)
        windows = [[datetime.fromisoformat(t) for t in window] for window in labels[name]]
        first = int(TRAIN_SHARE * len(values))
        regular, scored = arguments.out / f"{name}.csv", arguments.out / f"{name}.scored.csv"
        write_regular(times, values, regular)
        began = time.monotonic()
        command = [arguments.plumecast, "anomalies", "--data", regular, "--out", scored, "--train-share", str(TRAIN_SHARE)]
        command += ["--train-steps", arguments.train_steps, "--comparison", arguments.comparison]
        run = subprocess.run(command, capture_output=True, text=True)
        if run.returncode:
            raise SystemExit(f"{name}: {run.stderr}")
        seconds += time.monotonic() - began
        with open(scored) as file:
            ours = [float(row["p_value"]) for row in csv.DictReader(file)]
        assert len(ours) == len(values) - first, name
        changes = [0.0] + [abs(b - a) for a, b in zip(values, values[1:])]
        n_series, n_rows = n_series + 1, n_rows + len(ours)
        differences = list(p_values(changes[1:first], changes[first:], arguments.comparison == "running"))
        for forecaster, p in (("plumecast", ours), ("difference", differences)):
            for threshold in (THRESHOLD, *OTHER_THRESHOLDS):
                counts = count(times, first, p, windows, threshold)
                for group in (path.parent.name, "all"):
                    before = totals.get((threshold, group, forecaster), (0, 0, 0))
                    totals[threshold, group, forecaster] = tuple(a + b for a, b in zip(before, counts))
                if threshold == THRESHOLD:
                    print(f"{name:40} {forecaster:10} found {counts[0]} of {counts[1]}, false alarms {counts[2]}", flush=True)
    print(f"{n_series} series, {n_rows} rows scored, {seconds:.0f} s")
    print(f"{'p below':8} {'series':18} {'':10} {'found':>8} {'false':>6} {'precision':>10} {'recall':>7} {'F1':>6}")
    for (threshold, group, forecaster), (found, n, false) in sorted(totals.items(), key=lambda item: (-item[0][0], item[0][1:])):
        precision, recall = found / max(found + false, 1), found / n
        f1 = 2 * precision * recall / max(precision + recall, 1e-9)
        print(f"{threshold:<8.0e} {group:18} {forecaster:10} {found:>4}/{n:<3} {false:6} {precision:10.2f} {recall:7.2f} {f1:6.2f}")


main()
