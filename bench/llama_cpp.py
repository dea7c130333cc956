#!/usr/bin/env python3
"""Spillway against llama.cpp on the same machine, shape, weight size and threads, by turns.

  bench/llama_cpp.py [--spillway build/release/spillway] [--work-dir DIR] [--threads 2] [--rounds 3] [CASE ...]

Cases: qwen2.5-1.5b-bf16, qwen2.5-1.5b-q8_0, deepseek-v3-small-q8_0 (all by default). llama.cpp comes from a virtual
environment that this script makes once at .venv/peers (its build takes minutes). The weights are random: a GGUF file for
it and a checkpoint folder for us, written to --work-dir (up to 9 GB together, removed afterwards), so both start from
files.
Q8_0 meets our int8, quantised at load. Each round measures one and then the other. The machine's own speed drifts, so
the objective is held against the median of the rounds' ratios; the best of each side and its spread are printed beside
it. We start twice a round: as the first time, packing the weights behind the first token (--model-cache off; the default
would begin to write them during the measurement), and as every later time, mapping what was packed. A start between the two, unmeasured,
writes the packed weights.
"""
import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
PEERS = os.path.join(ROOT, "bench", "peers")
SHAPES = os.path.join(ROOT, "bench", "shapes")
PACKAGES = ["llama-cpp-python", "gguf", "numpy"]

# name: (shape, GGUF type, our precision); equal bytes a weight on both sides
CASES = {
    "qwen2.5-1.5b-bf16": ("qwen2.5-1.5b", "bf16", "bf16"),
    "qwen2.5-1.5b-q8_0": ("qwen2.5-1.5b", "q8_0", "int8"),
    "deepseek-v3-small-q8_0": ("deepseek-v3-small", "q8_0", "auto"),  # ours: FP8 blocks, as published
}
# what: (llama_speed.py's key, ours, our unit in theirs, is more better, the objective as a ratio)
FIGURES = {
    "decode, tok/s": ("decode_tok_s", "decode_tokens_per_s", 1, True, 1.1),
    "prefill, tok/s": ("prefill_tok_s", "prefill_tokens_per_s", 1, True, 1.5),
    "resident, MiB": ("resident_mib", "resident_bytes", 2**-20, False, 1.05),
    "start to first token, s": ("first_token_s", "start_to_first_token_s", 1, False, 0.7),
    "  first start, s": ("first_token_s", "first_start_to_first_token_s", 1, False, 0.7),
    "  resident then, MiB": ("resident_mib", "first_resident_bytes", 2**-20, False, 1.05),
}


def peers_python(given):
    if given:
        return given
    folder = os.path.join(ROOT, ".venv", "peers")
    python = os.path.join(folder, "bin", "python")
    marker = os.path.join(folder, "complete")
    if not os.path.exists(marker):
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
        subprocess.run([python, "-m", "pip", "install", "-q", *PACKAGES], check=True)
        open(marker, "w").close()
    return python


def run(command):
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True)
    if done.returncode != 0:
        sys.exit(f"llama_cpp.py: {' '.join(command)} ended with status {done.returncode}")
    return json.loads(done.stdout.strip().splitlines()[-1])


def measure_ours(args, folder, precision, cache):
    """One round of ours: a first start, and one with the packed weights in place."""
    command = [args.spillway, "bench", "latency", "--model", folder, "--precision", precision, "--threads",
               str(args.threads), "--prompt-tokens", str(args.prompt), "--output-tokens", str(args.decode),
               "--repeats", "1", "--json", "--model-cache-dir", cache, "--model-cache"]
    first = run(command + ["off"])
    if not os.path.isdir(cache):
        subprocess.run(command[:-1] + ["--model-cache", "on"], stdout=subprocess.DEVNULL, check=True)
    later = run(command + ["auto"])
    return {**later, "first_start_to_first_token_s": first["start_to_first_token_s"],
            "first_resident_bytes": first["resident_bytes"]}


def measure(args, python, name):
    shape, kind, precision = CASES[name]
    shape_file = os.path.join(SHAPES, shape + ".json")
    gguf_file = os.path.join(args.work_dir, name + ".gguf")
    folder = os.path.join(args.work_dir, name)
    cache = os.path.join(args.work_dir, name + "-packed")
    theirs, ours = [], []
    try:
        subprocess.run([python, os.path.join(PEERS, "make_gguf.py"), shape_file, kind, gguf_file], check=True,
                       stdout=sys.stderr)
        subprocess.run([python, os.path.join(PEERS, "make_checkpoint.py"), shape_file, folder], check=True)
        for _ in range(args.rounds):
            theirs.append(run([python, os.path.join(PEERS, "llama_speed.py"), gguf_file, "--threads", str(args.threads),
                               "--prompt", str(args.prompt), "--decode", str(args.decode), "--repeat", "1"]))
            ours.append(measure_ours(args, folder, precision, cache))
    finally:
        if os.path.exists(gguf_file):
            os.remove(gguf_file)
        shutil.rmtree(folder, ignore_errors=True)
        shutil.rmtree(cache, ignore_errors=True)
    return theirs, ours


def report(name, theirs, ours):
    print(f"\n{name}\n  {'':<24}{'llama.cpp':>11}{'spread':>8}{'spillway':>11}{'spread':>8}{'of best':>9}{'median':>8}"
          f"{'objective':>11}")
    for what, (their_key, our_key, unit, more, objective) in FIGURES.items():
        their = [result[their_key] for result in theirs]
        our = [result[our_key] * unit for result in ours]
        best = max if more else min
        ratio = statistics.median(ours_ / theirs_ for ours_, theirs_ in zip(our, their))
        met = ratio >= objective if more else ratio <= objective
        print(f"  {what:<24}{best(their):>11.2f}{spread(their):>8}{best(our):>11.2f}{spread(our):>8}"
              f"{best(our) / best(their):>9.2f}{ratio:>8.2f}"
              f"{('>= ' if more else '<= ') + str(objective):>11}{'' if met else '  missed'}", flush=True)


def spread(values):
    return f"{100 * (max(values) - min(values)) / max(values):.0f}%"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cases", nargs="*", metavar="CASE", help=", ".join(CASES))
    parser.add_argument("--spillway", default=os.path.join(ROOT, "build/release/spillway"))
    parser.add_argument("--work-dir", default=tempfile.gettempdir())
    parser.add_argument("--python", help="a Python that has " + ", ".join(PACKAGES) + " already")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--prompt", type=int, default=512)
    parser.add_argument("--decode", type=int, default=48)
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    unknown = [name for name in args.cases if name not in CASES]
    if unknown:
        parser.error(f"expected cases of {', '.join(CASES)}, found {', '.join(unknown)}")
    python = peers_python(args.python)
    for name in args.cases or CASES:
        report(name, *measure(args, python, name))


if __name__ == "__main__":
    main()
