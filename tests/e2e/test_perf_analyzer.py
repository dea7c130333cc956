"""Triton's perf_analyzer itself, unchanged, as tritonclient 2.41 carries it: it reads metadata, configuration and statistics,
asks for every output of a model, and prints what it measured. It wants CUDA's runtime library and libb64 to start."""
import csv
import importlib.util
import json
import os
import pathlib
import subprocess
import sys

import pytest

ANALYZER = pathlib.Path(sys.executable).parent / "perf_analyzer"


def environment():
    spec = importlib.util.find_spec("nvidia.cuda_runtime")
    assert spec is not None, "nvidia-cuda-runtime-cu12 (tests/e2e/requirements.txt) is not installed"
    return {**os.environ, "LD_LIBRARY_PATH": str(pathlib.Path(list(spec.submodule_search_locations)[0]) / "lib")}


def analyze(folder, model, *flags):
    """The row of its table for one concurrency."""
    assert ANALYZER.exists(), "perf_analyzer (of tritonclient 2.41, tests/e2e/requirements.txt) is not installed"
    table = folder / "table.csv"
    # Two windows of at least 40 requests; how steady a busy machine's figures are is not tested.
    command = [ANALYZER, "-m", model, "--concurrency-range", "3", "--measurement-mode", "count_windows",
               "--measurement-request-count", "40", "-r", "3", "-s", "9999", "-f", table, *flags]
    ran = subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=120)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    with table.open() as lines:
        rows = list(csv.DictReader(lines))
    assert len(rows) == 1, ran.stdout
    return {name: float(value) for name, value in rows[0].items() if value}


@pytest.mark.parametrize("protocol, flags", [("http", ()), ("grpc", ()), ("grpc", ("--streaming", "--async"))])
def test_it_measures_an_encoder(encoders, tmp_path, protocol, flags):
    texts = tmp_path / "texts.json"
    texts.write_text(json.dumps({"data": [{"text": ["Hello world"]}, {"text": ["What is the capital of France?"]}]}))
    port = encoders.port if protocol == "http" else encoders.grpc_port
    before = encoders.metric("spillway_batcher_inputs_total", model="mini")
    row = analyze(tmp_path, "mini", "-u", f"127.0.0.1:{port}", "-i", protocol, "--input-data", texts, "--shape", "text:1",
                  *flags)
    assert row["Inferences/Second"] > 0 and row["p99 latency"] >= row["p50 latency"] > 0
    assert row["Server Compute Infer"] > 0
    assert encoders.metric("spillway_batcher_inputs_total", model="mini") > before


def test_it_sends_pictures(encoders, tmp_path):
    picture = {"content": [round(i % 17 / 17 - 0.5, 3) for i in range(3 * 64 * 48)], "shape": [3, 64, 48]}
    data = tmp_path / "pictures.json"
    data.write_text(json.dumps({"data": [{"pixel_values": picture}]}))
    row = analyze(tmp_path, "eyes", "-u", f"127.0.0.1:{encoders.grpc_port}", "-i", "grpc", "--input-data", data)
    assert row["Inferences/Second"] > 0
