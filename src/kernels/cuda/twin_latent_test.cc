// Latent attention of a layer on the first GPU against the CPU's in float32: the norms, rope and pages of latent_store,
// and from queries to values of prompts, of tokens and of drafts over pages that were there.
//
// Bounds, with u the rounding of activations (twin_test.h): the queries in latent space, their rope, the probabilities,
// the sums in latent space and the outputs are each rounded once, of 0.4 u; the row's own latents too, which are keys
// and values. Scores of deviation 1.3 make the errors of queries and keys 0.8 u of a probability; with four more of 0.4
// u that is 1.1 u of a row's root mean square. With these roundings and none else, in float64, rows have at most 1.2 u
// (2.4 of small heads), heads 3.6 u and elements 9 u: held to 3 u, 6 u and 20 u. In tf32 products round their inputs to
// 2^-10 at most (numbers that it holds, but for the sums in latent space): u = 2^-10. What is stored is rounded once.
#include <cstring>

#include "kernels/cuda/twin_step.h"

namespace spillway::kernels::cuda {
namespace {

using tensor::Arena;
using tensor::DType;
using tensor::Tensor;
using tensor::TensorView;

struct LatentCase {
  const char* name;
  int heads, q_lora, kv_lora, nope, rope, value;
  RopePairs pairs;
  float weights;  // of these numbers, so that keys are of some 1.4
};
constexpr LatentCase kLatents[] = {{"R1", 128, 1536, 512, 128, 64, 128, RopePairs::kInterleaved, 1.0f / 16},
                                   {"Lite", 16, 0, 512, 128, 64, 128, RopePairs::kInterleaved, 1.0f / 16},
                                   {"Halves", 32, 768, 512, 64, 64, 64, RopePairs::kHalves, 1.0f / 16},
                                   {"Small", 8, 48, 32, 16, 8, 32, RopePairs::kInterleaved, 0.25f}};
struct Way {
  Precision precision;
  bool invariant;  // the batch
  const char* name;
};
constexpr Way kWays[] = {{Precision::kFp32, false, "fp32"},
                         {Precision::kTf32, false, "tf32"},
                         {Precision::kBf16, false, "half"},
                         {Precision::kBf16, true, "alone"}};

class LatentTwins : public TwinTest, public testing::WithParamInterface<std::tuple<LatentCase, Way>> {
 protected:
  void SetUp() override {
    TwinTest::SetUp();
    if (!stream_) return;
    stream_->set_batch_invariant(way_.invariant);
    const bool wide = computes_in_f32(way_.precision);
    dtype_ = wide ? DType::kF32 : half_type(kDevice);
    const double u = way_.precision == Precision::kTf32 ? 0x1p-10 : rounding_of(dtype_);
    heads_ = way_.precision == Precision::kFp32 ? Bounds{2e-5, 1e-4} : Bounds{6 * u, 20 * u};
    shape_ = {case_.heads, case_.q_lora, case_.kv_lora, case_.nope,
              case_.rope,  case_.value,  case_.pairs,   1 / std::sqrt(float(case_.nope + case_.rope))};
    pack();
  }

  void pack() {
    const int block = case_.nope + case_.value;
    up_ = numbers({int64_t{case_.heads} * block, case_.kv_lora}, case_.weights);
    const WeightSource source{.weight = up_.view(), .scales = {}};
    const auto heads = [&](int first, int rows, bool transposed, Precision precision, tensor::Stream& stream) {
      auto packed = pack_heads(up_, case_.heads, first, rows, transposed, precision, stream);
      EXPECT_TRUE(packed.ok());
      return std::move(*packed);
    };
    key_up_[0] = heads(0, case_.nope, true, Precision::kFp32, host_);
    key_up_[1] = heads(0, case_.nope, true, way_.precision, *stream_);
    value_up_[0] = heads(case_.nope, case_.value, false, Precision::kFp32, host_);
    value_up_[1] = heads(case_.nope, case_.value, false, way_.precision, *stream_);
    auto whole = pack_linear(source, Precision::kFp32, host_);
    ASSERT_TRUE(whole.ok());
    kv_b_ = std::move(*whole);
  }

  int64_t cell() const { return case_.kv_lora + case_.rope; }
  int64_t first(const TwinStep& step, const SequenceRows& s, int position) const {
    const auto [page, slot] = step.place(s, position);
    return (page * step.page_tokens() + slot) * cell();
  }
  LatentPagesView pages(const TwinStep& step, const Tensor& pool) const {
    return {pool.view().data, step.page_tokens() * cell() * int64_t(tensor::size_of(pool.dtype())),
            pool.dtype(),     step.page_tokens(),
            case_.kv_lora,    case_.rope};
  }

  // What the pages hold of the tokens before.
  void fill(const TwinStep& step, const Tensor& here, const Tensor& there) {
    std::memset(here.view().data, 0xff, here.bytes());
    std::memset(there.view().data, 0xff, there.bytes());
    for (const SequenceRows& s : step.sequences()) {
      for (int position = 0; position < s.position; ++position) {
        const int64_t at = first(step, s, position);
        for (int64_t i = at; i < at + cell(); ++i) {
          here.as<float>()[i] = number();
          put(there, i, here.as<float>()[i]);
        }
      }
    }
  }

