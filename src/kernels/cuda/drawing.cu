// Tokens on the device: drawn from a step's logits, carried into the next step's ids, drafts kept or not. Contracts in
// kernels/sampling.h and kernels/drafting.h.
#include "kernels/cuda/layers.h"
#include "kernels/cuda/rows.cuh"
#include "kernels/cuda/sampling.h"

namespace spillway::kernels::cuda {
namespace {

// A row whose logits were not finite drew -1: the host ends that request, and meanwhile its next step reads token 0.
__global__ void carry_rows(const int32_t* carried, const int32_t* drawn, int32_t* ids, int count) {
  take_turn();
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i < count && carried[i] >= 0) ids[i] = max(0, drawn[carried[i]]);
}

// A thread a sequence in both: there are at most a few hundred, and what one writes no other reads.
struct DraftedPointers {
  DraftedSequence* sequences;
  int32_t *tokens, *drafts, *kept, *ids, *positions, *contexts, *draft_ids, *draft_rows;
  RowDraw *draws, *draft_draws;
  int count;
};

__global__ void begin_sequences(DraftedPointers p) {
  take_turn();
  const int s = blockIdx.x * blockDim.x + threadIdx.x;
  if (s >= p.count) return;
  DraftedSequence& sequence = p.sequences[s];
  begin_drafted(sequence, p.tokens, p.drafts, p.kept);
  p.ids[2 * s] = sequence.token;
  p.ids[2 * s + 1] = max(0, sequence.draft);
  p.positions[2 * s] = sequence.position;
  p.positions[2 * s + 1] = sequence.position + 1;
  p.contexts[s] = sequence.position + 2;
  p.draws[2 * s] = verifying_draw(sequence, 0);
  p.draws[2 * s + 1] = verifying_draw(sequence, 1);
}

__global__ void keep_sequences(DraftedPointers p) {
  take_turn();
  const int s = blockIdx.x * blockDim.x + threadIdx.x;
  if (s >= p.count) return;
  const DraftedSequence& sequence = p.sequences[s];
  const bool real = sequence.draws[0].vocab > 0;  // nothing was drawn for the others
  const int kept = real ? keeps_draft(sequence, p.tokens[2 * s]) : 0;
  p.kept[s] = kept;
  p.draft_ids[2 * s] = real ? max(0, p.tokens[2 * s]) : 0;
  p.draft_ids[2 * s + 1] = real ? max(0, p.tokens[2 * s + 1]) : 0;
  p.draft_rows[s] = 2 * s + kept;
  p.draft_draws[s] = proposing_draw(sequence, kept);
  p.drafts[s] = -1;
}

void over_sequences(const char* name, void (*kernel)(DraftedPointers), const DraftedStep& step,
                    tensor::Stream& stream) {
  const int64_t count = step.contexts.elements();
  SW_CHECK(step.ids.elements() == 2 * count && step.positions.elements() == 2 * count &&
               step.draft_ids.elements() == 2 * count && step.draft_rows.elements() == count &&
               step.tokens.elements() >= 2 * count && step.drafts.elements() >= count && step.kept.elements() >= count,
           "arrays of another number of sequences than " + std::to_string(count));
  const DraftedPointers pointers{.sequences = step.sequences,
                                 .tokens = step.tokens.as<int32_t>(),
                                 .drafts = step.drafts.as<int32_t>(),
                                 .kept = step.kept.as<int32_t>(),
                                 .ids = step.ids.as<int32_t>(),
                                 .positions = step.positions.as<int32_t>(),
                                 .contexts = step.contexts.as<int32_t>(),
                                 .draft_ids = step.draft_ids.as<int32_t>(),
                                 .draft_rows = step.draft_rows.as<int32_t>(),
                                 .draws = step.draws,
                                 .draft_draws = step.draft_draws,
                                 .count = int(count)};
  launch_row_kernel(name, kernel, unsigned((count + 127) / 128), 128, 0, stream, pointers);
}

}  // namespace

void draw_rows(tensor::TensorView logits, const RowDraw* draws, tensor::TensorView tokens, tensor::Stream& stream) {
  const int64_t rows = tokens.elements();
  SW_CHECK(logits.shape[0] >= rows, "more draws than rows of logits");
  if (rows == 0) return;
  tensor::cuda::check(
      launch_draw_rows(logits.as<float>(), logits.shape[1], draws, int(rows), tokens.as<int32_t>(), native(stream)),
      "draw_rows");
}

void carry_tokens(tensor::TensorView carried, tensor::TensorView drawn, tensor::TensorView ids,
                  tensor::Stream& stream) {
  const int64_t count = ids.elements();
  SW_CHECK(carried.elements() == count, "carried " + to_string(carried.shape));
  if (count == 0) return;
  launch_row_kernel("carry_rows", carry_rows, unsigned((count + 255) / 256), 256, 0, stream, carried.as<int32_t>(),
                    drawn.as<int32_t>(), ids.as<int32_t>(), int(count));
}

void begin_drafted_step(const DraftedStep& step, tensor::Stream& stream) {
  over_sequences("begin_drafted_step", begin_sequences, step, stream);
}

void keep_drafts(const DraftedStep& step, tensor::Stream& stream) {
  over_sequences("keep_drafts", keep_sequences, step, stream);
}

}  // namespace spillway::kernels::cuda
