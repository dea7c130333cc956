// Steps whose tokens the device draws: launched, and landed when the next one is on its way, so that the device does
// not wait for the host between decode steps.
#include <algorithm>
#include <exception>
#include <utility>

#include "base/log.h"
#include "base/trace.h"
#include "engine/actions/actions.h"
#include "engine/actions/batch.h"
#include "engine/engine_metrics.h"

namespace spillway::engine {
namespace {

struct Launch {
  std::vector<models::SequenceInput> slices;
  std::vector<models::TokenDraw> draws;
  std::vector<int32_t> carried;
  std::vector<models::DraftedInput> drafted;  // instead of the three
};

models::TokenDraw draw_for(const State& state, const Sequence& sequence, int64_t position) {
  const auto how = device_draw(state, sequence, position);
  return how ? models::TokenDraw{*how, false} : models::TokenDraw{{.vocab = 0}, true};
}

// False when the model throws; what was tried is off the device then.
bool try_launch(State& state, const Launch& launch, size_t sequences) {
  try {
    trace::Span span("engine", "launch", "sequences", static_cast<int64_t>(sequences));
    if (launch.drafted.empty()) {
      state.runner.launch(launch.slices, launch.draws, launch.carried);
    } else {
      state.runner.launch_drafted(launch.drafted);
    }
    return true;
  } catch (const std::exception& error) {
    SW_WARN("a step of {} sequences could not be started: {}", sequences, error.what());
    return false;
  }
}

Sequence* find(const State& state, const Work& work) {
  const auto found = state.by_id.find(work.id);
  return found == state.by_id.end() || found->second->arrival != work.arrival ? nullptr : found->second;
}

// Goes on for sure after the token in flight, as far as can be known without it.
bool goes_on(const State& state, const Sequence& sequence) {
  return sequence.generated_tokens() + 1 < sequence.request->max_tokens &&
         static_cast<int>(sequence.tokens.size()) + 1 < state.limits.context_tokens;
}

// Its work in the step after the one in flight, which knows `tokens` of it for sure.
Work work_ahead(const Work& work, Sequence& sequence, int64_t tokens, bool drafted) {
  Work ahead = work;
  ahead.sequence = &sequence;
  ahead.start = static_cast<int>(tokens) - 1;
  ahead.rows = ahead.logits_rows = drafted ? 2 : 1;
  ahead.draft = 0;
  ahead.was_decoding = ahead.last_chunk = true;
  return ahead;
}

// With the pages that every token of it may need.
void add_ahead(State& state, const Work& work, int32_t from, bool drafted, Launch& launch) {
  static constexpr int32_t kCarried[] = {0};
  const int64_t tokens = work.start + 1;
  SW_CHECK(state.cache.grow(work.sequence->table, drafted ? tokens + 2 : tokens),
           "pages that were counted are not there");
  if (drafted) {
    launch.drafted.push_back({carried_draft(state, *work.sequence, from, tokens), work.sequence->table.pages});
    return;
  }
  launch.carried.push_back(from);
  launch.slices.push_back(
      {.tokens = kCarried, .position = work.start, .pages = work.sequence->table.pages, .logits_rows = 1});
  launch.draws.push_back(draw_for(state, *work.sequence, tokens));
}

// The step after the one in flight, from tokens that only the device knows. Empty where it has to be planned anew.
Flight next_flight(State& state) {
  const bool may_admit = !state.waiting.empty() && !state.blocked, drafted = state.flight.drafted;
  if (!state.flight.carries || may_admit || (drafted && !drafts_go_on(state))) return {};
  Flight next{.works = {}, .carries = true, .drafted = drafted};
  int pages = 0;
  std::vector<int32_t> from;
  for (const Work& work : state.flight.works) {
    Sequence* sequence = find_live(state, work);
    if (sequence == nullptr || !goes_on(state, *sequence)) continue;
    const auto tokens = static_cast<int64_t>(sequence->tokens.size()) + 1, covered = drafted ? tokens + 2 : tokens;
    if (sequence->cancelled || !device_draw(state, *sequence, tokens) || covered > state.limits.context_tokens)
      return {};
    pages += std::max<int>(
        0, kv::pages_for(covered, state.options.page_tokens) - static_cast<int>(sequence->table.pages.size()));
    from.push_back(work.place);
    next.works.push_back(work_ahead(work, *sequence, tokens, drafted));
    next.works.back().place = static_cast<int32_t>(next.works.size()) - 1;
    next.works.back().logits_begin = next.works.back().place;
  }
  if (next.works.empty() || pages > state.cache.pages_available()) return {};
  Launch launch;
  for (size_t i = 0; i < next.works.size(); ++i) add_ahead(state, next.works[i], from[i], drafted, launch);
  for (size_t i = 0; i < next.works.size(); ++i) next.works[i].carried = from[i];
  return try_launch(state, launch, next.works.size()) ? std::move(next) : Flight{};
}

// What the device drew for a work, and in a drafted step proposes.
void take_landed(const State& state, const Flight& flight, const Runner::Landed& landed, Work& work) {
  const auto place = static_cast<size_t>(work.place);
  if (flight.drafted) {
    work.draft = work.draft_token >= 0 ? 1 : 0;
    const auto first = landed.tokens.begin() + 2 * work.place;
    work.drawn.assign(first, first + 1 + work.draft);
    work.proposal = landed.drafts[place];
  } else if (work.logits_rows > 0 &&
             device_draw(state, *work.sequence, static_cast<int64_t>(work.sequence->tokens.size()))) {
    work.drawn = {landed.tokens[static_cast<size_t>(work.logits_begin)]};  // else its logits are there
  }
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

Sequence* find_live(const State& state, const Work& work) {
  Sequence* sequence = find(state, work);
  return sequence != nullptr && sequence->in_flight && sequence->computed == work.start ? sequence : nullptr;
}

bool launch_drafted(State& state, std::span<Work> works) {
  Launch launch;
  if (!drafted_inputs(state, works, launch.drafted) || !try_launch(state, launch, works.size())) return false;
  for (size_t i = 0; i < works.size(); ++i) {
    works[i].sequence->in_flight = true;
    works[i].place = static_cast<int32_t>(i);
    works[i].rows = works[i].logits_rows = 2;
  }
  state.flight = {.works = {works.begin(), works.end()}, .carries = true, .drafted = true};
  state.drafts_in_step = true;
  return true;
}

bool launch_batch(State& state, std::span<Work> works) {
  if (!state.runner.draws_tokens()) return false;
  if (launch_drafted(state, works)) return true;
  for (const Work& work : works) {
    if (wants_draft_rows(state, work)) return false;
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
    work.place = static_cast<int32_t>(launch.draws.size());
    work.logits_begin = work.place;
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
  if (state.record.slices > 0) observe_costs(state);
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
    take_landed(state, flight, landed, work);
    live.push_back(std::move(work));
  }
  record_idle(state, live, landed.idle_s);
  for (Work& work : next.works) {
    work.sequence->in_flight = true;
    if (next.drafted) work.draft_token = landed.drafts[static_cast<size_t>(work.carried)];
  }
  hand_out(state, live, landed.logits);
  // Now it is known where the rows of the next step lie.
  for (Work& work : next.works) {
    if (const Sequence* sequence = find(state, work)) work.start = sequence->computed;
  }
  state.flight = std::move(next);
}

void land(State& state) {
  if (!state.flight.empty()) land_flight(state, true);
}

}  // namespace spillway::engine
