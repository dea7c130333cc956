#include <algorithm>
#include <string>
#include <vector>

#include "kernels/cpu/attention_tasks.h"
#include "kernels/cpu/operations.h"

namespace spillway::kernels::cpu {
namespace {

using tensor::DType;

void check_pages(const KvPagesView& pages) {
  SW_CHECK(pages.page_tokens > 0 && pages.page_tokens % kAttentionUnit == 0, "page_tokens is no multiple of 16");
  SW_CHECK(pages.dtype == DType::kF32 || pages.dtype == DType::kBF16, "pages of another type than f32 or bf16");
}

// Where kv head `head` starts within a page, in elements.
int64_t keys_at(const KvPagesView& pages, int head) { return int64_t{head} * pages.k_dim * pages.page_tokens; }
int64_t values_at(const KvPagesView& pages, int head) {
  return keys_at(pages, pages.kv_heads) + int64_t{head} * pages.page_tokens * pages.v_dim;
}

template <class T, class Store>
void write_row(const float* k, const float* v, int head, int slot, const KvPagesView& pages, std::byte* page,
               Store store) {
  auto* keys = reinterpret_cast<T*>(page) + keys_at(pages, head) + slot;
  auto* values = reinterpret_cast<T*>(page) + values_at(pages, head) + int64_t{slot} * pages.v_dim;
  for (int d = 0; d < pages.k_dim; ++d) keys[int64_t{d} * pages.page_tokens] = store(k[d]);
  for (int d = 0; d < pages.v_dim; ++d) values[d] = store(v[d]);
}

}  // namespace

void write_kv(const HeadRows& keys, const HeadRows& values, std::span<const SequenceRows> batch,
              const KvPagesView& pages, tensor::Stream& stream) {
  check_pages(pages);
  for (const SequenceRows& sequence : batch) {
    check_sequence(sequence, pages.page_tokens);
    stream.parallel_for(sequence.rows, 16, [&](int64_t begin, int64_t end, int) {
      for (int64_t i = begin; i < end; ++i) {
        const int64_t position = sequence.position + i;
        const int64_t row = sequence.row_begin + i;
        const int64_t page = sequence.pages[static_cast<size_t>(position / pages.page_tokens)];
        std::byte* data = pages.base + page * pages.page_stride_bytes;
        const auto slot = static_cast<int>(position % pages.page_tokens);
        for (int h = 0; h < pages.kv_heads; ++h) {
          const float* k = keys.data + row * keys.row_stride + keys.offset + h * keys.head_stride;
          const float* v = values.data + row * values.row_stride + values.offset + h * values.head_stride;
          if (pages.dtype == DType::kF32) {
            write_row<float>(k, v, h, slot, pages, data, [](float x) { return x; });
          } else {
            write_row<uint16_t>(k, v, h, slot, pages, data, tensor::float_to_bf16);
          }
        }
      }
    });
  }
}

void paged_attention(const AttentionArgs& args, std::span<const SequenceRows> batch, tensor::Stream& stream) {
  const KvPagesView& pages = args.pages;
  check_pages(pages);
  SW_CHECK(args.heads > 0 && args.heads % pages.kv_heads == 0, "heads is no multiple of kv_heads");
  const int group = args.heads / pages.kv_heads;
  const auto size = static_cast<int64_t>(tensor::size_of(pages.dtype));
  // With fewer kv heads than threads their queries are spread: the keys are then read once a thread.
  int64_t rows = 0;
  for (const SequenceRows& sequence : batch) rows += sequence.rows;
  const int64_t whole = std::max<int64_t>(1, rows * pages.kv_heads);
  const int step = whole >= stream.threads() ? group : static_cast<int>((group * whole - 1) / stream.threads()) + 1;
  std::vector<RowsTask> tasks;
  for (const SequenceRows& sequence : batch) {
    check_sequence(sequence, pages.page_tokens);
    for (int h = 0; h < pages.kv_heads; ++h) {
      AttentionTask common;
      common.k_dim = pages.k_dim;
      common.v_dim = pages.v_dim;
      common.scale = args.scale;
      common.pages = sequence.pages.data();
      common.page_tokens = pages.page_tokens;
      common.bf16 = pages.dtype == DType::kBF16;
      common.transposed = true;
      common.k_base = reinterpret_cast<const char*>(pages.base) + keys_at(pages, h) * size;
      common.v_base = reinterpret_cast<const char*>(pages.base) + values_at(pages, h) * size;
      common.page_stride = pages.page_stride_bytes;
      common.k_row = pages.page_tokens;
      common.v_row = pages.v_dim;
      for (int head = 0; head < group; head += step) {
        add_tasks(tasks, common, sequence, h * group + head, std::min(step, group - head));
      }
    }
  }
  run_attention(tasks, args.queries, nullptr, args.heads, args.out, stream);
}

void dense_attention(const DenseAttentionArgs& args, tensor::Stream& stream) {
  static constexpr int32_t kOnlyPage = 0;
  const int context = args.position + args.rows;
  SequenceRows sequence;
  sequence.rows = args.rows;
  sequence.position = args.position;
  sequence.pages = {&kOnlyPage, 1};
  std::vector<RowsTask> tasks;
  for (int h = 0; h < args.heads && args.rows > 0; ++h) {
    AttentionTask common;
    common.k_dim = args.k_dim;
    common.v_dim = args.v_dim;
    common.scale = args.scale;
    common.pages = &kOnlyPage;
    common.page_tokens = (context + kAttentionUnit - 1) / kAttentionUnit * kAttentionUnit;
    common.k_base = reinterpret_cast<const char*>(args.keys.data + args.keys.offset + h * args.keys.head_stride);
    common.v_base = reinterpret_cast<const char*>(args.values.data + args.values.offset + h * args.values.head_stride);
    common.k_row = args.keys.row_stride;
    common.v_row = args.values.row_stride;
    add_tasks(tasks, common, sequence, h, 1);
  }
  run_attention(tasks, args.queries, nullptr, args.heads, args.out, stream);
}

}  // namespace spillway::kernels::cpu
