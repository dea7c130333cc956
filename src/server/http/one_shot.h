// Runs a one-shot model for an exchange: admission, tokenizing aside when it may take long, deadlines,
// clients that leave. What the bytes look like is the route's business. On the connection's thread.
#pragma once

#include <boost/asio/awaitable.hpp>
#include <functional>
#include <optional>
#include <string>

#include "server/http/exchange.h"
#include "server/http/find_model.h"
#include "server/one_shot/tasks.h"

namespace spillway::server {

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
