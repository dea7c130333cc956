// From the registers of a warpgroup product through shared memory to device memory by tensor copies, as bf16: the warps
// go on while the copy engine stores. Each warp stages its own 16 rows; sm_90.
#pragma once

#include "kernels/cuda/gemm_launch.cuh"
#include "kernels/cuda/gemm_ptx.cuh"

namespace spillway::kernels::cuda {
namespace ptx {

// From shared memory into the box at (x, y), as much of it as lies inside; asynchronous, of the calling thread's group.
// Every thread that has written there has published it (publish_shared) before.
__device__ __forceinline__ void tensor_store(const CUtensorMap* map, const void* from, int x, int y) {
  asm volatile("cp.async.bulk.tensor.2d.global.shared::cta.bulk_group [%0, {%2, %3}], [%1];" ::"l"(map),
               "r"(shared_address(from)), "r"(x), "r"(y)
               : "memory");
}
__device__ __forceinline__ void stores_commit() { asm volatile("cp.async.bulk.commit_group;" ::: "memory"); }
// Until what this thread's stores read may be written again; until they are done.
__device__ __forceinline__ void stores_wait_read() { asm volatile("cp.async.bulk.wait_group.read 0;" ::: "memory"); }
__device__ __forceinline__ void stores_wait() { asm volatile("cp.async.bulk.wait_group 0;" ::: "memory"); }
// What ordinary stores have put into shared memory becomes visible to the copy engine.
__device__ __forceinline__ void publish_staged() { asm volatile("fence.proxy.async.shared::cta;" ::: "memory"); }
// Four matrices of 8 x 8 of 16 bits, registers as mma has them, to rows of 16 bytes at the warp's addresses.
__device__ __forceinline__ void store_matrix4(uint32_t address, const uint32_t (&r)[4]) {
  asm volatile("stmatrix.sync.aligned.m8n8.x4.shared.b16 [%0], {%1, %2, %3, %4};" ::"r"(address), "r"(r[0]), "r"(r[1]),
               "r"(r[2]), "r"(r[3])
               : "memory");
}

}  // namespace ptx

// A warp's 16 rows of 128 columns as bf16: two boxes of 64 columns in the 128-byte swizzle, as tensor copies take them.
constexpr int kStagedBoxBytes = 16 * 128;

__device__ __forceinline__ void stage_rows(char* boxes, const float (&d)[64]) {
  const int lane = threadIdx.x % 32, row = lane % 16;
  const uint32_t to = ptx::shared_address(boxes) + row * 128;
#pragma unroll
  for (int i = 0; i < 8; ++i) {
    const uint32_t words[4] = {pack_bf16(d[i * 8], d[i * 8 + 1]), pack_bf16(d[i * 8 + 2], d[i * 8 + 3]),
                               pack_bf16(d[i * 8 + 4], d[i * 8 + 5]), pack_bf16(d[i * 8 + 6], d[i * 8 + 7])};
    ptx::store_matrix4(to + i / 4 * kStagedBoxBytes + (((i % 4 * 2 + lane / 16) ^ (row & 7)) << 4), words);
  }
}

}  // namespace spillway::kernels::cuda
