// The table of routes and what happens before each: unknown paths and methods, CORS, keys, metrics. Called on I/O
// threads.
#pragma once

#include <boost/asio/awaitable.hpp>
#include <string_view>

#include "net/http_server.h"

namespace spillway::server {

class Server;

net::asio::awaitable<void> route(Server& server, net::HttpRequest request, net::ResponseWriter& writer);

// As route, for a request that has passed the front already: no key, no front.
net::asio::awaitable<void> route_locally(Server& server, net::HttpRequest request, net::ResponseWriter& writer);

// The second listener: /metrics and /health alone, without keys.
net::asio::awaitable<void> route_metrics(Server& server, net::HttpRequest request, net::ResponseWriter& writer);

// The JSON body of an answer that net gives before any route is known.
net::ErrorBody transport_error_body(int status, std::string_view message);

}  // namespace spillway::server
