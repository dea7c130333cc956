#include "server/prompt.h"

#include <fmt/format.h>

#include <boost/json.hpp>
#include <optional>
#include <string_view>
#include <utility>

namespace spillway::server {
namespace {

namespace json = boost::json;

std::string_view trim_right(std::string_view text) {
  const size_t end = text.find_last_not_of(" \t\r\n");
  return end == std::string_view::npos ? std::string_view() : text.substr(0, end + 1);
}

bool opens_reasoning(std::string_view text) {
  const size_t open = text.rfind("<think>");
  if (open == std::string_view::npos) return false;
  const size_t close = text.rfind("</think>");
  return close == std::string_view::npos || close < open;
}

// Where the template's text of the last message goes when the answer is to continue that message. A noncharacter that
// PromptGuard never chooses (it marks with U+FDD0 to U+FDEF) and that no honest text holds.
constexpr std::string_view kHere = "\xEF\xBF\xBE";  // U+FFFE

json::object template_variables(const ServedModel& model, const api::ChatRequest& request, json::value messages,
                                json::value tools, bool continues) {
  json::object variables;
  for (const auto& item : request.chat_template_kwargs) variables[item.key()] = item.value();
  variables["messages"] = std::move(messages);
  if (!tools.is_null()) variables["tools"] = std::move(tools);
  variables["add_generation_prompt"] = request.add_generation_prompt && !continues;
  variables["bos_token"] = model.bos();
  variables["eos_token"] = model.eos();
  if (!request.reasoning_effort.empty()) variables["reasoning_effort"] = request.reasoning_effort;
  if (request.thinking) {
    variables["enable_thinking"] = *request.thinking;
    variables["thinking"] = *request.thinking;
  }
  return variables;
}

// What the client wrote of the answer so far, as the model would have written it.
std::string continued_text(const PromptGuard& guard, std::string_view mark, const api::Message& message) {
  const std::string content = guard.neutralise(message.content.value_or(""), mark, true);
  if (!message.reasoning_content || message.reasoning_content->empty()) return content;
  std::string text = "<think>\n" + guard.neutralise(*message.reasoning_content, mark);
  if (!content.empty()) text += "\n</think>\n\n" + content;
  return text;
}

api::ApiError template_failed(const Error& error) {
  return {api::ErrorKind::kInvalidFormat, "The chat template refused these messages: " + error.message, "messages", ""};
}

}  // namespace

api::Parsed<PromptIds> chat_prompt(const ServedModel& model, const api::ChatRequest& request) {
  using api::ErrorKind;
  if (model.chat_template() == nullptr) {
    return api::ApiError{ErrorKind::kInvalidFormat,
                         fmt::format("The model `{}` has no chat template; use /v1/completions.", model.name()),
                         "model", ""};
  }
  const bool as_objects =
      model.tool_style() == text::ToolStyle::kHermes || model.tool_style() == text::ToolStyle::kLlama;
  const bool continues = request.continue_final_message && !request.messages.empty();
  const PromptGuard& guard = model.guard();

  json::object marked{{"messages", api::template_messages(request, as_objects)},
                      {"tools", api::template_tools(request)}};
  json::value everything(std::move(marked));
  const Result<std::string> mark = guard.mark(everything);
  if (!mark.ok()) return api::ApiError{ErrorKind::kInvalidFormat, mark.error().message, "messages", ""};
  json::array& messages = everything.at("messages").as_array();
  supply_tools(model.tool_support(), model.tool_style(), everything.at("tools"), messages);
  if (continues) {
    json::object& last = messages.back().as_object();
    last["content"] = kHere;
    last.erase("reasoning_content");
  }

  const json::object variables = template_variables(model, request, std::move(everything.at("messages")),
                                                    std::move(everything.at("tools")), continues);
  Result<std::string> rendered = model.chat_template()->render(variables);
  if (!rendered.ok()) return template_failed(rendered.error());
  std::string text = std::move(rendered).value();
  bool in_reasoning = false;
  if (continues) {
    const size_t here = text.rfind(kHere);
    if (here == std::string::npos)
      return template_failed(invalid("it does not show the message that is to be continued"));
    text.resize(here);
    const std::string written = continued_text(guard, *mark, request.messages.back());
    in_reasoning = written.find("<think>") == std::string::npos && written.find("</think>") == std::string::npos
                       ? trim_right(text).ends_with("<think>")
                       : opens_reasoning(written);
    text += written;
  } else if (trim_right(text).ends_with("<think>")) {
    // A template that always opens the thought: closing it at once is how such a model is told not to think.
    in_reasoning = request.thinking.value_or(true);
    if (!in_reasoning) text += "\n</think>\n\n";
  }
  return PromptIds{guard.encode(text, *mark), in_reasoning};
}

std::vector<int32_t> encode_raw(const ServedModel& model, std::string_view text, bool add_special_tokens) {
  std::vector<int32_t> ids = model.tokenizer().encode(text, {.add_special_tokens = add_special_tokens}).ids;
  const auto bos = model.tokenizer().id_of(model.bos());
  if (add_special_tokens && bos && ids.size() >= 2 && ids[0] == *bos && ids[1] == *bos) ids.erase(ids.begin());
  return ids;
}

api::Parsed<PromptIds> completion_prompt(const ServedModel& model, const api::CompletionRequest& request,
                                         const api::Prompt& prompt) {
  using api::ErrorKind;
  if (const auto* ids = std::get_if<std::vector<int32_t>>(&prompt); ids != nullptr && !request.suffix) {
    for (const int32_t id : *ids) {
      if (id < 0 || id >= model.vocab_size()) {
        return api::ApiError{ErrorKind::kInvalidFormat,
                             fmt::format("Expected token ids below {}, found {}.", model.vocab_size(), id), "prompt",
                             ""};
      }
    }
    return PromptIds{*ids, false};
  }
  if (!request.suffix) {
    const std::string& text = std::get<std::string>(prompt);
    return PromptIds{encode_raw(model, text, request.add_special_tokens), opens_reasoning(text)};
  }
  if (!model.fim()) {
    return api::ApiError{
        ErrorKind::kInvalidFormat,
        fmt::format("The model `{}` has no fill-in-the-middle tokens; `suffix` is not supported.", model.name()),
        "suffix", ""};
  }
  const auto* text = std::get_if<std::string>(&prompt);
  if (text == nullptr) {
    return api::ApiError{ErrorKind::kInvalidFormat, "Expected a text prompt beside `suffix`, found token ids.",
                         "prompt", ""};
  }
  const FimTokens& fim = *model.fim();
  json::value parts = json::array{*text, *request.suffix};
  const Result<std::string> mark = model.guard().mark(parts);
  if (!mark.ok()) return api::ApiError{ErrorKind::kInvalidFormat, mark.error().message, "prompt", ""};
  const std::string assembled = fim.prefix + std::string(parts.at(0).as_string()) + fim.suffix +
                                std::string(parts.at(1).as_string()) + fim.middle;
  PromptIds out{model.guard().encode(assembled, *mark), false};
  const std::vector<int32_t> front =
      model.tokenizer().encode("", {.add_special_tokens = request.add_special_tokens}).ids;
  const auto bos = model.tokenizer().id_of(model.bos());
  if (bos && !front.empty() && front.front() == *bos) out.ids.insert(out.ids.begin(), *bos);
  return out;
}

}  // namespace spillway::server
