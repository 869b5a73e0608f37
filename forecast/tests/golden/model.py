"""An implementation of the model's arithmetic in numpy and float64, for model.rs to compare with.

    pip install numpy==2.4.6
    python model.py

Writes model.json and denoiser.safetensors (weights of a small network) beside this file. It was written from
docs/MODEL.md (details in docs/EVIDENCE.md) and the papers that these name, and shares no code with the library. Where there is
a choice, it does things in another way, so that the same mistake is not made twice: the whole sequence goes through the
network in every pass, with no cache; weights of the solver are integrals by quadrature. Its random numbers are those of the
library (Philox4x32-10).
"""

import json
import math
import struct
from pathlib import Path

import numpy as np

SEED = 20
N_SERIES, N_CALENDAR, PATCH, N_CONTEXT, N_HORIZON = 2, 3, 2, 3, 4
N_ELEMENTS = PATCH * N_SERIES
N_TOKENS = N_CONTEXT + N_HORIZON
D_MODEL, N_HEADS, N_LAYERS, N_HARMONICS = 8, 2, 2, 8
BOUND = 8.0


# Random numbers -----------------------------------------------------------------------------------------------------


def philox(key, counter):
    key, x = list(key), list(counter)
    for _ in range(10):
        low, high = 0xD2511F53 * x[0], 0xCD9E8D57 * x[2]
        x = [(high >> 32) ^ x[1] ^ key[0], high & 0xFFFFFFFF, (low >> 32) ^ x[3] ^ key[1], low & 0xFFFFFFFF]
        key = [(key[0] + 0x9E3779B9) & 0xFFFFFFFF, (key[1] + 0xBB67AE85) & 0xFFFFFFFF]
    return x


def unit(high, low):
    return ((((high << 32) | low) >> 11) + 0.5) / 2.0**53


def gaussian(words):
    return math.sqrt(-2 * math.log(unit(*words[:2]))) * math.cos(math.tau * unit(*words[2:]))


class Stream:
    def __init__(self, seed, name):
        self.seed, self.name, self.position = seed, name, 0

    def words(self):
        self.position += 1
        return philox((self.seed, 0), (self.position - 1, 0, self.name, 1))

    def uniform(self):
        return unit(*self.words()[:2])

    def normal(self):
        return gaussian(self.words())

    def below(self, n):
        return int(self.uniform() * n)


# Noise levels -------------------------------------------------------------------------------------------------------


def angle(level):
    return level * math.pi / 2


def velocity(level, clean, noise):
    return math.cos(angle(level)) * noise - math.sin(angle(level)) * clean


def mixed(level, clean, noise):
    return math.cos(angle(level)) * clean + math.sin(angle(level)) * noise


def harmonics(phi):
    return [f(k * phi) for k in range(1, N_HARMONICS + 1) for f in (math.sin, math.cos)]


# The network --------------------------------------------------------------------------------------------------------


def make_weights(rng):
    """Random weights, rounded to f32. Nothing is 0, not even what training starts from 0."""
    d, weights = D_MODEL, {}

    def linear(name, d_in, d_out):
        weights[f"{name}.weight"] = rng.standard_normal((d_in, d_out)) / math.sqrt(d_in)
        weights[f"{name}.bias"] = 0.1 * rng.standard_normal(d_out)

    def norm(name):
        weights[f"{name}.gamma"] = 1 + 0.2 * rng.standard_normal(d)
        weights[f"{name}.beta"] = 0.2 * rng.standard_normal(d)

    linear("input", 4 * N_ELEMENTS + N_CALENDAR, d)
    weights["place"] = rng.standard_normal((N_HORIZON + 1, d))
    linear("level_in", 2 * N_HARMONICS, d)
    linear("level_out", d, d)
    for layer in range(N_LAYERS):
        block = f"blocks.{layer}"
        norm(f"{block}.attention_norm")
        linear(f"{block}.attention.query_key_value", d, 3 * d)
        linear(f"{block}.attention.output", d, d)
        norm(f"{block}.feed_norm")
        linear(f"{block}.feed_in", d, 4 * d)
        linear(f"{block}.feed_out", 4 * d, d)
        linear(f"{block}.modulation", d, 6 * d)
    norm("norm")
    linear("modulation", d, 2 * d)
    linear("output", d, N_ELEMENTS)
    linear("skip", d, N_ELEMENTS)
    return {name: values.astype(np.float32).astype(np.float64) for name, values in weights.items()}


