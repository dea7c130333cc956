#include "nn/step_inputs.h"

#include <algorithm>
#include <cstring>

#include "tensor/cuda/cuda.h"

namespace spillway::nn {
namespace {

constexpr int64_t kAlign = 4;  // elements: arrays begin at 16 bytes
constexpr int64_t kDrawWords = sizeof(kernels::RowDraw) / sizeof(int32_t);
constexpr int64_t kDraftedWords = sizeof(kernels::DraftedSequence) / sizeof(int32_t);
constexpr int64_t kPageTokens = 64;  // what page tables are sized for; smaller pages take shorter batches

int64_t rounded(int64_t count) { return (count + kAlign - 1) / kAlign * kAlign; }

int64_t pages_for(int64_t tokens, int64_t page_tokens) { return (tokens + page_tokens - 1) / page_tokens; }

}  // namespace

StepInputs::StepInputs(const Limits& limits, tensor::Stream& stream) : limits_(limits) {
  const bool cpu = stream.device().kind == tensor::DeviceKind::kCpu;
  int64_t elements = 4 * rounded(limits.tokens);
  if (!cpu) {
    elements += 2 * rounded(limits.tokens) + 2 * rounded(limits.sequences + 1) +
                std::max(kDrawWords * limits.sequences, kDraftedWords * (limits.sequences / 2)) +
                rounded(limits.sequences * pages_for(limits.context_tokens, kPageTokens));
  }
  for (int i = 0; i < (cpu ? 1 : kBlocks); ++i)
    hosts_.emplace_back(tensor::DType::kI32, tensor::Shape{elements}, stream.host());
  if (!cpu) device_ = tensor::Tensor(tensor::DType::kI32, {elements}, stream.device());
}

void StepInputs::clear() {
  ids.clear();
  sources.clear();
  wanted.clear();
  draws.clear();
  carried.clear();
  drafted.clear();
  sequences.clear();
}

int32_t* StepInputs::put(int64_t count) {
  SW_CHECK(used_ + count <= hosts_[turn_].shape()[0],
           "a batch with more rows, sequences or pages than the model was loaded for");
  int32_t* at = block() + used_;
  used_ += rounded(count);
  return at;
}

int32_t* StepInputs::put(std::span<const int32_t> values) {
  int32_t* at = put(int64_t(values.size()));
  std::copy(values.begin(), values.end(), at);
  return at;
}

tensor::TensorView StepInputs::on_device(const int32_t* host, int64_t count) const {
  int32_t* const memory = device_.empty() ? block() : device_.as<int32_t>();
  return {memory + (host - block()), tensor::DType::kI32, {count}};
}

void StepInputs::pad(int64_t count, int32_t rows, const int32_t* page) {
  while (int64_t(sequences.size()) < count) {
    const auto row = int32_t(ids.size());
    sequences.push_back({.row_begin = row, .rows = rows, .position = 0, .pages = {page, 1}});
    if (!drafted.empty()) drafted.emplace_back();
    for (int32_t i = 0; i < rows; ++i) {
      ids.push_back(0);
      if (!sources.empty()) sources.push_back(0);
      if (!carried.empty()) carried.push_back(-1);
      if (!draws.empty()) draws.emplace_back();
      wanted.push_back(row + i);
    }
  }
}

StepInputs::View StepInputs::upload(const KvStorage& kv, tensor::Stream& stream, int64_t count, int32_t rows) {
  const int32_t padding_page = kv.padding_page();
  const size_t real = sequences.size();
  pad(count, rows, &padding_page);
  turn_ = (turn_ + 1) % hosts_.size();
  if (sent_[turn_] >= 0) stream.cuda().wait(sent_[turn_]);
  used_ = 0;
  View view;
  view.ids = on_device(put(ids), int64_t(ids.size()));
  view.sources = on_device(put(sources), int64_t(sources.size()));
  view.wanted = on_device(put(wanted), int64_t(wanted.size()));
  view.carried = on_device(put(carried), int64_t(carried.size()));
  int32_t* const words = put(kDrawWords * int64_t(draws.size()));
  if (!draws.empty()) std::memcpy(words, draws.data(), draws.size() * sizeof(kernels::RowDraw));
  view.draws = reinterpret_cast<const kernels::RowDraw*>(on_device(words, 0).data);
  int32_t* const each = put(kDraftedWords * int64_t(drafted.size()));
  if (!drafted.empty()) std::memcpy(each, drafted.data(), drafted.size() * sizeof(kernels::DraftedSequence));
  view.drafted = reinterpret_cast<kernels::DraftedSequence*>(on_device(each, 0).data);
  int32_t* positions = put(int64_t(ids.size()));
  view.rows.positions = on_device(positions, int64_t(ids.size()));
  for (const kernels::SequenceRows& sequence : sequences) {
    for (int32_t i = 0; i < sequence.rows; ++i) positions[sequence.row_begin + i] = sequence.position + i;
    view.longest = std::max<int64_t>(view.longest, sequence.position + sequence.rows);
  }
  if (!device_.empty()) {
    put_batch(kv, view);
    stream.cuda().upload_pinned(device_.view().data, hosts_[turn_].view().data, size_t(used_) * sizeof(int32_t));
    view.sent = sent_[turn_] = stream.cuda().mark();
  }
  sequences.resize(real);
  view.rows.sequences = sequences;
  return view;
}

void StepInputs::put_batch(const KvStorage& kv, View& view) {
  const auto count = int64_t(sequences.size());
  const int64_t pages = pages_for(limits_.context_tokens, kv.page_tokens());
  int32_t* row_sequence = put(int64_t(ids.size()));
  int32_t* row_begin = put(count + 1);
  int32_t* contexts = put(count);
  int32_t* table = put(count * pages);
  kernels::cuda::Batch& batch = view.rows.device;
  for (int64_t s = 0; s < count; ++s) {
    const kernels::SequenceRows& sequence = sequences[size_t(s)];
    row_begin[s] = sequence.row_begin;
    contexts[s] = sequence.position + sequence.rows;
    std::fill_n(row_sequence + sequence.row_begin, sequence.rows, int32_t(s));
    // All that there are: where a drafted step is carried on, only the device knows how many it reads.
    std::copy_n(sequence.pages.begin(), std::min<int64_t>(int64_t(sequence.pages.size()), pages), table + s * pages);
    batch.rows_max = std::max(batch.rows_max, int(sequence.rows));
  }
  row_begin[count] = int32_t(ids.size());
  batch.rows = int(ids.size());
  batch.sequences = int(count);
  batch.pages_max = int(pages);
  batch.context_max = int(limits_.context_tokens);
  batch.page_table = on_device(table, count * pages).as<int32_t>();
  batch.row_begin = on_device(row_begin, count + 1).as<int32_t>();
  view.contexts = on_device(contexts, count);
  batch.contexts = view.contexts.as<int32_t>();
  batch.positions = view.rows.positions.as<int32_t>();
  batch.row_sequence = on_device(row_sequence, int64_t(ids.size())).as<int32_t>();
}

}  // namespace spillway::nn
