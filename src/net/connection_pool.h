// Connections kept alive between requests, of all origins, most recently used last. Shared by the requests under way,
// which may outlive whoever made it. One executor.
#pragma once

#include <deque>
#include <memory>
#include <string_view>

#include "base/clock.h"
#include "net/client_connection.h"

namespace spillway::net {

class ConnectionPool {
 public:
  ConnectionPool(size_t idle_max, Duration idle_timeout) : idle_max_(idle_max), idle_timeout_(idle_timeout) {}

  // One to the origin that is still open, or null. Not checked: it may have been closed meanwhile, for callers who
  // notice and take another.
  enum class Check { kOpen, kNone };
  std::shared_ptr<ClientConnection> take(std::string_view origin, Check check = Check::kOpen);
  void give_back(std::shared_ptr<ClientConnection> connection);
  void clear() { idle_.clear(); }
  size_t size() const { return idle_.size(); }

 private:
  struct Idle {
    std::shared_ptr<ClientConnection> connection;
    TimePoint since;
  };
  const size_t idle_max_;
  const Duration idle_timeout_;
  std::deque<Idle> idle_;
};

}  // namespace spillway::net
