"""Writes reference.json: rankings, proportions, means and ratios as NumPy computes them. Run by hand with NumPy (and
SciPy for the quantile of Student's t); telemetry's statistics_test compares its own figures with the file."""
import json
import pathlib

import numpy as np
from scipy import stats

random = np.random.default_rng(20260101)
Z = stats.norm.ppf(0.975)


def dcg(grades):
    return np.sum((2.0**grades - 1) / np.log2(np.arange(len(grades)) + 2))


def ranking(grades):
    grades = np.asarray(grades, float)
    ideal = dcg(np.sort(grades)[::-1])
    first = np.flatnonzero(grades > 0)
    return {"grades": grades.tolist(), "ndcg": dcg(grades) / ideal if ideal > 0 else 0.0,
            "rr": 1 / (first[0] + 1) if len(first) else 0.0}


def wilson(k, n):
    p, scale = k / n, 1 + Z**2 / n
    middle = (p + Z**2 / (2 * n)) / scale
    half = Z / scale * np.sqrt(p * (1 - p) / n + Z**2 / (4 * n**2))
    return {"k": k, "n": n, "value": p, "low": max(0, middle - half), "high": min(1, middle + half)}


def mean(x):
    half = stats.t.ppf(0.975, len(x) - 1) * np.std(x, ddof=1) / np.sqrt(len(x))
    return {"x": x.tolist(), "value": np.mean(x), "low": np.mean(x) - half, "high": np.mean(x) + half}


def ratio(x, y):
    r, n = x.sum() / y.sum(), len(x)
    c = np.cov(x, y, ddof=1)
    half = Z * np.sqrt((c[0, 0] - 2 * r * c[0, 1] + r * r * c[1, 1]) / (n * y.mean()**2))
    return {"x": x.tolist(), "y": y.tolist(), "value": r, "low": r - half, "high": r + half}


cases = {
    "rankings": [ranking(g) for g in ([3, 2, 3, 0, 1, 2], [0, 0, 0], [0, 0, 1], [1], [0.5, 4, 2])] +
                [ranking(random.integers(0, 4, size)) for size in (2, 5, 10, 50)],
    "proportions": [wilson(k, n) for k, n in ((0, 10), (10, 10), (1, 2), (37, 120), (4999, 10000), (1, 100000))],
    "means": [mean(random.lognormal(0, 1, size)) for size in (2, 3, 10, 200)],
    "ratios": [ratio(random.lognormal(-6, 1, size), ((random.random(size) < 0.4) | (np.arange(size) == 0)).astype(float)) for size in (5, 40, 400)],
}
pathlib.Path(__file__).with_name("reference.json").write_text(
    json.dumps(cases, default=float) + "\n")
