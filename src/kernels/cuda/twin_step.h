// A step of several sequences on both sides: their rows, their pages in an order of their own between pages of nobody,
// as the CPU's operations and the device's see them.
#pragma once

#include <algorithm>
#include <numeric>

#include "kernels/cuda/twin_test.h"

namespace spillway::kernels::cuda {

struct Slice {
  int position = 0;  // so many tokens are in the pages
  int rows = 1;
};

class TwinStep {
 public:
  TwinStep(std::vector<Slice> slices, int page_tokens, std::mt19937& random, tensor::Stream& stream)
      : slices_(std::move(slices)), page_tokens_(page_tokens) {
    int used = 0, row = 0;
    for (const Slice& s : slices_) used += pages_of(s);
    std::vector<int32_t> free(size_t(used) + kSpare);
    std::iota(free.begin(), free.end(), 0);
    std::shuffle(free.begin(), free.end(), random);
    pages_ = int(free.size());
    for (const Slice& s : slices_) {
      ids_.emplace_back(free.end() - pages_of(s), free.end());
      free.resize(free.size() - size_t(pages_of(s)));
    }
    for (size_t i = 0; i < slices_.size(); ++i) {
      sequences_.push_back({row, slices_[i].rows, slices_[i].position, ids_[i]});
      row += slices_[i].rows;
    }
    positions_ = tensor::Tensor(tensor::DType::kI32, {row});
    for (const SequenceRows& s : sequences_)
      std::iota(positions_.as<int32_t>() + s.row_begin, positions_.as<int32_t>() + s.row_begin + s.rows, s.position);
    send(row, stream);
  }

  int rows() const { return device_.rows; }
  int pages() const { return pages_; }
  int page_tokens() const { return page_tokens_; }
  int context_max() const { return device_.context_max; }
  const std::vector<SequenceRows>& sequences() const { return sequences_; }
  BatchRows here() const { return {sequences_, positions_.view(), {}}; }
  BatchRows there() const { return {sequences_, {}, device_}; }

  // Of a position of a sequence: page and slot in it.
  struct Place {
    int64_t page;
    int slot;
  };
  Place place(const SequenceRows& s, int position) const {
    return {s.pages[size_t(position / page_tokens_)], position % page_tokens_};
  }
  std::string name() const {
    std::string text = std::to_string(slices_.size()) + " sequences";
    for (size_t i = 0; i < std::min<size_t>(slices_.size(), 6); ++i)
      text += ", " + std::to_string(slices_[i].rows) + " at " + std::to_string(slices_[i].position);
    return text;
  }

 private:
  static constexpr int kSpare = 3;  // pages of nobody

  int pages_of(const Slice& s) const { return (s.position + s.rows + page_tokens_ - 1) / page_tokens_; }

  void send(int rows, tensor::Stream& stream) {
    const int count = int(slices_.size());
    device_.rows = rows, device_.sequences = count;
    std::vector<int32_t> begins{0}, contexts, row_sequence;
    for (const Slice& s : slices_) {
      device_.rows_max = std::max(device_.rows_max, s.rows);
      device_.pages_max = std::max(device_.pages_max, pages_of(s));
      device_.context_max = std::max(device_.context_max, s.position + s.rows);
      row_sequence.insert(row_sequence.end(), size_t(s.rows), int32_t(contexts.size()));
      begins.push_back(begins.back() + s.rows);
      contexts.push_back(s.position + s.rows);
    }
    std::vector<int32_t> all(size_t(count) * size_t(device_.pages_max), -1);
    for (size_t i = 0; i < ids_.size(); ++i)
      std::copy(ids_[i].begin(), ids_[i].end(), all.begin() + int64_t(i) * device_.pages_max);
    const size_t begins_at = all.size(), contexts_at = begins_at + begins.size(), rows_at = contexts_at + size_t(count),
                 positions_at = rows_at + size_t(rows);
    all.insert(all.end(), begins.begin(), begins.end());
    all.insert(all.end(), contexts.begin(), contexts.end());
    all.insert(all.end(), row_sequence.begin(), row_sequence.end());
    all.insert(all.end(), positions_.as<int32_t>(), positions_.as<int32_t>() + rows);
    integers_ = tensor::Tensor(tensor::DType::kI32, {int64_t(all.size())}, stream.device());
    stream.upload(integers_.view().data, all.data(), integers_.bytes());
    const int32_t* at = integers_.as<int32_t>();
    device_.page_table = at, device_.row_begin = at + begins_at, device_.contexts = at + contexts_at;
    device_.row_sequence = at + rows_at, device_.positions = at + positions_at;
  }

  std::vector<Slice> slices_;
  int page_tokens_, pages_ = 0;
  std::vector<std::vector<int32_t>> ids_;
  std::vector<SequenceRows> sequences_;
  tensor::Tensor positions_, integers_;
  Batch device_;
};

// The steps that every attention is held against.
inline std::vector<std::vector<Slice>> twin_steps(std::mt19937& random, int prompt_rows) {
  const auto at = [&](int from, int to) { return from + int(random() % unsigned(to - from)); };
  std::vector<std::vector<Slice>> steps = {
      {{0, prompt_rows}},                                                       // a prompt
      {{0, 70}, {64, prompt_rows / 2}, {at(300, 1000), 17}, {at(65, 128), 1}},  // behind prefixes
      {{0, 1}, {63, 1}, {64, 1}, {at(500, 900), 1}, {at(2049, 2200), 1}},       // tokens
      {{at(4000, 5000), 1}},                                                    // one, split over its context
      {{200, 2}, {at(900, 1100), 4}, {31, 8}},                                  // drafts verified
      {{at(1, 2000), 2}},
      {}};
  for (int i = 0; i < 70; ++i) steps.back().push_back({at(0, 300), 1});
  return steps;
}

}  // namespace spillway::kernels::cuda