  void store(const TwinStep& step, const Tensor& angles, const Tensor& here, const Tensor& there) {
    const Tensor down = numbers({step.rows(), case_.q_lora + cell()}), placed_down = placed(down, dtype_);
    const Tensor query_norm = numbers({std::max(case_.q_lora, 1)}), kv_norm = numbers({case_.kv_lora});
    const Tensor placed_query = sent(query_norm), placed_kv = sent(kv_norm), cos_sin = sent(angles);
    const bool lower = case_.q_lora > 0;
    Tensor expected(DType::kF32, {step.rows(), std::max(case_.q_lora, 1)});
    const Tensor low = poisoned(dtype_, expected.shape()), before = fetched(there);
    Arena host_arena(size_t(64) << 20), arena(size_t(1) << 20, kDevice);
    const auto args = [&](TensorView x, TensorView query, TensorView kv, TensorView table, const Tensor& pool,
                          TensorView to) {
      return LatentStoreArgs{.shape = shape_,
                             .down = x,
                             .query_norm = lower ? query : TensorView{},
                             .kv_norm = kv,
                             .norm_epsilon = 1e-6f,
                             .cos_sin = table,
                             .pages = pages(step, pool),
                             .low = lower ? to : TensorView{}};
    };
    kernels::latent_store(args(down, query_norm, kv_norm, angles, here, expected), step.here(), host_arena, host_);
    kernels::latent_store(args(placed_down, placed_query, placed_kv, cos_sin, there, low), step.there(), arena,
                          *stream_);
    if (lower) compare_rounded(expected, read(low), dtype_, 2e-5, "low, " + step.name());
    const Tensor after = fetched(there), found = widened(after);
    Tensor expected_rows(DType::kF32, {step.rows(), cell()}), rows(DType::kF32, {step.rows(), cell()});
    std::vector<bool> written(size_t(there.shape().elements()));
    int64_t to = 0;
    for (const SequenceRows& s : step.sequences()) {
      for (int position = s.position; position < s.position + s.rows; ++position) {
        const int64_t at = first(step, s, position);
        for (int64_t i = at; i < at + cell(); ++i, ++to) {
          expected_rows.as<float>()[to] = here.as<float>()[i];
          rows.as<float>()[to] = found.as<float>()[i];
          written[size_t(i)] = true;
        }
      }
    }
    compare_rounded(expected_rows, rows, dtype_, 2e-5, "pages, " + step.name());
    expect_untouched(before, after, written, "pages, " + step.name());
  }

  void attend(const TwinStep& step, const Tensor& angles, const Tensor& here, const Tensor& there) {
    const Tensor queries = numbers({step.rows(), int64_t{case_.heads} * shape_.query_dim()});
    const Tensor placed_queries = placed(queries, dtype_), cos_sin = sent(angles);
    Tensor expected(DType::kF32, {step.rows(), int64_t{case_.heads} * case_.value});
    const Tensor out = poisoned(dtype_, expected.shape());
    const size_t bytes = latent_workspace_bytes(shape_, step.rows()) + (size_t(1) << 20);
    Arena host_arena(bytes), arena(2 * bytes, kDevice);
    const auto args = [&](int side, TensorView x, TensorView table, const Tensor& pool, TensorView to) {
      return LatentLayerArgs{.shape = shape_,
                             .queries = x,
                             .key_up = &key_up_[side],
                             .value_up = &value_up_[side],
                             .kv_b = side == 0 ? &kv_b_ : nullptr,
                             .cos_sin = table,
                             .pages = pages(step, pool),
                             .out = to};
    };
    kernels::latent_layer(args(0, queries, angles, here, expected), step.here(), host_arena, host_);
    kernels::latent_layer(args(1, placed_queries, cos_sin, there, out), step.there(), arena, *stream_);
    compare_heads(expected, read(out), case_.heads, heads_.mean / 2, heads_, step.name());
  }

  const LatentCase case_ = std::get<0>(GetParam());
  const Way way_ = std::get<1>(GetParam());
  LatentShape shape_;
  DType dtype_ = DType::kF32;
  Bounds heads_;
  Tensor up_;
  HeadLinear key_up_[2], value_up_[2];  // here, there
  PackedLinear kv_b_;
};

TEST_P(LatentTwins, StoredAndAttended) {
  for (const auto& slices : twin_steps(random_, 130)) {
    const TwinStep step(slices, 64, random_, *stream_);
    Tensor angles(DType::kF32, {step.context_max(), 2, case_.rope / 2}), frequencies(DType::kF32, {case_.rope / 2});
    for (int i = 0; i < case_.rope / 2; ++i)
      frequencies.as<float>()[i] = std::pow(10000.0f, -2.0f * float(i) / float(case_.rope));
    fill_rope_table(frequencies, 1, angles, host_);
    const int64_t elements = int64_t{step.pages()} * step.page_tokens() * cell();
    Tensor here(DType::kF32, {elements}), before(dtype_, {elements});
    fill(step, here, before);
    const Tensor there = sent(before);
    store(step, angles, here, there);
    attend(step, angles, here, there);
    if (HasFatalFailure()) return;
  }
}

INSTANTIATE_TEST_SUITE_P(Shapes, LatentTwins, testing::Combine(testing::ValuesIn(kLatents), testing::ValuesIn(kWays)),
                         [](const auto& info) {
                           return std::string(std::get<0>(info.param).name) + "_" + std::get<1>(info.param).name;
                         });

}  // namespace
}  // namespace spillway::kernels::cuda
