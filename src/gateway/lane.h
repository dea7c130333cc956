// Lane: what the gateway keeps on one I/O thread: connections to upstreams and addresses of their names. A request
// stays on its connection's thread from first byte to last, so nothing here is locked. Made at the thread's first
// request, ended with the thread.
#pragma once

#include <boost/asio/any_io_executor.hpp>
#include <boost/asio/awaitable.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

#include "base/clock.h"
#include "base/result.h"
#include "net/channel.h"
#include "net/connection_pool.h"
#include "net/tls_context.h"

namespace spillway::gateway {

namespace asio = net::asio;

class Lane : public std::enable_shared_from_this<Lane> {
 public:
  using Endpoints = net::ClientConnection::Endpoints;

  Lane(asio::any_io_executor executor, size_t idle_connections_max);

  const asio::any_io_executor& executor() const { return executor_; }
  const std::shared_ptr<net::ConnectionPool>& pool() const { return pool_; }

  // The addresses of a host, from the cache while they are fresh; old ones are used while the resolver is down. A
  // lookup that hangs is left behind at the deadline.
  asio::awaitable<Result<Endpoints>> resolve(const std::string& host, uint16_t port, TimePoint deadline);

 private:
  struct Name {
    Endpoints endpoints;
    TimePoint until;
    std::string failure;
    bool asking = false;
    std::vector<std::shared_ptr<net::Signal>> waiting;
  };
  void ask(const std::string& key, const std::string& host, uint16_t port);

  const asio::any_io_executor executor_;
  const std::shared_ptr<net::ConnectionPool> pool_;
  std::unordered_map<std::string, Name> names_;
};

}  // namespace spillway::gateway
