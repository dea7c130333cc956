// From a typed request to prompt ids: chat template, prefix continuation, raw prompts, fill-in-the-middle. Pure
// functions of the request and the model, any thread. Not its job: sampling parameters, the engine.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "api/chat.h"
#include "api/completions.h"
#include "api/errors.h"
#include "server/served_model.h"

namespace spillway::server {

struct PromptIds {
  std::vector<int32_t> ids;
  bool in_reasoning = false;  // it ends inside <think>
};

api::Parsed<PromptIds> chat_prompt(const ServedModel& model, const api::ChatRequest& request);

// One prompt of a completion request, with its suffix if it has one.
api::Parsed<PromptIds> completion_prompt(const ServedModel& model, const api::CompletionRequest& request,
                                         const api::Prompt& prompt);

// As a raw prompt is encoded: control tokens count, BOS comes once.
std::vector<int32_t> encode_raw(const ServedModel& model, std::string_view text, bool add_special_tokens);

}  // namespace spillway::server
