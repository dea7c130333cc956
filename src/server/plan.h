// Plan: a checked request made ready for an engine: prompt ids, sampling with the model's defaults, limits, stop
// tokens, constraint. Pure functions of the request and the model, any thread; building one is the CPU work of a
// request (template, tokenizer, grammar). Not its job: running it (completion.h).
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "api/chat.h"
#include "api/completions.h"
#include "api/errors.h"
#include "engine/request.h"
#include "server/choice_text.h"
#include "server/prompt.h"
#include "server/served_model.h"

namespace spillway::server {

struct Plan {
  std::vector<PromptIds> prompts;
  int n = 1;                    // choices a prompt; choice index = prompt * n + k
  std::vector<int> max_tokens;  // one a prompt
  engine::SamplingParams sampling;
  int min_tokens = 0;
  std::vector<int32_t> resumed;  // already generated elsewhere and told to the client; of the only choice
  bool tell_tokens = false;      // updates carry their tokens
  int top_logprobs = -1;
  bool prompt_logprobs = false;
  engine::Priority priority = engine::Priority::kNormal;
  TimePoint deadline = TimePoint::max();
  std::shared_ptr<const text::Grammar> grammar;  // null: free text
  std::vector<int32_t> written;                  // of the grammar's text, by the client: the answer continues it
  std::shared_ptr<metrics::Timeline> timeline;   // of the request; null: none is kept
  ChoiceTextOptions text;                        // parser.starts_in_reasoning is set from each prompt
};

// Whether the request asks for constrained output, whose grammar takes time to compile.
bool is_constrained(const api::ChatRequest& request);

api::Parsed<Plan> plan_chat(const ServedModel& model, const api::ChatRequest& request);

// max_tokens_default: when the request has none; 0: the model's.
api::Parsed<Plan> plan_completion(const ServedModel& model, const api::CompletionRequest& request,
                                  int max_tokens_default);

}  // namespace spillway::server
