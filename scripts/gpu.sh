#!/usr/bin/env bash
# Builds for this machine's GPU, checks every CUDA kernel and golden, and times them: one call, a table last.
# gpu.sh [BUILD_FOLDER]; needs nvcc, cuBLASLt and a GPU.
set -euo pipefail
cd "$(dirname "$0")/.."
build=${1:-build/gpu}
chip=$(nvidia-smi --query-gpu=compute_cap --format=csv,noheader | head -1 | tr -d .)
[[ "$chip" == 90 ]] && chip=90a
cmake -S . -B "$build" -G Ninja -DSPILLWAY_CUDA=ON -DSPILLWAY_CUDA_ARCHITECTURES="$chip" \
  -DCMAKE_BUILD_TYPE=RelWithDebInfo >/dev/null
programs=()
for file in src/kernels/cuda/*_check.cu src/kernels/cuda/*_bench.cu; do programs+=("cuda_$(basename "$file" .cu)"); done
cmake --build "$build" --target models_test model_bench "${programs[@]}"
failed=0
check() { echo "== $*"; "$@" || { echo "FAILED: $*"; failed=1; }; }
for program in "${programs[@]}"; do [[ "$program" == *_check ]] && check "$build/$program"; done
check "$build/models_test" --gtest_filter='*Cuda*' --gtest_brief=1
if command -v compute-sanitizer >/dev/null; then
  for program in "${programs[@]}"; do
    [[ "$program" == *_check ]] || continue
    check compute-sanitizer --tool memcheck --error-exitcode 1 "$build/$program" small
    check compute-sanitizer --tool racecheck --error-exitcode 1 "$build/$program" small
  done
fi
for program in "${programs[@]}"; do [[ "$program" == *_bench ]] && check "$build/$program"; done
exit "$failed"
