#!/usr/bin/env bash
# Builds and runs the kernels' own programs (*_check, *_bench) with nvcc alone: needs no CMake, no Boost, a GPU.
# gpu_kernels.sh FOLDER PROGRAM[:ARGUMENT]...; objects and programs go to FOLDER. Ends with the first failure's number.
# GPU_BUILD_ONLY=1 runs nothing; GPU_PREFIX="compute-sanitizer ..." stands before each program.
set -uo pipefail
cd "$(dirname "$0")/.."
folder=$1
shift
mkdir -p "$folder"
chip=$(nvidia-smi --query-gpu=compute_cap --format=csv,noheader | head -1 | tr -d .)
[[ "$chip" == 90 ]] && chip=90a
kernels=src/kernels/cuda
compile() {  # source, object
  [[ "$2" -nt "$1" && -z $(find $kernels -newer "$2" \( -name '*.cuh' -o -name '*.h' \) -print -quit) ]] && return
  nvcc -std=c++20 -O3 -lineinfo --expt-relaxed-constexpr -gencode=arch=compute_"$3",code=sm_"$3" -Isrc -c "$1" -o "$2" ||
    echo "FAILED to compile $1"
}
export -f compile
export kernels
sources=("$kernels"/{attention_decode,attention_maps,attention_prefill,attention_prefill_wide,attention_simple,attention_token}.cu
  "$kernels"/gemm_cublaslt.cc "$kernels"/{gemm_bf16,gemm_bf16_prefill,gemm_bf16_wide,gemm_fp8,gemm_fp8_few_rows,gemm_fp8_split,gemm_maps,gemv_experts,gemv_portable,gemv_small_batch,gemv_token}.cu
  "$kernels"/{experts_portable,grouped_experts,head_product,quantize_activations,quantize_weight,mla_cache,mla_decode,mla_simple}.cu
  "$kernels"/sampling*.cu)
programs=()
for program in "$@"; do programs+=("$kernels/${program%%:*}.cu"); done
for source in $(printf '%s\n' "${sources[@]}" "${programs[@]}" | sort -u); do
  [[ -e "$source" ]] && echo "$source $folder/$(basename "${source%.*}").o $chip"
done | xargs -P "$(nproc)" -L 1 bash -c 'compile "$@"' compile
rm -f "$folder/kernels.a"
ar rcs "$folder/kernels.a" $(for s in "${sources[@]}"; do
  case $s in *_check.cu | *_bench.cu) ;; *) [[ -e "$s" ]] && echo "$folder/$(basename "${s%.*}").o" ;; esac
done)
failed=0
for program in "$@"; do
  name=${program%%:*} argument=""
  [[ "$program" == *:* ]] && argument=${program#*:}
  nvcc -gencode=arch=compute_"$chip",code=sm_"$chip" "$folder/$name.o" "$folder/kernels.a" -lcublasLt -o "$folder/$name" ||
    { failed=1; continue; }
  [[ -n "${GPU_BUILD_ONLY:-}" ]] && continue
  echo "== $name $argument"
  ${GPU_PREFIX:-} timeout 150 "$folder/$name" ${argument:+"$argument"}
  status=$?
  ((status == 0)) || { echo "FAILED: $name $argument: $status"; ((failed)) || failed=$status; }
done
exit "$failed"