def silu(x):
    return x / (1 + np.exp(-x))


def gelu(x):
    return 0.5 * x * (1 + np.vectorize(math.erf)(x / math.sqrt(2)))


class Network:
    def __init__(self, weights):
        self.weights = weights

    def linear(self, name, x):
        return x @ self.weights[f"{name}.weight"] + self.weights[f"{name}.bias"]

    def norm(self, name, x):
        centred = x - x.mean(-1, keepdims=True)
        scaled = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-5)
        return scaled * self.weights[f"{name}.gamma"] + self.weights[f"{name}.beta"]

    def rotate(self, x):
        """Rotary positions: channel i and channel i + half are a plane that turns by position / 100^(i / half)."""
        half = x.shape[-1] // 2
        turns = np.exp(1j * np.outer(np.arange(x.shape[-2]), 100.0 ** (-np.arange(half) / half)))
        turned = (x[..., :half] + 1j * x[..., half:]) * turns
        return np.concatenate([turned.real, turned.imag], -1)

    def attend(self, block, x):
        """`[time, d]` of one window, head by head."""
        time, channels = len(x), D_MODEL // N_HEADS
        query, key, value = np.split(self.linear(f"{block}.attention.query_key_value", x), 3, -1)
        heads = []
        for head in range(N_HEADS):
            mine = slice(head * channels, (head + 1) * channels)
            scores = self.rotate(query[:, mine]) @ self.rotate(key[:, mine]).T / math.sqrt(channels)
            scores[np.triu_indices(time, 1)] = -np.inf
            weights = np.exp(scores - scores.max(-1, keepdims=True))
            heads.append(weights / weights.sum(-1, keepdims=True) @ value[:, mine])
        return self.linear(f"{block}.attention.output", np.concatenate(heads, -1))

    def velocity(self, tokens):
        """Predicted velocities `[time, element]` of one window's tokens."""
        noisy = tokens["noisy"]
        parts = [noisy, tokens["noise_share"], tokens["is_gap"], tokens["standard"], tokens["calendar"]]
        x = self.linear("input", np.concatenate(parts, -1)) + self.weights["place"][tokens["place"]]
        level = np.array([harmonics(phi) for phi in tokens["angle"]])
        level = silu(self.linear("level_out", silu(self.linear("level_in", level))))
        for layer in range(N_LAYERS):
            block = f"blocks.{layer}"
            scale_a, shift_a, gate_a, scale_f, shift_f, gate_f = np.split(self.linear(f"{block}.modulation", level), 6, -1)
            x = x + gate_a * self.attend(block, self.norm(f"{block}.attention_norm", x) * (1 + scale_a) + shift_a)
            fed = self.linear(f"{block}.feed_in", self.norm(f"{block}.feed_norm", x) * (1 + scale_f) + shift_f)
            x = x + gate_f * self.linear(f"{block}.feed_out", gelu(fed))
        scale, shift = np.split(self.linear("modulation", level), 2, -1)
        out = self.linear("output", self.norm("norm", x) * (1 + scale) + shift)
        return out + self.linear("skip", level) * noisy

    def odd_velocity(self, tokens):
        """What changes its sign when all innovations of the horizon do."""
        signs = np.where(np.arange(len(tokens["noisy"])) < N_CONTEXT, 1.0, -1.0)
        mirrored = tokens | {"noisy": tokens["noisy"] * signs[:, None]}
        return (self.velocity(tokens) - self.velocity(mirrored)) / 2


# Training -----------------------------------------------------------------------------------------------------------


def make_view(rng):
    """What the network is told of one window: `[step, series]` or `[token, feature]`, rounded to f32."""
    n_context, n_horizon = N_CONTEXT * PATCH, N_HORIZON * PATCH
    view = {
        "context": 1.5 * rng.standard_normal((n_context, N_SERIES)),
        "context_standard": rng.standard_normal((n_context, N_SERIES)),
        "context_expected": rng.standard_normal((n_context, N_SERIES)),
        "horizon_standard": rng.standard_normal((n_horizon, N_SERIES)),
        "calendar": rng.uniform(-1, 1, (N_TOKENS, N_CALENDAR)),
        "innovations": rng.standard_normal((n_horizon, N_SERIES)),
    }
    view["context"][rng.uniform(size=(n_context, N_SERIES)) < 0.1] = np.nan
    view["innovations"][rng.uniform(size=(n_horizon, N_SERIES)) < 0.1] = np.nan
    view["innovations"][3, 1] = 9.5  # beyond the bound
    return {name: values.astype(np.float32).astype(np.float64) for name, values in view.items()}


