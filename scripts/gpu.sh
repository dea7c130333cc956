#!/usr/bin/env bash
# Builds for this machine's GPU, checks every CUDA kernel and golden, and times them: one call, a table last.
# gpu.sh [BUILD_FOLDER [STEP...]]; steps: build check golden sanitize bench (all of them when none is named).
# Needs nvcc, cuBLASLt and a GPU. Each program's output is kept in BUILD_FOLDER/gpu-logs; a failure does not stop the rest.
set -uo pipefail
cd "$(dirname "$0")/.."
build=${1:-build/gpu}
shift
steps=" ${*:-build check golden sanitize bench} "
logs=$build/gpu-logs
mkdir -p "$logs"
programs=()
for file in src/kernels/cuda/*_check.cu src/kernels/cuda/*_bench.cu; do programs+=("cuda_$(basename "$file" .cu)"); done
table=()
failed=0

wanted() { [[ "$steps" == *" $1 "* ]]; }

# run NAME SECONDS COMMAND...: one row of the table.
run() {
  local name=$1 limit=$2 begin=$SECONDS
  shift 2
  timeout "$limit" "$@" >"$logs/$name.log" 2>&1
  local code=$?
  ((code == 0)) || failed=1
  table+=("$(printf '%-42s %-8s %4d s' "$name" "$( ((code == 0)) && echo ok || echo "FAIL $code")" $((SECONDS - begin)))")
  echo "== $name: exit $code"
  tail -n "$( ((code == 0)) && echo 25 || echo 40)" "$logs/$name.log"
}

if wanted build; then
  chip=$(nvidia-smi --query-gpu=compute_cap --format=csv,noheader | head -1 | tr -d .)
  [[ "$chip" == 90 ]] && chip=90a
  run configure 120 cmake -S . -B "$build" -G Ninja -DSPILLWAY_CUDA=ON -DSPILLWAY_CUDA_ARCHITECTURES="$chip" \
    -DCMAKE_BUILD_TYPE=RelWithDebInfo -DCMAKE_CXX_FLAGS_RELWITHDEBINFO="-O2"
  run build 1200 cmake --build "$build" --target models_test model_bench one_shot_bench kernels_cuda_test spillway "${programs[@]}" -- -k 0
fi
for program in "${programs[@]}"; do
  if wanted check && [[ "$program" == *_check ]]; then run "$program" 60 "$build/$program"; fi
done
wanted check && run kernels_cuda_test 60 "$build/kernels_cuda_test" --gtest_brief=1
if wanted golden; then
  run golden 120 "$build/models_test" --gtest_filter='*Cuda*' --gtest_brief=1
  run eval-tiny-r1 120 "$build/spillway" eval --model builtin --device cuda --min-accuracy 100
fi
if wanted sanitize && command -v compute-sanitizer >/dev/null; then
  for program in "${programs[@]}"; do
    [[ "$program" == *_check || "$program" == cuda_gemm_*bench || "$program" == cuda_encoder_*bench ]] || continue
    run "memcheck-$program" 90 compute-sanitizer --tool memcheck --error-exitcode 1 "$build/$program" small
    run "racecheck-$program" 90 compute-sanitizer --tool racecheck --error-exitcode 1 "$build/$program" small
  done
fi
for program in "${programs[@]}"; do
  if wanted bench && [[ "$program" == *_bench ]]; then run "$program" 120 "$build/$program"; fi
done
wanted bench && run llm 300 python3 bench/llm_gpu.py --program "$build/spillway"
wanted bench && run encoders 300 python3 bench/encoders_gpu.py --program "$build/one_shot_bench"
printf '%s\n' "== $(nvidia-smi --query-gpu=name,driver_version --format=csv,noheader | head -1)" "${table[@]}"
exit "$failed"
