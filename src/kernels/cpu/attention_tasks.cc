#include "kernels/cpu/attention_tasks.h"

#include <algorithm>
#include <array>

namespace spillway::kernels::cpu {
namespace {

constexpr int kTaskRows = 96;  // rows that share each piece of keys while it is in the cache
constexpr int kLanesMax = 16;  // query rows of a vector, at most

int64_t work_floats(const AttentionTask& task, int rows) {
  if (!task.transposed) {
    const int64_t lanes = (rows + kLanesMax - 1) / kLanesMax * kLanesMax;
    const auto block = [](int64_t dims) { return (dims + kChunkDims - 1) / kChunkDims * kChunkDims * kAttentionBlock; };
    return block(task.k_dim) + block(task.v_dim) + lanes * (task.k_dim + kAttentionBlock + 3 + task.v_dim + kLanesMax);
  }
  const int64_t padded = (rows + kRowTile - 1) / kRowTile * kRowTile;
  return padded * task.k_dim + int64_t{rows} * (kAttentionBlock + 2 + task.v_dim);
}

// next: what the thread is likely to run after it; or null.
void run_task(const RowsTask& task, const RowsTask* next, const HeadRows& queries, const HeadRows* tails, int heads,
              float* out, float* work) {
  std::array<int32_t, kTaskRows> positions;
  std::array<const float*, kTaskRows> q;
  std::array<const float*, kTaskRows> q_tail;
  std::array<float*, kTaskRows> outs;
  size_t r = 0;
  for (int64_t t = 0; t < task.tokens; ++t) {
    const int64_t row = task.row_begin + t;
    for (int64_t h = task.head_begin; h < task.head_begin + task.heads; ++h, ++r) {
      positions[r] = static_cast<int32_t>(task.position + t);
      q[r] = queries.data + row * queries.row_stride + queries.offset + h * queries.head_stride;
      if (tails != nullptr) q_tail[r] = tails->data + row * tails->row_stride + tails->offset + h * tails->head_stride;
      outs[r] = out + (row * heads + h) * task.common.v_dim;
    }
  }
  AttentionTask rows = task.common;
  rows.rows = static_cast<int>(r);
  rows.positions = positions.data();
  rows.q = q.data();
  rows.q_tail = tails != nullptr ? q_tail.data() : nullptr;
  rows.out = outs.data();
  rows.work = work;
  if (next != nullptr && next->common.pages != task.common.pages) {
    rows.next_pages = next->common.pages;
    rows.next_context = next->position + next->tokens;
  }
  rows.transposed ? kernel_table().attention(rows) : kernel_table().attention_of_rows(rows);
}

}  // namespace

void check_sequence(const SequenceRows& sequence, int page_tokens) {
  const int64_t context = int64_t{sequence.position} + sequence.rows;
  SW_CHECK(sequence.rows >= 0 && sequence.position >= 0 &&
               static_cast<int64_t>(sequence.pages.size()) * page_tokens >= context,
           "pages do not cover the sequence");
}

void add_tasks(std::vector<RowsTask>& tasks, const AttentionTask& common, const SequenceRows& sequence, int head_begin,
               int heads) {
  const int heads_step = std::min(heads, kTaskRows);
  const int tokens_step = std::max(1, kTaskRows / heads_step);
  for (int token = 0; token < sequence.rows; token += tokens_step) {
    for (int head = 0; head < heads; head += heads_step) {
      RowsTask task;
      task.common = common;
      task.row_begin = sequence.row_begin + token;
      task.position = sequence.position + token;
      task.tokens = std::min(tokens_step, sequence.rows - token);
      task.head_begin = head_begin + head;
      task.heads = std::min(heads_step, heads - head);
      tasks.push_back(task);
    }
  }
}

void run_attention(const std::vector<RowsTask>& tasks, const HeadRows& queries, const HeadRows* tails, int heads,
                   tensor::TensorView out, tensor::Stream& stream) {
  int64_t floats = 0;
  for (const RowsTask& task : tasks) floats = std::max(floats, work_floats(task.common, task.tokens * task.heads));
  floats = (floats + 15) / 16 * 16;
  auto* work = static_cast<float*>(stream.scratch(static_cast<size_t>(floats * stream.threads()) * sizeof(float)));
  float* target = out.as<float>();
  const auto last = static_cast<int64_t>(tasks.size()) - 1;
  // The longest contexts come last in the list and are started first.
  stream.parallel_tasks(static_cast<int64_t>(tasks.size()), [&](int64_t i, int thread) {
    const int64_t after = last - i - stream.threads();
    run_task(tasks[static_cast<size_t>(last - i)], after < 0 ? nullptr : &tasks[static_cast<size_t>(after)], queries,
             tails, heads, target, work + thread * floats);
  });
}

}  // namespace spillway::kernels::cpu
