// Runs a one-shot model for an exchange: which model, admission, tokenizing aside when it may take long, deadlines,
// clients that leave. What the bytes look like is the route's business. On the connection's thread.
#pragma once

#include <boost/asio/awaitable.hpp>
#include <functional>
#include <optional>
#include <string>

#include "server/http/exchange.h"
#include "server/one_shot/tasks.h"

namespace spillway::server {

// The model of that name; of an empty name the first that gives one of the outputs. Null: that has been told to the
// client. A name that is none of one_shot's, but an unsuitable model's, says so.
asio::awaitable<OneShotPtr> find_one_shot(Exchange& exchange, std::string name, std::string version,
                                          std::vector<models::OneShotOutput> outputs);

struct OneShotOutputs {
  Vectors values;
  int64_t tokens = 0;
};

// Nothing: the failure has been told to the client. make owns what it needs.
using MakeRequests = std::function<api::Parsed<OneShotRequests>()>;
asio::awaitable<std::optional<OneShotOutputs>> run_one_shot(Exchange& exchange, OneShotPtr model, MakeRequests make,
                                                            const api::EncodeCommon* common);

// The server's state before anything is parsed: loading or draining has been told, and false comes.
asio::awaitable<bool> takes_requests(Exchange& exchange);

}  // namespace spillway::server
