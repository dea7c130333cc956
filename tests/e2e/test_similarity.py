"""Quantised encoders keep the order that people give to pairs: Spearman's rank correlation with the human judgements of
WordSim-353 and SimLex-999 (as the package gensim carries them), int8 and bf16 against fp32."""
import importlib.util
import pathlib

import numpy as np
import pytest
from conftest import Program
from test_encoders import weights

PRECISIONS = ("fp32", "bf16", "int8")


def pairs(name):
    spec = importlib.util.find_spec("gensim")
    assert spec is not None, "gensim (tests/e2e/weights.txt) is not installed"
    lines = (pathlib.Path(spec.origin).parent / "test/test_data" / name).read_text().splitlines()
    rows = [line.split("\t") for line in lines if line.strip() and not line.startswith("#")]
    return [(first, second, float(score)) for first, second, score in rows]


def ranks(values):
    """Ties share the mean of their ranks."""
    values = np.asarray(values)
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return (last - (counts - 1) / 2)[inverse]


def spearman(a, b):
    return float(np.corrcoef(ranks(a), ranks(b))[0, 1])


@pytest.fixture(scope="module")
def vectors(tmp_path_factory):
    """Of every word, by precision."""
    words = sorted({word for name in ("wordsim353.tsv", "simlex999.txt") for pair in pairs(name) for word in pair[:2]})
    found = {}
    for precision in PRECISIONS:
        program = Program(tmp_path_factory.mktemp(precision), "--model", str(weights()), "--precision", precision)
        try:
            client = program.wait_ready().http()
            rows = []
            for begin in range(0, len(words), 128):
                answer = client.post("/embed", json={"inputs": words[begin:begin + 128]})
                assert answer.status_code == 200, answer.text
                rows += answer.json()
            found[precision] = dict(zip(words, np.array(rows)))
        finally:
            program.stop()
    return found


@pytest.mark.parametrize("name, least", [("wordsim353.tsv", 0.6), ("simlex999.txt", 0.4)])
def test_spearman_is_within_a_hundredth_of_fp32(vectors, name, least):
    judged = pairs(name)
    assert len(judged) > 350
    found = {p: spearman([float(of[a] @ of[b]) for a, b, _ in judged], [score for *_, score in judged])
             for p, of in vectors.items()}
    print(name, {p: round(value, 4) for p, value in found.items()})
    assert found["fp32"] > least, found
    for precision in ("bf16", "int8"):
        assert found[precision] > 0.99 * found["fp32"], found
