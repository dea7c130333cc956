// Cuts the attention of a batch into tasks of some rows of queries against one kv head, and runs them on all threads.
#pragma once

#include <vector>

#include "kernels/attention.h"
#include "kernels/cpu/kernel_table.h"

namespace spillway::kernels::cpu {

// Tokens [token_begin, token_end) of one sequence's slice, heads [head_begin, head_end) each: rows in that order.
struct RowsTask {
  AttentionTask common;
  int row_begin = 0;  // of the batch
  int position = 0;   // of the first token
  int tokens = 0;
  int head_begin = 0;
  int heads = 0;
};

void check_sequence(const SequenceRows& sequence, int page_tokens);

// Adds the tasks of heads [head_begin, head_begin + heads), which share common's keys and values.
void add_tasks(std::vector<RowsTask>& tasks, const AttentionTask& common, const SequenceRows& sequence, int head_begin,
               int heads);

// queries, tails (or null): rows by head; out f32 [T, heads, v_dim].
void run_attention(const std::vector<RowsTask>& tasks, const HeadRows& queries, const HeadRows* tails, int heads,
                   tensor::TensorView out, tensor::Stream& stream);

}  // namespace spillway::kernels::cpu
