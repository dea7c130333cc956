// Steps whose tokens the device draws: launched, and landed when the next one is on its way, so that the device does
// not wait for the host between decode steps.
#include <algorithm>
#include <exception>
#include <utility>

#include "base/log.h"
#include "base/trace.h"
#include "engine/actions/actions.h"
#include "engine/actions/batch.h"

namespace spillway::engine {
namespace {

bool draws_alone(const State& state) {
  return state.runner.draws_tokens() && (state.runner.info().draft_tokens_max == 0 || !state.options.speculate);
}

struct Launch {
  std::vector<models::SequenceInput> slices;
  std::vector<models::TokenDraw> draws;
  std::vector<int32_t> carried;
};

models::TokenDraw draw_for(const State& state, const Sequence& sequence, int64_t position) {
  const auto how = device_draw(state, sequence, position);
  return how ? models::TokenDraw{*how, false} : models::TokenDraw{{.vocab = 0}, true};
}

// False when the model throws; what was tried is off the device then.
bool try_launch(State& state, const Launch& launch, size_t sequences) {
  try {
    trace::Span span("engine", "launch", "sequences", static_cast<int64_t>(sequences));
    state.runner.launch(launch.slices, launch.draws, launch.carried);
    return true;
  } catch (const std::exception& error) {
    SW_WARN("a step of {} sequences could not be started: {}", sequences, error.what());
    return false;
  }
}

// The work's sequence, unless it has ended or lost its place since the launch.
Sequence* find_live(const State& state, const Work& work) {
  const auto found = state.by_id.find(work.id);
  if (found == state.by_id.end() || found->second->arrival != work.arrival) return nullptr;
  return found->second->in_flight && found->second->computed == work.start ? found->second : nullptr;
}

// Goes on for sure after the token in flight, as far as can be known without it.
bool goes_on(const State& state, const Sequence& sequence) {
  return sequence.generated_tokens() + 1 < sequence.request->max_tokens &&
         static_cast<int>(sequence.tokens.size()) + 1 < state.limits.context_tokens;
}

// The step after the one in flight, from tokens that only the device knows. Empty where it has to be planned anew.
Flight next_flight(State& state) {
  const bool may_admit = !state.waiting.empty() && !state.blocked;
  if (!state.flight.carries || may_admit) return {};
  Flight next{.works = {}, .carries = true};
  Launch launch;
  int pages = 0;
  int32_t draw = 0;
  for (const Work& work : state.flight.works) {
    const int32_t from = draw++;
    Sequence* sequence = find_live(state, work);
    if (sequence == nullptr || !goes_on(state, *sequence)) continue;
    const auto tokens = static_cast<int64_t>(sequence->tokens.size()) + 1;
    if (sequence->cancelled || !device_draw(state, *sequence, tokens)) return {};
    pages += std::max<int>(
        0, kv::pages_for(tokens, state.options.page_tokens) - static_cast<int>(sequence->table.pages.size()));
    Work& ahead = next.works.emplace_back(work);
    ahead.sequence = sequence;
    ahead.start = static_cast<int>(tokens) - 1;
    ahead.rows = ahead.logits_rows = 1;
    ahead.was_decoding = ahead.last_chunk = true;
    ahead.logits_begin = static_cast<int64_t>(next.works.size()) - 1;
    launch.carried.push_back(from);
  }
  if (next.works.empty() || pages > state.cache.pages_available()) return {};
  static constexpr int32_t kCarried[] = {0};
  for (const Work& work : next.works) {
    SW_CHECK(state.cache.grow(work.sequence->table, work.start + 1), "pages that were counted are not there");
    launch.slices.push_back(
        {.tokens = kCarried, .position = work.start, .pages = work.sequence->table.pages, .logits_rows = 1});
    launch.draws.push_back(draw_for(state, *work.sequence, work.start + 1));
  }
  return try_launch(state, launch, next.works.size()) ? std::move(next) : Flight{};
}

void fail_all(State& state, std::span<Work> works) {
  for (Work& work : works) {
    if (Sequence* sequence = find_live(state, work)) finish(state, *sequence, FinishReason::kFailed);
  }
}

}  // namespace

std::optional<kernels::RowDraw> device_draw(const State& state, const Sequence& sequence, int64_t position) {
  const Request& request = *sequence.request;
  const SamplingParams& params = request.sampling;
  if (request.constraint || request.top_logprobs >= 0 || uses_penalties(params) || !params.logit_bias.empty())
    return {};
  const int64_t generated = position - sequence.prompt_tokens();
  if (generated < request.min_tokens && !request.stop_tokens.empty()) return {};
  const uint64_t key = noise_key(sequence.seed, position);
  return kernels::RowDraw{.temperature = params.temperature,
                          .top_p = params.top_p,
                          .min_p = params.min_p,
                          .top_k = params.top_k,
                          .key_low = static_cast<uint32_t>(key),
                          .key_high = static_cast<uint32_t>(key >> 32),
                          .vocab = state.limits.vocab};
}

bool launch_batch(State& state, std::span<Work> works) {
  if (!draws_alone(state)) return false;
  for (const Work& work : works) {
    if (work.draft > 0 || work.logits_rows > 1 || work.sequence->wants_prompt_rows()) return false;
  }
  Launch launch;
  Flight flight{.works = {}, .carries = true};
  for (Work& work : works) {
    const Sequence& sequence = *work.sequence;
    launch.slices.push_back({.tokens = std::span(sequence.tokens).subspan(work.start, work.rows),
                             .position = work.start,
                             .pages = sequence.table.pages,
                             .logits_rows = work.logits_rows});
    launch.carried.push_back(-1);
    work.logits_begin = static_cast<int64_t>(launch.draws.size());
    if (work.logits_rows > 0) {
      launch.draws.push_back(draw_for(state, sequence, static_cast<int64_t>(sequence.tokens.size())));
      flight.carries = flight.carries && !launch.draws.back().host_logits;
    }
    flight.carries = flight.carries && work.last_chunk;
  }
  if (!try_launch(state, launch, works.size())) return false;
  for (Work& work : works) work.sequence->in_flight = true;
  flight.works.assign(works.begin(), works.end());
  state.flight = std::move(flight);
  return true;
}

void land_flight(State& state, bool look_ahead) {
  Flight next = look_ahead ? next_flight(state) : Flight{};
  Flight flight = std::exchange(state.flight, {});
  record_rows(state, flight.works);
  Runner::Landed landed;
  try {
    landed = state.runner.land();
  } catch (const std::exception& error) {
    SW_ERROR("a step of {} sequences failed: {}", flight.works.size(), error.what());
    fail_all(state, flight.works);
    try {
      if (!next.empty()) state.runner.land();
    } catch (const std::exception&) {  // said already
    }
    return;
  }
  std::vector<Work> live;
  for (Work& work : flight.works) {
    Sequence* sequence = find_live(state, work);
    if (sequence == nullptr) continue;
    sequence->in_flight = false;
    work.sequence = sequence;
    // Where the row is the host's to sample, its logits are there.
    if (work.logits_rows > 0 && device_draw(state, *sequence, static_cast<int64_t>(sequence->tokens.size()))) {
      work.drawn = {landed.tokens[static_cast<size_t>(work.logits_begin)]};
    }
    live.push_back(std::move(work));
  }
  for (const Work& work : next.works) work.sequence->in_flight = true;
  hand_out(state, live, landed.logits);
  state.flight = std::move(next);
}

void land(State& state) {
  if (!state.flight.empty()) land_flight(state, true);
}

}  // namespace spillway::engine
