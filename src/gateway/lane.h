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

  // How many attempts are under way at an origin: an entry lives as long as its lane.
  struct Traffic {
    int under_way = 0;
    int opening = 0;  // connections that nobody waits for yet
  };
  Traffic& traffic(const std::string& origin) { return traffic_[origin]; }
  // Whether one more idle connection should be there for the next request: an origin that is at work on several gets
  // new ones, and who brings them should not wait for a handshake. One that is at work on few may be able to serve only
  // one connection at a time.
  bool wants_spare(const std::string& origin, const Traffic& traffic) const;

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
  std::unordered_map<std::string, Traffic> traffic_;  // entries stay where they are
};

}  // namespace spillway::gateway
