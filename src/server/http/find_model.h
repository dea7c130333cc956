// Which model answers a request: the one of its name, brought back where it was evicted, for which the request waits as
// long as its deadline and repository.wait_max allow. On the connection's thread.
// Not its job: the answer (generate.h, one_shot.h).
#pragma once

#include <boost/asio/awaitable.hpp>
#include <optional>
#include <string>
#include <vector>

#include "server/completion.h"
#include "server/http/exchange.h"
#include "server/model_catalogue.h"

namespace spillway::server {

// What says that a known model does not answer now, and when to come back.
Refused not_ready(const ModelCatalogue& catalogue, std::string_view name, const Error& why);

// The first language model of the configuration, which requests without a name of their own mean; empty: there is none.
std::string default_language(const ModelCatalogue& catalogue);

// Null when it has been refused or is not there, of which the client has been told. deadline_ms: of the body.
asio::awaitable<LanguagePtr> find_language(Exchange& exchange, std::string name,
                                           std::optional<int64_t> deadline_ms = std::nullopt);

enum class InputKind { kAny, kText, kImages };

// The model of that name; of an empty name the first that takes such inputs and gives one of the outputs. Null: that
// has been told to the client. A name that is none of one_shot's, but an unsuitable model's, says so.
asio::awaitable<OneShotPtr> find_one_shot(Exchange& exchange, std::string name, std::string version,
                                          std::vector<models::OneShotOutput> outputs,
                                          InputKind inputs = InputKind::kAny);

}  // namespace spillway::server
