// GET /v1/models, POST /tokenize, POST /detokenize.
#include <fmt/format.h>

#include <algorithm>
#include <utility>
#include <vector>

#include "api/completions.h"
#include "server/http/aside.h"
#include "server/http/find_model.h"
#include "server/http/generate.h"
#include "server/http/routes.h"

namespace spillway::server {
namespace {

using api::ApiError;
using api::ErrorKind;

constexpr const char* kOwner = "spillway";

api::ModelEntry entry_of(const ListedModel& model, const std::string& id) {
  const bool language = model.kind == ModelKind::kLanguage;
  return {
      id, model.created, kOwner, id == model.name ? "" : model.name, model.tokens_max, language ? "" : model.version};
}

// Anthropic's clients, who ask on the same path, name their version of the API.
api::ModelsDialect dialect_of(const Exchange& exchange) {
  const bool anthropic = exchange.request().headers.contains("anthropic-version");
  return anthropic ? api::ModelsDialect::kAnthropic : api::ModelsDialect::kOpenAi;
}

// An absent model means the default one here: these endpoints ask about the server, not for an answer of a model.
asio::awaitable<LanguagePtr> named_or_default(Exchange& exchange, std::string name) {
  Server& server = exchange.server();
  if (server.state() == ServerState::kLoading) {
    auto refused = refused_now(server);
    if (refused) co_await refuse(exchange, std::move(*refused));
    co_return nullptr;
  }
  const auto catalogue = server.catalogue();
  std::string wanted = name.empty() ? default_language(*catalogue) : std::move(name);
  co_return co_await find_language(exchange, std::move(wanted));
}

api::Parsed<std::string> detokenized(const text::Tokenizer& tokenizer, const std::vector<int32_t>& ids) {
  for (const int32_t id : ids) {
    if (id >= tokenizer.vocab_size()) {
      return ApiError{ErrorKind::kInvalidParameters,
                      fmt::format("tokens: expected token ids below {}, found {}", tokenizer.vocab_size(), id),
                      "tokens", ""};
    }
  }
  return api::detokenize_response(tokenizer.decode(ids, false));
}

}  // namespace

asio::awaitable<void> list_models(Exchange& exchange) {
  std::vector<api::ModelEntry> entries;
  std::vector<ListedModel> all = exchange.server().catalogue()->listed();
  std::ranges::stable_sort(all, {}, &ListedModel::kind);  // language models first
  for (const ListedModel& model : all) {
    entries.push_back(entry_of(model, model.name));
    for (const std::string& alias : model.aliases) entries.push_back(entry_of(model, alias));
  }
  std::string body = api::models_response(entries, dialect_of(exchange));
  co_await exchange.send_json(200, std::move(body));
}

asio::awaitable<void> one_model(Exchange& exchange) {
  constexpr std::string_view kMark = "/models/";
  const std::string& path = exchange.request().path;
  const std::string id = path.substr(path.find(kMark) + kMark.size());
  for (const ListedModel& model : exchange.server().catalogue()->listed()) {
    if (model.name != id && std::ranges::find(model.aliases, id) == model.aliases.end()) continue;
    std::string body = api::model_response(entry_of(model, id), dialect_of(exchange));
    co_await exchange.send_json(200, std::move(body));
    co_return;
  }
  if (exchange.server().state() == ServerState::kLoading) {
    auto refused = refused_now(exchange.server());
    if (refused) co_await refuse(exchange, std::move(*refused));
    co_return;
  }
  co_await exchange.send_error(model_not_found(id));
}

namespace {

// The one-shot model of that name with a tokenizer; null where the name means a language model.
OneShotPtr tokenizing_one_shot(const Server& server, const std::string& name) {
  const auto catalogue = server.catalogue();
  OneShotPtr model = catalogue->find(name, "");
  if (!model && name.empty() && default_language(*catalogue).empty()) {
    for (const OneShotPtr& each : catalogue->ready()) {
      if (each->tokenizer() != nullptr) return each;
    }
  }
  return model && model->tokenizer() != nullptr ? model : nullptr;
}

std::string tokenized(const text::Tokenizer& tokenizer, const std::vector<int32_t>& ids, int tokens_max,
                      bool with_texts) {
  std::vector<std::string> texts;
  if (with_texts) {
    for (const int32_t id : ids) texts.push_back(api::utf8_lossy(tokenizer.token_bytes(id)));
  }
  return api::tokenize_response(ids, tokens_max, with_texts ? &texts : nullptr);
}

api::Parsed<std::string> tokenized_by(const ServedOneShot& model, const api::TokenizeRequest& request) {
  const text::EncodeOptions options{.add_special_tokens = request.add_special_tokens, .parse_added_tokens = false};
  const std::vector<int32_t> ids = model.tokenizer()->encode(request.prompt.value_or(""), options).ids;
  return tokenized(*model.tokenizer(), ids, model.text()->tokens_max(), request.return_token_strs);
}

api::Parsed<std::string> tokenized_by(const ServedModel& model, const api::TokenizeRequest& request) {
  std::vector<int32_t> ids;
  if (request.chat) {
    api::Parsed<PromptIds> prompt = chat_prompt(model, *request.chat);
    if (!prompt.ok()) return prompt.error();
    ids = std::move(prompt->ids);
  } else {
    ids = encode_raw(model, request.prompt.value_or(""), request.add_special_tokens);
  }
  return tokenized(model.tokenizer(), ids, model.context_tokens_max(), request.return_token_strs);
}

using MakeBody = std::function<api::Parsed<std::string>()>;

asio::awaitable<void> send_made(Exchange& exchange, MakeBody make) {
  api::Parsed<std::string> body = co_await make_here_or_aside<api::Parsed<std::string>>(exchange, std::move(make));
  if (body.ok()) {
    co_await exchange.send_json(200, std::move(*body));
  } else {
    co_await exchange.send_error(body.error());
  }
}

}  // namespace

asio::awaitable<void> tokenize(Exchange& exchange) {
  api::Parsed<api::TokenizeRequest> request = api::parse_tokenize_request(exchange.request().body);
  if (!request.ok()) {
    co_await exchange.send_error(request.error());
    co_return;
  }
  MakeBody make;
  if (OneShotPtr one_shot = tokenizing_one_shot(exchange.server(), request->model); one_shot && !request->chat) {
    make = [one_shot, request = std::move(*request)] { return tokenized_by(*one_shot, request); };
  } else {
    LanguagePtr model = co_await named_or_default(exchange, request->model);
    if (!model) co_return;
    make = [model, request = std::move(*request)] { return tokenized_by(*model, request); };
  }
  co_await send_made(exchange, std::move(make));
}

asio::awaitable<void> detokenize(Exchange& exchange) {
  api::Parsed<api::DetokenizeRequest> request = api::parse_detokenize_request(exchange.request().body);
  if (!request.ok()) {
    co_await exchange.send_error(request.error());
    co_return;
  }
  const OneShotPtr one_shot = tokenizing_one_shot(exchange.server(), request->model);
  LanguagePtr model;
  if (!one_shot) model = co_await named_or_default(exchange, request->model);
  if (!one_shot && !model) co_return;
  MakeBody make = [one_shot, model, ids = std::move(request->tokens)] {
    return detokenized(one_shot ? *one_shot->tokenizer() : model->tokenizer(), ids);
  };
  co_await send_made(exchange, std::move(make));
}

}  // namespace spillway::server
