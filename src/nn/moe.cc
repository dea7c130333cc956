#include "nn/moe.h"

#include <cmath>

namespace spillway::nn {

Status Moe::load_router(const weights::WeightScope& scope, LoadContext& context) {
  SW_ASSIGN(const weights::StoredTensor stored, scope.tensor("weight", {shape_.experts, shape_.hidden}));
  SW_ASSIGN(const tensor::Tensor weight, scope.f32("weight", {shape_.experts, shape_.hidden}));
  // A GPU multiplies bf16 exactly into float32: where the router is stored so, its logits are the same at half the
  // bytes.
  const bool as_stored = stored.view().dtype == tensor::DType::kBF16 && !kernels::computes_in_f32(context.precision) &&
                         context.stream.device().kind == tensor::DeviceKind::kCuda;
  const kernels::WeightSource source{.weight = as_stored ? stored.view() : weight.view(), .scales = {}};
  SW_ASSIGN(router_, kernels::pack_linear(source, as_stored ? kernels::Precision::kBf16 : kernels::Precision::kFp32,
                                          context.stream));
  context.add(int64_t(shape_.experts) * shape_.hidden, int64_t(router_.bytes()));
  SW_ASSIGN(tensor::Tensor bias, scope.f32("e_score_correction_bias", {shape_.experts}));
  bias_ = context.stream.place(std::move(bias));
  context.add(shape_.experts, int64_t(bias_.bytes()));
  return {};
}

Status Moe::load_expert(const weights::WeightScope& scope, int index, LoadContext& context) {
  const MatrixRow gate_up[] = {{"gate_proj", shape_.inner}, {"up_proj", shape_.inner}};
  const MatrixRow down{"down_proj", shape_.hidden};
  SW_ASSIGN(const StoredMatrices first, StoredMatrices::open(scope, gate_up, shape_.hidden));
  SW_ASSIGN(const StoredMatrices second, StoredMatrices::open(scope, std::span(&down, 1), shape_.inner));
  const auto bytes = kernels::add_expert(experts_, index, shape_.experts, first.sources(), second.sources()[0],
                                         context.precision, context.stream);
  if (!bytes.ok()) return Error(bytes.error()).in(scope.path(gate_up[0].name));
  context.add(3 * shape_.inner * shape_.hidden, *bytes, double(shape_.routing.experts_per_token) / shape_.experts);
  return {};
}

Result<Moe> Moe::load(const weights::WeightScope& scope, const MoeShape& shape, LoadContext& context) {
  Moe moe;
  moe.shape_ = shape;
  SW_TRY(moe.load_router(scope.scope("gate"), context));
  for (int e = 0; e < shape.experts; ++e) SW_TRY(moe.load_expert(scope.scope("experts", e), e, context));
  if (shape.shared_experts > 0) {
    SW_ASSIGN(moe.shared_, GatedMlp::load(scope.scope("shared_experts"), shape.hidden,
                                          shape.inner * shape.shared_experts, false, context));
  }
  return moe;
}

size_t Moe::workspace_bytes(int64_t tokens) const {
  using tensor::Arena;
  using tensor::DType;
  const int slots = shape_.routing.experts_per_token;
  return Arena::footprint(DType::kF32, {tokens, shape_.experts}) + Arena::footprint(DType::kI32, {tokens, slots}) +
         Arena::footprint(DType::kF32, {tokens, slots}) + (shared_ ? shared_->workspace_bytes(tokens) : 0);
}

// With even routing: an expert is read if any token wants it.
tensor::StageCost Moe::experts_cost(int64_t tokens, bool shared) const {
  const double experts = shape_.experts, slots = shape_.routing.experts_per_token;
  const double used = experts * (1 - std::pow(1 - slots / experts, double(tokens)));
  tensor::StageCost cost{.bytes = double(experts_.bytes()) * used / experts,
                         .flops = 6.0 * double(tokens) * slots * double(shape_.inner) * double(shape_.hidden)};
  if (!shared) return cost;
  for (const kernels::PackedLinear* weight : {&shared_->gate_up(), &shared_->down()}) {
    cost.bytes += product_cost(*weight, tokens).bytes;
    cost.flops += product_cost(*weight, tokens).flops;
  }
  return cost;
}

void Moe::add_to(tensor::TensorView x, tensor::TensorView y, const Step& step) const {
  const ArenaScope scope(step.arena);
  const int64_t tokens = x.shape[0];
  const int slots = shape_.routing.experts_per_token;
  const tensor::TensorView logits = step.arena.f32({tokens, shape_.experts});
  const tensor::TensorView ids = step.arena.allocate(tensor::DType::kI32, {tokens, slots});
  const tensor::TensorView weights = step.arena.f32({tokens, slots});
  step.stream.stage("router", product_cost(router_, tokens));
  kernels::route(x, router_, logits, bias_, shape_.routing, ids, weights, step.stream);
  if (shared_ &&
      kernels::takes_shared_expert(experts_, shared_->gate_up(), shared_->down(), tokens, slots, step.stream)) {
    if (step.stream.watched()) step.stream.stage("experts, shared expert", experts_cost(tokens, true));
    kernels::expert_mlp_shared(x, ids, weights, experts_, shared_->gate_up(), shared_->down(), y, step.stream);
    return;
  }
  if (shared_) shared_->add_to(x, y, step);
  if (step.stream.watched()) step.stream.stage("experts", experts_cost(tokens, false));
  kernels::expert_mlp(x, ids, weights, experts_, y, step.stream);
}

}  // namespace spillway::nn