def token_table(values, levels, standard, calendar):
    """Tokens from noisy values and levels of elements; a level of None is a gap."""
    gap = np.array([[level is None for level in token] for token in levels])
    phi = np.array([[angle(1.0 if level is None else level) for level in token] for token in levels])
    return {
        "noisy": np.where(gap, 0.0, values),
        "noise_share": np.sin(phi),
        "is_gap": gap.astype(float),
        "standard": standard,
        "calendar": calendar,
        "angle": [math.pi / 2 if all(g) else p[~g].mean() for g, p in zip(gap, phi)],
        "place": [max(0, token - N_CONTEXT + 1) for token in range(len(levels))],
    }


def draw_training(stream):
    """Levels `[token][element]`, gaps made in the context, the tokens that count, and the sign of the innovations."""
    clean_context, per_element = stream.uniform() < 0.5, stream.uniform() < 0.25
    levels = []
    for token in range(N_TOKENS):
        shared, row = stream.uniform(), []
        for _ in range(N_ELEMENTS):
            if token < N_CONTEXT and clean_context:
                row.append(0.0)
            elif not per_element:
                row.append(shared)
            else:
                row.append(0.0 if stream.uniform() < 0.3 else stream.uniform())
        levels.append(row)
    n_steps = N_CONTEXT * PATCH
    gaps = np.zeros((n_steps, N_SERIES), bool)
    if stream.uniform() < 0.2:
        for series in [series for series in range(N_SERIES) if stream.uniform() < 0.3]:
            a, b = stream.below(n_steps + 1), stream.below(n_steps + 1)
            gaps[min(a, b) : max(a, b), series] = True
    sign = -1.0 if stream.uniform() < 0.5 else 1.0
    return levels, gaps.reshape(N_CONTEXT, N_ELEMENTS), range(N_TOKENS), sign


def draw_validation(stream):
    counted, level = N_CONTEXT + stream.below(N_HORIZON), stream.uniform()
    levels = [[0.0 if token < counted else level if token == counted else 1.0] * N_ELEMENTS for token in range(N_TOKENS)]
    return levels, np.zeros((N_CONTEXT, N_ELEMENTS), bool), [counted], 1.0


def losses(network, views, influences, draw, seed):
    """Weighted mean squared errors of the velocity and of the odd one, over the elements that count."""
    stream, weights, errors, odd_errors = Stream(seed, 5), [], [], []
    importance = np.concatenate([np.ones(N_CONTEXT * N_ELEMENTS), influences]).reshape(N_TOKENS, N_ELEMENTS)
    for view in views:
        levels, made_gaps, counted_tokens, sign = draw(stream)
        clean = np.concatenate([view["context"], sign * view["innovations"]]).reshape(N_TOKENS, N_ELEMENTS)
        standard = np.concatenate([view["context_standard"], view["horizon_standard"]]).reshape(N_TOKENS, N_ELEMENTS)
        expected = view["context_expected"].reshape(N_CONTEXT, N_ELEMENTS)
        noisy, targets = np.zeros_like(clean), {}
        for token in range(N_TOKENS):
            for element in range(N_ELEMENTS):
                noise = stream.normal()
                is_context, value = token < N_CONTEXT, float(np.clip(clean[token, element], -BOUND, BOUND))
                made_gap = is_context and made_gaps[token, element]
                level = 1.0 if made_gap else levels[token][element]
                if not math.isnan(value) and level != 0.0 and token in counted_tokens:
                    targets[token, element] = velocity(level, value, noise)
                if made_gap or is_context and math.isnan(value):
                    levels[token][element] = None
                elif math.isnan(value):
                    levels[token][element], noisy[token, element] = 1.0, noise
                else:
                    noisy[token, element] = mixed(level, value, noise)
                if made_gap:
                    standard[token, element] = expected[token, element]
        tokens = token_table(noisy, levels, standard, view["calendar"])
        predicted, odd = network.velocity(tokens), network.odd_velocity(tokens)
        weights += [importance[place] for place in targets]
        errors += [predicted[place] - target for place, target in targets.items()]
        odd_errors += [odd[place] - target for place, target in targets.items()]
    return {
        "loss": np.average(np.square(errors), weights=weights),
        "odd_loss": np.average(np.square(odd_errors), weights=weights),
    }


