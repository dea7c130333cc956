// Connections kept alive between requests, of all origins, most recently used last. Shared by the requests under way,
// which may outlive whoever made it. One executor.
#pragma once

#include <deque>
#include <map>
#include <memory>
#include <string>
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
  // Past idle_max the origin's own oldest is closed.
  void give_back(std::shared_ptr<ClientConnection> connection);
  void clear();
  size_t size() const { return size_; }
  size_t size(std::string_view origin) const;

 private:
  struct Idle {
    std::shared_ptr<ClientConnection> connection;
    TimePoint since;
  };
  using Line = std::deque<Idle>;

  void drop_old(Line& line, TimePoint now);
  void sweep(TimePoint now);  // also of origins that nobody asks for any more

  const size_t idle_max_;
  const Duration idle_timeout_;
  std::map<std::string, Line, std::less<>> idle_;
  size_t size_ = 0;
  TimePoint swept_{};
};

}  // namespace spillway::net
