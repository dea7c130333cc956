#include "engine/actions/actions.h"

namespace spillway::engine {
namespace {

void expire_in(State& state, const std::vector<std::unique_ptr<Sequence>>& list, std::vector<Sequence*>& ending) {
  for (const auto& sequence : list) {
    if (sequence->cancelled || sequence->request->deadline <= state.now) ending.push_back(sequence.get());
  }
}

}  // namespace

void expire(State& state) {
  std::vector<Sequence*> ending;
  expire_in(state, state.running, ending);
  expire_in(state, state.waiting, ending);
  for (Sequence* sequence : ending) {
    finish(state, *sequence, sequence->cancelled ? FinishReason::kCancelled : FinishReason::kDeadline);
  }
}

}  // namespace spillway::engine
