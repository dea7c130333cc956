#include "server/plan.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

namespace spillway::server {
namespace {

using api::ApiError;
using api::ErrorKind;

engine::SamplingParams sampling_params(const GenerationDefaults& defaults, const api::Sampling& asked) {
  engine::SamplingParams params;
  params.temperature = asked.temperature.value_or(defaults.temperature);
  params.top_p = asked.top_p.value_or(defaults.top_p);
  params.top_k = asked.top_k.value_or(defaults.top_k);
  params.min_p = asked.min_p.value_or(0.0f);
  params.frequency_penalty = asked.frequency_penalty.value_or(0.0f);
  params.presence_penalty = asked.presence_penalty.value_or(0.0f);
  params.repetition_penalty = asked.repetition_penalty.value_or(defaults.repetition_penalty);
  params.seed = asked.seed;
  params.logit_bias = asked.logit_bias;
  return params;
}

engine::Priority priority_of(api::RequestPriority priority) {
  return static_cast<engine::Priority>(static_cast<int8_t>(priority));
}

// Ends with finish_reason length where the context ends, so a generous max_tokens is no error; a prompt that leaves no
// room for one token is.
std::optional<ApiError> set_max_tokens(Plan& plan, const ServedModel& model, std::optional<int> asked, int fallback,
                                       const char* where) {
  const int context = model.context_tokens_max();
  for (const PromptIds& prompt : plan.prompts) {
    const int length = static_cast<int>(prompt.ids.size());
    if (length == 0)
      return ApiError{ErrorKind::kInvalidFormat, "Expected a prompt of at least one token, found none.", where, ""};
    const int wanted = asked ? *asked : fallback;
    if (length + (asked == 0 ? 0 : 1) > context) {
      const int completion = asked.value_or(1);
      return ApiError{
          ErrorKind::kInvalidFormat,
          fmt::format("This model's maximum context length is {} tokens. However, you requested {} tokens ({} in "
                      "the {}, {} in the completion). Please reduce the length of the {} or completion.",
                      context, length + int64_t{completion}, length, where, completion, where),
          where, "context_length_exceeded"};
    }
    const int room = context - length;
    plan.max_tokens.push_back(!asked && wanted <= 0 ? room : std::min(wanted, room));
  }
  return std::nullopt;
}

std::optional<ApiError> check_token_ids(const ServedModel& model, const api::Sampling& sampling) {
  const auto known = [&](int32_t id) { return id >= 0 && id < model.vocab_size(); };
  for (const auto& [id, bias] : sampling.logit_bias) {
    if (known(id)) continue;
    return ApiError{ErrorKind::kInvalidFormat,
                    fmt::format("Expected token ids below {}, found {}.", model.vocab_size(), id), "logit_bias", ""};
  }
  for (const int32_t id : sampling.stop_token_ids) {
    if (known(id)) continue;
    return ApiError{ErrorKind::kInvalidFormat,
                    fmt::format("Expected token ids below {}, found {}.", model.vocab_size(), id), "stop_token_ids",
                    ""};
  }
  return std::nullopt;
}

void set_stops(Plan& plan, const ServedModel& model, const api::Sampling& sampling) {
  plan.text.stops = sampling.stop;
  if (!sampling.ignore_eos) plan.text.stop_tokens = model.end_tokens();
  plan.text.stop_tokens.insert(plan.text.stop_tokens.end(), sampling.stop_token_ids.begin(),
                               sampling.stop_token_ids.end());
}

std::optional<ApiError> set_format(Plan& plan, const ServedModel& model, const api::ResponseFormat& format,
                                   bool in_reasoning) {
  if (format.kind == api::ResponseFormat::Kind::kText) return std::nullopt;
  auto grammar = model.grammars().format(format, in_reasoning);
  if (!grammar.ok()) return ApiError{ErrorKind::kInvalidFormat, grammar.error().message, "response_format", ""};
  plan.grammar = std::move(grammar).value();
  return std::nullopt;
}

// A message that the answer continues is the beginning of what the format allows.
std::optional<ApiError> set_written(Plan& plan, const ServedModel& model, const api::ChatRequest& request) {
  if (!plan.grammar || !request.continue_final_message || plan.prompts.front().in_reasoning) return std::nullopt;
  std::string_view text = request.messages.back().content ? *request.messages.back().content : std::string_view();
  constexpr std::string_view kThoughtEnd = "</think>";
  if (const size_t end = text.rfind(kThoughtEnd); end != std::string_view::npos) {
    text.remove_prefix(end + kThoughtEnd.size());
  }
  text.remove_prefix(std::min(text.find_first_not_of(" \t\r\n"), text.size()));
  const std::vector<int32_t> ids = model.tokenizer().encode(text, {.add_special_tokens = false}).ids;
  const auto state = text::GrammarState::start(plan.grammar, model.trie());
  std::vector<uint64_t> allowed((model.vocab_size() + 63) / 64);
  for (const int32_t id : ids) {
    state->allowed(allowed);
    if (id >= model.vocab_size() || !(allowed[id / 64] >> (id % 64) & 1)) {
      return ApiError{ErrorKind::kInvalidFormat,
                      "The last message, which the answer is to continue, does not begin as response_format asks.",
                      "messages", ""};
    }
    state->accept(id);
  }
  plan.written = ids;
  return std::nullopt;
}

bool has_strict_tool(const api::ChatRequest& request) {
  return std::ranges::any_of(request.tools, [](const api::Tool& tool) { return tool.strict; });
}

std::optional<ApiError> set_tools(Plan& plan, const ServedModel& model, const api::ChatRequest& request,
                                  bool in_reasoning) {
  using Choice = api::ToolChoice::Kind;
  if (request.tools.empty() || request.tool_choice.kind == Choice::kNone) return std::nullopt;
  plan.text.parser.tools = call_style(model.tool_style());  // the template may know none
  plan.text.tool_calls_max = request.parallel_tool_calls ? 0 : 1;
  // Text by a format leaves no room for calls; else calls that the model chooses to make keep strict schemas.
  if (request.tool_choice.kind == Choice::kAuto && (plan.grammar || !has_strict_tool(request))) return std::nullopt;
  auto grammar = model.grammars().tools(request, plan.text.parser.tools, in_reasoning);
  if (!grammar.ok()) return ApiError{ErrorKind::kInvalidFormat, grammar.error().message, "tools", ""};
  plan.grammar = std::move(grammar).value();
  return std::nullopt;
}

bool special(const ServedModel& model, std::string_view token) {
  const auto id = model.tokenizer().id_of(token);
  return id && model.tokenizer().is_special(*id);
}

}  // namespace

bool is_constrained(const api::ChatRequest& request) {
  using Choice = api::ToolChoice::Kind;
  return request.format.kind != api::ResponseFormat::Kind::kText || request.tool_choice.kind == Choice::kRequired ||
         request.tool_choice.kind == Choice::kFunction ||
         (request.tool_choice.kind == Choice::kAuto && has_strict_tool(request));
}

api::Parsed<Plan> plan_chat(const ServedModel& model, const api::ChatRequest& request) {
  if (auto error = check_token_ids(model, request.sampling)) return *error;
  api::Parsed<PromptIds> prompt = chat_prompt(model, request);
  if (!prompt.ok()) return prompt.error();
  Plan plan;
  const bool in_reasoning = prompt->in_reasoning;
  plan.prompts.push_back(std::move(prompt).value());
  plan.n = request.sampling.n;
  if (auto error = set_max_tokens(plan, model, request.sampling.max_tokens, model.defaults().max_tokens, "messages"))
    return *error;
  plan.sampling = sampling_params(model.defaults(), request.sampling);
  plan.min_tokens = request.sampling.min_tokens;
  plan.priority = priority_of(request.priority);
  if (request.logprobs) plan.top_logprobs = request.top_logprobs;
  set_stops(plan, model, request.sampling);
  plan.text.logprobs = request.logprobs;
  plan.text.parser.reasoning = model.reasons();
  plan.text.parser.starts_in_reasoning = in_reasoning;
  if (auto error = set_format(plan, model, request.format, in_reasoning)) return *error;
  const std::shared_ptr<const text::Grammar> of_format = plan.grammar;
  if (auto error = set_tools(plan, model, request, in_reasoning)) return *error;
  if (plan.grammar == of_format) {  // forced calls begin anew
    if (auto error = set_written(plan, model, request)) return *error;
  }
  const bool tools = plan.text.parser.tools != text::ToolStyle::kNone;
  if (plan.grammar) model.trie();  // built here rather than on the connection's thread
  plan.text.skip_special_tokens = !tools && !special(model, "<think>") && !special(model, "</think>");
  return plan;
}

api::Parsed<Plan> plan_completion(const ServedModel& model, const api::CompletionRequest& request,
                                  int max_tokens_default) {
  if (auto error = check_token_ids(model, request.sampling)) return *error;
  Plan plan;
  for (const api::Prompt& prompt : request.prompts) {
    api::Parsed<PromptIds> ids = completion_prompt(model, request, prompt);
    if (!ids.ok()) return ids.error();
    plan.prompts.push_back(std::move(ids).value());
    plan.prompts.back().in_reasoning = false;  // all of the output is plain text here
  }
  plan.n = request.sampling.n;
  const int fallback = max_tokens_default > 0 ? max_tokens_default : model.defaults().max_tokens;
  if (auto error = set_max_tokens(plan, model, request.sampling.max_tokens, fallback, "prompt")) return *error;
  plan.sampling = sampling_params(model.defaults(), request.sampling);
  plan.min_tokens = request.sampling.min_tokens;
  plan.priority = priority_of(request.priority);
  if (request.logprobs) plan.top_logprobs = *request.logprobs;
  plan.prompt_logprobs = request.echo && (request.logprobs || request.sampling.max_tokens == 0);
  set_stops(plan, model, request.sampling);
  plan.text.parse = false;
  plan.text.logprobs = request.logprobs.has_value();
  plan.text.end_token_logprob = true;  // one entry a generated token: harnesses cut the prompt's out by counting
  if (auto error = set_format(plan, model, request.format, false)) return *error;
  return plan;
}

}  // namespace spillway::server