# Sampling -----------------------------------------------------------------------------------------------------------


def level_of_log_snr(log_snr):
    return math.atan2(1.0, math.exp(log_snr)) * 2 / math.pi


def log_snr(level):
    return math.log(1 / math.tan(angle(level)))


def levels_of_passes(passes):
    """Levels of a token before its first pass, and after each."""
    widening = math.log(passes / 12)
    between = np.linspace(-1.3 - widening, 5.75 + widening, passes - 1)
    return [1.0] + [level_of_log_snr(log_snr) for log_snr in between] + [0.0]


def schedule(start_of, passes):
    """Rows of levels: token i starts after `start_of(i)` rows."""
    path = levels_of_passes(passes)
    n_rows = start_of(N_HORIZON - 1) + passes + 1
    done = [[min(max(row - start_of(token), 0), passes) for token in range(N_HORIZON)] for row in range(n_rows)]
    return [[path[k] for k in row] for row in done]


def solver_step(x, estimates, start, end):
    """From level `start` to `end`: `x_t = s_t (x_s / s_s + ∫ cot φ · x̂₀ dλ)`, with `dλ = dφ / (sin φ cos φ)`.

    The estimates are [(level, x̂₀)], through which a polynomial in λ is laid, or in cos φ where the step begins in pure noise.
    """
    def coordinate(phi):
        return np.cos(phi) if start == 1.0 else np.log(1 / np.tan(phi))

    nodes, weights = np.polynomial.legendre.leggauss(80)
    low, high = angle(end), angle(start)
    # Even in ln tan(φ / 2): the integrand is steep towards φ = 0.
    a, b = math.log(math.tan(low / 2)), math.log(math.tan(high / 2))
    phi = 2 * np.arctan(np.exp(a + (b - a) * (nodes + 1) / 2))
    weights = weights * (b - a) / 2 * np.sin(phi)
    places = [coordinate(angle(level)) for level, _ in estimates]
    integral = 0.0
    for i, (_, clean) in enumerate(estimates):
        basis = np.ones_like(phi)
        for j, place in enumerate(places):
            if j != i:
                basis = basis * (coordinate(phi) - place) / (places[i] - place)
        integral = integral + (weights * basis / np.sin(phi) ** 2).sum() * clean
    return math.sin(low) * (x / math.sin(high) + integral)


class Token:
    """A token on its way: UniPC of order 3 (Zhao et al. 2023), the predictor with its corrector."""

    def __init__(self, values):
        self.values, self.corrected, self.estimates = values, None, []

    def advance(self, clean, before, after):
        if after == 0.0:
            self.values = np.clip(clean, -BOUND, BOUND)
            return
        earlier = self.estimates
        self.estimates = (earlier + [(before, clean)])[-3:]
        if earlier:
            self.corrected = solver_step(self.corrected, self.estimates, earlier[-1][0], before)
            self.estimates = [(level, clean) for level, clean in self.estimates if level != 1.0]
        else:
            self.corrected = self.values
        self.values = solver_step(self.corrected, self.estimates, before, after)


