// The endpoints. Each answers the exchange it is given; the router has checked method and key.
#pragma once

#include <boost/asio/awaitable.hpp>

#include "server/http/exchange.h"

namespace spillway::server {

asio::awaitable<void> chat_completions(Exchange& exchange);  // POST /v1/chat/completions
asio::awaitable<void> completions(Exchange& exchange);       // POST /v1/completions
asio::awaitable<void> beta_completions(
    Exchange& exchange);                                 // POST /beta/completions, /completions: DeepSeek's defaults
asio::awaitable<void> messages(Exchange& exchange);      // POST /v1/messages
asio::awaitable<void> count_tokens(Exchange& exchange);  // POST /v1/messages/count_tokens
asio::awaitable<void> list_models(Exchange& exchange);   // GET /v1/models
asio::awaitable<void> one_model(Exchange& exchange);     // GET /v1/models/{id}
asio::awaitable<void> feedback(Exchange& exchange);      // POST /v1/feedback
asio::awaitable<void> tokenize(Exchange& exchange);      // POST /tokenize
asio::awaitable<void> detokenize(Exchange& exchange);    // POST /detokenize
asio::awaitable<void> health(Exchange& exchange);        // GET /health
asio::awaitable<void> health_live(Exchange& exchange);   // GET /health/live
asio::awaitable<void> health_ready(Exchange& exchange);  // GET /health/ready
asio::awaitable<void> metrics_text(Exchange& exchange);  // GET /metrics

asio::awaitable<void> console_page(Exchange& exchange);     // GET /console
asio::awaitable<void> console_file(Exchange& exchange);     // GET /console/{file}
asio::awaitable<void> console_state(Exchange& exchange);    // GET /console/api/state
asio::awaitable<void> console_events(Exchange& exchange);   // GET /console/api/events
asio::awaitable<void> console_request(Exchange& exchange);  // GET /console/api/requests/{id}
asio::awaitable<void> console_trace(Exchange& exchange);    // POST /console/api/trace

}  // namespace spillway::server
