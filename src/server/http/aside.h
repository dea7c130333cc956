// Work of the CPU that a request needs before anything waits: done where it stands when it is short, and off the
// connection's thread when other connections would feel it. Called on the connection's thread.
#pragma once

#include <boost/asio/awaitable.hpp>
#include <functional>
#include <memory>
#include <optional>
#include <utility>

#include "server/http/exchange.h"
#include "server/server.h"

namespace spillway::server {

// A body over this takes long enough to tokenise or decode that other connections would feel it.
inline bool takes_long(const Exchange& exchange) { return exchange.request().body.size() > 16 << 10; }

// What make gives, made on another thread. make owns what it needs: it may outlive the exchange when the server stops.
template <class T>
asio::awaitable<T> make_aside(Exchange& exchange, std::function<T()> make) {
  auto result = std::make_shared<std::optional<T>>();
  std::function<void()> work = [result, make = std::move(make)] { result->emplace(make()); };
  co_await exchange.server().run_aside(std::move(work));
  co_return std::move(**result);
}

template <class T>
asio::awaitable<T> make_here_or_aside(Exchange& exchange, std::function<T()> make) {
  if (!takes_long(exchange)) co_return make();
  co_return co_await make_aside<T>(exchange, std::move(make));
}

}  // namespace spillway::server
