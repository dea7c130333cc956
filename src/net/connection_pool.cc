#include "net/connection_pool.h"

#include <utility>

namespace spillway::net {

std::shared_ptr<ClientConnection> ConnectionPool::take(std::string_view origin, Check check) {
  const TimePoint oldest = std::chrono::steady_clock::now() - idle_timeout_;
  while (!idle_.empty() && idle_.front().since < oldest) idle_.pop_front();
  for (size_t i = idle_.size(); i-- > 0;) {
    if (idle_[i].connection->origin() != origin) continue;
    auto connection = std::move(idle_[i].connection);
    idle_.erase(idle_.begin() + long(i));
    if (check == Check::kNone || connection->still_open()) return connection;
  }
  return nullptr;
}

void ConnectionPool::give_back(std::shared_ptr<ClientConnection> connection) {
  idle_.push_back({std::move(connection), std::chrono::steady_clock::now()});
  if (idle_.size() > idle_max_) idle_.pop_front();
}

}  // namespace spillway::net
