#include <algorithm>
#include <cstring>
#include <vector>

#include "kernels/cpu/attention_tasks.h"
#include "kernels/cpu/operations.h"

namespace spillway::kernels::cpu {
namespace {

using tensor::DType;

void check_pages(const LatentPagesView& pages) {
  SW_CHECK(pages.page_tokens > 0 && pages.page_tokens % kAttentionUnit == 0, "page_tokens is no multiple of 16");
  SW_CHECK(pages.dtype == DType::kF32 || pages.dtype == DType::kBF16, "pages of another type than f32 or bf16");
}

std::byte* slot_of(std::span<const int32_t> page_ids, const LatentPagesView& pages, int64_t position) {
  const int64_t page = page_ids[static_cast<size_t>(position / pages.page_tokens)];
  const int64_t width = pages.lora_dim + pages.rope_dim;
  return pages.base + page * pages.page_stride_bytes +
         position % pages.page_tokens * width * static_cast<int64_t>(tensor::size_of(pages.dtype));
}

void store(const float* from, int count, DType dtype, std::byte* to) {
  if (dtype == DType::kF32) {
    std::memcpy(to, from, static_cast<size_t>(count) * 4);
    return;
  }
  kernel_table().round_to_bf16(from, count, reinterpret_cast<uint16_t*>(to));
}

void restore(const std::byte* from, int count, DType dtype, float* to) {
  if (dtype == DType::kF32) {
    std::memcpy(to, from, static_cast<size_t>(count) * 4);
    return;
  }
  const auto* halves = reinterpret_cast<const uint16_t*>(from);
  for (int i = 0; i < count; ++i) to[i] = tensor::bf16_to_float(halves[i]);
}

}  // namespace

void write_latent(const HeadRows& latents, const HeadRows& rope_keys, std::span<const SequenceRows> batch,
                  const LatentPagesView& pages, tensor::Stream& stream) {
  check_pages(pages);
  const auto size = static_cast<int64_t>(tensor::size_of(pages.dtype));
  for (const SequenceRows& sequence : batch) {
    check_sequence(sequence, pages.page_tokens);
    stream.parallel_for(sequence.rows, 32, [&](int64_t begin, int64_t end, int) {
      for (int64_t i = begin; i < end; ++i) {
        const int64_t row = sequence.row_begin + i;
        std::byte* slot = slot_of(sequence.pages, pages, sequence.position + i);
        store(latents.data + row * latents.row_stride + latents.offset, pages.lora_dim, pages.dtype, slot);
        store(rope_keys.data + row * rope_keys.row_stride + rope_keys.offset, pages.rope_dim, pages.dtype,
              slot + pages.lora_dim * size);
      }
    });
  }
}

void read_latent(std::span<const int32_t> page_ids, const LatentPagesView& pages, tensor::TensorView latents,
                 tensor::TensorView rope_keys, tensor::Stream& stream) {
  check_pages(pages);
  const int64_t tokens = latents.shape[0];
  SW_CHECK(latents.shape[1] == pages.lora_dim && rope_keys.shape == (tensor::Shape{tokens, pages.rope_dim}) &&
               static_cast<int64_t>(page_ids.size()) * pages.page_tokens >= tokens,
           "latents " + to_string(latents.shape) + " and keys " + to_string(rope_keys.shape));
  const auto size = static_cast<int64_t>(tensor::size_of(pages.dtype));
  stream.parallel_for(tokens, 32, [&](int64_t begin, int64_t end, int) {
    for (int64_t i = begin; i < end; ++i) {
      const std::byte* slot = slot_of(page_ids, pages, i);
      restore(slot, pages.lora_dim, pages.dtype, latents.as<float>() + i * pages.lora_dim);
      restore(slot + pages.lora_dim * size, pages.rope_dim, pages.dtype, rope_keys.as<float>() + i * pages.rope_dim);
    }
  });
}

void latent_attention(const LatentAttentionArgs& args, std::span<const SequenceRows> batch, tensor::Stream& stream) {
  const LatentPagesView& pages = args.pages;
  check_pages(pages);
  // With few rows in the batch the heads are spread over the threads; their keys are then read once a thread.
  int rows = 0;
  for (const SequenceRows& sequence : batch) rows += sequence.rows;
  const int share = std::clamp(args.heads / stream.threads(), std::min(args.heads, 8), args.heads);
  const int step = rows < 2 * stream.threads() ? share : args.heads;
  std::vector<RowsTask> tasks;
  for (const SequenceRows& sequence : batch) {
    check_sequence(sequence, pages.page_tokens);
    AttentionTask common;
    common.k_dim = pages.lora_dim + pages.rope_dim;
    common.k_tail = pages.rope_dim;
    common.v_dim = pages.lora_dim;
    common.scale = args.scale;
    common.pages = sequence.pages.data();
    common.page_tokens = pages.page_tokens;
    common.bf16 = pages.dtype == DType::kBF16;
    common.k_base = common.v_base = reinterpret_cast<const char*>(pages.base);
    common.page_stride = pages.page_stride_bytes;
    common.k_row = common.v_row = common.k_dim;
    for (int head = 0; head < args.heads; head += step) {
      add_tasks(tasks, common, sequence, head, std::min(step, args.heads - head));
    }
  }
  run_attention(tasks, args.latent_queries, &args.rope_queries, args.heads, args.out, stream);
}

}  // namespace spillway::kernels::cpu
