// RedisConnection: one blocking connection that opens itself again after it broke, with a pause so that a dead server
// costs little. Used by one thread at a time, never an I/O thread.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/clock.h"
#include "base/result.h"

struct redisContext;
struct redisReply;

namespace spillway::gateway {

struct RedisOptions {
  std::string host = "127.0.0.1";
  int port = 6379;
  std::string user, password;
  int database = 0;
  std::string prefix = "spillway";                    // of every key
  Duration timeout = std::chrono::milliseconds(250);  // to connect, and for each batch
};

// "redis://[[USER]:PASSWORD@]HOST[:PORT][/DATABASE]".
Result<RedisOptions> parse_redis_url(std::string_view url);

struct RedisReplyDeleter {
  void operator()(redisReply* reply) const;
};
using RedisReply = std::unique_ptr<redisReply, RedisReplyDeleter>;

class RedisConnection {
 public:
  explicit RedisConnection(RedisOptions options) : options_(std::move(options)) {}
  ~RedisConnection();
  RedisConnection(const RedisConnection&) = delete;
  RedisConnection& operator=(const RedisConnection&) = delete;

  const RedisOptions& options() const { return options_; }

  // Sends all commands and reads all replies; an error when the connection failed. A reply may itself be an error.
  using Command = std::vector<std::string>;
  Result<std::vector<RedisReply>> run(const std::vector<Command>& commands);
  // One command whose reply must not be an error.
  Result<RedisReply> run(const Command& command);

 private:
  Status connect();
  Status introduce(const Command& command);
  Error drop(const std::string& what);
  std::string broken() const;

  const RedisOptions options_;
  redisContext* context_ = nullptr;
  TimePoint retry_at_{};
};

}  // namespace spillway::gateway
