#!/usr/bin/env bash
# Builds for this machine's GPU, checks every CUDA kernel, twin and golden, and times kernels and models: one call, a
# table last. gpu.sh [BUILD_FOLDER [STEP...]]; steps: build check golden sanitize bench models (all when none is named).
# Needs nvcc, cuBLASLt and a GPU. Each program's output is kept in BUILD_FOLDER/gpu-logs; a failure does not stop the rest.
set -uo pipefail
cd "$(dirname "$0")/.."
build=${1:-build/gpu}
shift
steps=" ${*:-build check golden sanitize bench models} "
logs=$build/gpu-logs
mkdir -p "$logs"
capability=$(nvidia-smi --query-gpu=compute_cap --format=csv,noheader | head -1 | tr -d .)
programs=()  # one for each *_check.cu and *_bench.cu
for file in src/kernels/cuda/*_check.cu src/kernels/cuda/*_bench.cu; do programs+=("cuda_$(basename "$file" .cu)"); done
precisions=(bf16)
((capability >= 80)) && precisions+=(fp8 int8 int4)
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

# Whether a program has a small mode, made for a sanitizer.
small_mode() { grep -q '"small"\|`small`' "src/kernels/cuda/${1#cuda_}.cu"; }

if wanted build; then
  [[ "$capability" == 90 ]] && chip=90a || chip=$capability
  run configure 120 cmake -S . -B "$build" -G Ninja -DSPILLWAY_CUDA=ON -DSPILLWAY_CUDA_ARCHITECTURES="$chip" \
    -DCMAKE_BUILD_TYPE=RelWithDebInfo -DCMAKE_CXX_FLAGS_RELWITHDEBINFO="-O2"
  run build 3600 cmake --build "$build" --target spillway kernels_cuda_test models_test engine_test model_bench \
    one_shot_bench "${programs[@]}" -- -k 0
fi
if wanted check; then
  for program in "${programs[@]}"; do
    [[ "$program" == *_check ]] && run "$program" 120 "$build/$program"
  done
  # Against the CPU's twins, and row kernels against float64.
  run kernels_cuda_test 600 "$build/kernels_cuda_test" --gtest_brief=1
fi
if wanted golden; then
  # With them: neighbours change no bit, memory after "ready", memory refused, tokens drawn as the sampler draws them.
  run golden 300 "$build/models_test" --gtest_filter='*Cuda*' --gtest_brief=1
  run engine-on-device 300 "$build/engine_test" --gtest_filter='*Device*:*AfterReady*' --gtest_brief=1
  for precision in "${precisions[@]}"; do
    run "eval-tiny-r1-$precision" 120 "$build/spillway" eval --model builtin --device cuda --precision "$precision" --min-accuracy 100
  done
fi
if wanted sanitize && command -v compute-sanitizer >/dev/null; then
  for program in "${programs[@]}"; do
    small_mode "$program" || continue
    run "memcheck-$program" 120 compute-sanitizer --tool memcheck --error-exitcode 1 "$build/$program" small
    run "racecheck-$program" 120 compute-sanitizer --tool racecheck --error-exitcode 1 "$build/$program" small
  done
  # Of the twins the small ones: those with long prompts and R1's shapes are the programs' above.
  twins='*RoutingTwins*:Carried*:*EncoderTwins*:*LatentTwins*Small*:*AttentionTwins*6of2x32*:*AttentionTwins*14of2x64*'
  for tool in memcheck racecheck; do
    run "$tool-twins" 300 compute-sanitizer --tool "$tool" --error-exitcode 1 "$build/kernels_cuda_test" --gtest_filter="$twins"
  done
fi
if wanted bench; then
  for program in "${programs[@]}"; do
    [[ "$program" == *_bench ]] && run "$program" 180 "$build/$program"
  done
  for program in mla_decode_check mla_prefill_check; do run "$program-bench" 120 "$build/cuda_$program" bench; done
  run encoders 300 python3 bench/encoders_gpu.py --program "$build/one_shot_bench"
fi
if wanted models; then  # the tables of docs/performance.md
  run qwen2.5-7b-beside-pytorch 300 python3 bench/llm_gpu.py --program "$build/spillway"
  roofline() { run "$1" 300 "$build/spillway" bench roofline --device cuda "${@:2}"; }
  for precision in "${precisions[@]}"; do
    roofline "qwen2.5-7b-$precision-one" --model-config qwen2.5-7b --precision "$precision" --sequences 1,2,4 --context 512 --prefill 4096
    roofline "qwen2.5-7b-$precision-many" --model-config qwen2.5-7b --precision "$precision" --sequences 32,128 --context 1024 --prefill 0
  done
  memory=$(nvidia-smi --query-gpu=memory.total --format=csv,noheader,nounits | head -1)
  if ((memory > 120000)); then  # MiB: 8 of R1's layers are 92 GB
    for rows in 1 2; do
      roofline "r1-8-layers-rows-$rows" --model-config deepseek-r1 --layers 3:11 --rows "$rows" --sequences 1,256 --context 2048 --prefill 0
    done
  fi
fi
printf '%s\n' "== $(nvidia-smi --query-gpu=name,driver_version --format=csv,noheader | head -1)" "${table[@]}"
exit "$failed"
