#!/usr/bin/env bash
# The measurements of docs/performance.md, one after another: bench.sh [WORK_DIR for up to 6 GB of random weights].
set -uo pipefail
cd "$(dirname "$0")/.."
spillway=build/release/spillway
for precision in bf16 int8 fp32; do "$spillway" eval --model builtin --precision "$precision" | tail -1; done
"$spillway" bench latency --model builtin
"$spillway" bench throughput --model builtin
bench/overload.py
bench/soak.py
bench/llama_cpp.py --work-dir "${1:-$(mktemp -d)}"