def sample(network, view, sample_index, first_step, seed, rows, share):
    """Innovations `[token, element]` of one sample."""
    def noise(step, series):
        """Samples come in antithetic pairs."""
        number = gaussian(philox((seed, 0), (sample_index // 2, step, series, 0)))
        return float(np.float32(number)) * (-1) ** sample_index

    steps = range(first_step, first_step + N_HORIZON * PATCH)
    drawn = np.array([[noise(step, series) for series in range(N_SERIES)] for step in steps])
    tokens = [Token(values) for values in drawn.reshape(N_HORIZON, N_ELEMENTS)]
    context = view["context"].reshape(N_CONTEXT, N_ELEMENTS)
    context_levels = [[None if math.isnan(value) else 0.0 for value in token] for token in context]
    standard = np.concatenate([view["context_standard"], view["horizon_standard"]]).reshape(N_TOKENS, N_ELEMENTS)
    for before, after in zip(rows, rows[1:]):
        values = np.concatenate([context, [token.values for token in tokens]])
        levels = context_levels + [[level] * N_ELEMENTS for level in before]
        predicted = network.odd_velocity(token_table(values, levels, standard, view["calendar"]))[N_CONTEXT:]
        for index, token in enumerate(tokens):
            if before[index] != after[index]:
                phi = angle(before[index])
                clean = math.cos(phi) * token.values - math.sin(phi) * share * predicted[index]
                token.advance(clean, before[index], after[index])
    return np.array([token.values for token in tokens])


# Files --------------------------------------------------------------------------------------------------------------


def write_safetensors(path, weights):
    header, data = {}, b""
    for name, values in weights.items():
        raw = values.astype("<f4").tobytes()
        header[name] = {"dtype": "F32", "shape": values.shape, "data_offsets": [len(data), len(data) + len(raw)]}
        data += raw
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)


def main():
    rng = np.random.default_rng(SEED)
    weights = make_weights(rng)
    network = Network(weights)
    views = [make_view(rng) for _ in range(24)]
    levels = [
        {"level": k, "clean": x, "noise": e, "mixed": mixed(k, x, e), "velocity": velocity(k, x, e)}
        for k, x, e in [(0.0, 1.5, -0.5), (0.1, -2.0, 0.3), (0.5, 0.7, 1.1), (0.93, 3.0, -1.0), (1.0, -4.0, 2.0)]
    ]

    noisy = 1.2 * rng.standard_normal((N_TOKENS, N_ELEMENTS))
    element_levels = [[None if rng.uniform() < 0.1 else rng.uniform() for _ in range(N_ELEMENTS)] for _ in range(N_TOKENS)]
    element_levels[1] = [None] * N_ELEMENTS
    tokens = token_table(noisy, element_levels, rng.standard_normal((N_TOKENS, N_ELEMENTS)), views[0]["calendar"])
    tokens["velocity"] = network.velocity(tokens)

    influences = rng.uniform(0.2, 3, N_HORIZON * N_ELEMENTS).astype(np.float32).astype(np.float64)

    # Whole antithetic pairs, and samples without the other of their pair.
    draws = []
    for name, passes, start_of, samples in [
        ("autoregressive", 12, lambda token: 12 * token, range(2, 6)),
        ("autoregressive", 5, lambda token: 5 * token, range(2, 5)),
        ("pyramid", 7, lambda token: 3 * token, range(3, 5)),
        ("pyramid", 7, lambda token: 3 * token, range(0, 2)),
    ]:
        rows, share, seed, first_step = schedule(start_of, passes), 0.8, 4, 6
        values = [sample(network, views[0], index, first_step, seed, rows, share) for index in samples]
        draws.append({
            "schedule": {"kind": name} | ({"slope": 3} if name == "pyramid" else {}),
            "passes": passes, "velocity_share": share, "seed": seed, "first_step": first_step,
            "first_sample": samples.start, "rows": rows, "values": values,
        })

    golden = {
        "layout": {
            "n_series": N_SERIES, "n_calendar": N_CALENDAR, "patch": PATCH,
            "n_context_tokens": N_CONTEXT, "n_horizon_tokens": N_HORIZON,
        },
        "network": {
            "n_elements": N_ELEMENTS, "n_calendar": N_CALENDAR, "n_horizon_tokens": N_HORIZON,
            "d_model": D_MODEL, "n_heads": N_HEADS, "n_layers": N_LAYERS,
        },
        "levels": levels,
        "tokens": tokens,
        "views": views,
        "influences": influences,
        "losses": [
            {"purpose": purpose, "seed": seed} | losses(network, views, influences, draw, seed)
            for purpose, draw, seed in [
                ("training", draw_training, 1),
                ("training", draw_training, 2),
                ("validation", draw_validation, 3),
            ]
        ],
        "draws": draws,
    }

    def plain(value):
        """Arrays as flat lists, gaps as null."""
        flat = np.asarray(value).ravel()
        return np.where(np.isnan(flat), None, flat).tolist()

    for draw in draws:
        draw["values"] = np.array(draw["values"])
    lines = [f"{json.dumps(key)}: {json.dumps(value, default=plain)}" for key, value in golden.items()]
    here = Path(__file__)
    here.with_name("model.json").write_text("{\n" + ",\n".join(lines) + "\n}\n")
    write_safetensors(here.with_name("denoiser.safetensors"), weights)


if __name__ == "__main__":
    main()
