#include "net/connection_pool.h"

#include <utility>

namespace spillway::net {

void ConnectionPool::drop_old(Line& line, TimePoint now) {
  while (!line.empty() && line.front().since < now - idle_timeout_) {
    line.pop_front();
    --size_;
  }
}

void ConnectionPool::sweep(TimePoint now) {
  if (now - swept_ < idle_timeout_) return;
  swept_ = now;
  for (auto& [origin, line] : idle_) drop_old(line, now);
  std::erase_if(idle_, [](const auto& entry) { return entry.second.empty(); });
}

std::shared_ptr<ClientConnection> ConnectionPool::take(std::string_view origin, Check check) {
  const TimePoint now = std::chrono::steady_clock::now();
  sweep(now);
  const auto found = idle_.find(origin);
  if (found == idle_.end()) return nullptr;
  Line& line = found->second;
  drop_old(line, now);
  while (!line.empty()) {
    auto connection = std::move(line.back().connection);
    line.pop_back();
    --size_;
    if (check == Check::kNone || connection->still_open()) return connection;
  }
  return nullptr;
}

void ConnectionPool::give_back(std::shared_ptr<ClientConnection> connection) {
  const TimePoint now = std::chrono::steady_clock::now();
  sweep(now);
  Line& line = idle_[connection->origin()];
  line.push_back({std::move(connection), now});
  if (++size_ <= idle_max_) return;
  line.pop_front();
  --size_;
}

void ConnectionPool::clear() {
  idle_.clear();
  size_ = 0;
}

size_t ConnectionPool::size(std::string_view origin) const {
  const auto found = idle_.find(origin);
  return found == idle_.end() ? 0 : found->second.size();
}

}  // namespace spillway::net
