#include "gateway/tenants/redis_connection.h"

#include <fmt/format.h>
#include <hiredis/hiredis.h>

#include <cerrno>
#include <charconv>

namespace spillway::gateway {
namespace {

constexpr Duration kPause = std::chrono::milliseconds(200);  // after a failed connection

timeval timeval_of(Duration duration) {
  const auto us = std::chrono::duration_cast<std::chrono::microseconds>(duration).count();
  timeval value;
  value.tv_sec = us / 1'000'000;
  value.tv_usec = us % 1'000'000;
  return value;
}

bool read_number(std::string_view text, int least, int most, int& value) {
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  return error == std::errc() && end == text.data() + text.size() && value >= least && value <= most;
}

}  // namespace

void RedisReplyDeleter::operator()(redisReply* reply) const { freeReplyObject(reply); }

Result<RedisOptions> parse_redis_url(std::string_view url) {
  constexpr std::string_view kScheme = "redis://";
  const size_t at = url.rfind('@');
  const auto refused = [&] {  // without what may be a password
    const std::string_view shown = at == url.npos ? url : url.substr(at + 1);
    return invalid(fmt::format("expected redis://[[USER]:PASSWORD@]HOST[:PORT][/DATABASE], found \"{}{}\"",
                               at == url.npos ? "" : "...@", shown.substr(0, 100)));
  };
  if (!url.starts_with(kScheme)) return refused();
  std::string_view rest = url.substr(kScheme.size());
  RedisOptions options;
  if (const size_t end = rest.rfind('@'); end != rest.npos) {
    const size_t colon = rest.find(':');
    if (colon > end) return refused();
    options.user = rest.substr(0, colon);
    options.password = rest.substr(colon + 1, end - colon - 1);
    rest.remove_prefix(end + 1);
  }
  if (const size_t slash = rest.find('/'); slash != rest.npos) {
    const std::string_view database = rest.substr(slash + 1);
    if (!database.empty() && !read_number(database, 0, 1 << 20, options.database)) return refused();
    rest = rest.substr(0, slash);
  }
  const size_t bracket = rest.starts_with('[') ? rest.find(']') : 0;  // of an IPv6 address
  if (bracket == rest.npos) return refused();
  if (const size_t colon = rest.find(':', bracket); colon != rest.npos) {
    if (!read_number(rest.substr(colon + 1), 1, 65535, options.port)) return refused();
    rest = rest.substr(0, colon);
  }
  if (bracket > 0) {
    if (!rest.ends_with(']')) return refused();
    rest = rest.substr(1, bracket - 1);
  }
  if (rest.empty()) return refused();
  options.host = rest;
  return options;
}

RedisConnection::~RedisConnection() {
  if (context_ != nullptr) redisFree(context_);
}

Error RedisConnection::drop(const std::string& what) {
  if (context_ != nullptr) redisFree(context_);
  context_ = nullptr;
  retry_at_ = std::chrono::steady_clock::now() + kPause;
  return {ErrorCode::kUnavailable, fmt::format("redis {}:{}: {}", options_.host, options_.port, what)};
}

// hiredis tells of a time-out as the system does of a read that finds nothing.
std::string RedisConnection::broken() const {
  return context_->err == REDIS_ERR_IO && errno == EAGAIN ? "no answer in time" : context_->errstr;
}

Status RedisConnection::connect() {
  if (context_ != nullptr) return {};
  if (std::chrono::steady_clock::now() < retry_at_)
    return Error{ErrorCode::kUnavailable, fmt::format("redis {}:{}: not reachable", options_.host, options_.port)};
  context_ = redisConnectWithTimeout(options_.host.c_str(), options_.port, timeval_of(options_.timeout));
  if (context_ == nullptr) return drop("out of memory");
  if (context_->err != 0) return drop(broken());
  if (redisSetTimeout(context_, timeval_of(options_.timeout)) != REDIS_OK) return drop("no time-out can be set");
  const std::string& user = options_.user;
  if (!options_.password.empty())
    SW_TRY(user.empty() ? introduce({"AUTH", options_.password}) : introduce({"AUTH", user, options_.password}));
  if (options_.database != 0) SW_TRY(introduce({"SELECT", std::to_string(options_.database)}));
  return {};
}

// A command that belongs to the connection.
Status RedisConnection::introduce(const Command& command) {
  std::vector<const char*> words;
  std::vector<size_t> sizes;
  for (const std::string& word : command) {
    words.push_back(word.data());
    sizes.push_back(word.size());
  }
  const RedisReply reply(
      static_cast<redisReply*>(redisCommandArgv(context_, static_cast<int>(words.size()), words.data(), sizes.data())));
  if (!reply) return drop(broken());
  if (reply->type == REDIS_REPLY_ERROR) return drop(std::string(reply->str, reply->len));
  return {};
}

Result<std::vector<RedisReply>> RedisConnection::run(const std::vector<Command>& commands) {
  SW_TRY(connect());
  for (const Command& command : commands) {
    std::vector<const char*> words;
    std::vector<size_t> sizes;
    for (const std::string& word : command) {
      words.push_back(word.data());
      sizes.push_back(word.size());
    }
    if (redisAppendCommandArgv(context_, static_cast<int>(words.size()), words.data(), sizes.data()) != REDIS_OK)
      return drop(broken());
  }
  std::vector<RedisReply> replies;
  for (size_t i = 0; i < commands.size(); ++i) {
    void* reply = nullptr;
    if (redisGetReply(context_, &reply) != REDIS_OK) return drop(broken());
    replies.emplace_back(static_cast<redisReply*>(reply));
  }
  return replies;
}

Result<RedisReply> RedisConnection::run(const Command& command) {
  SW_ASSIGN(std::vector<RedisReply> replies, run(std::vector<Command>{command}));
  RedisReply reply = std::move(replies.front());
  if (reply->type == REDIS_REPLY_ERROR)
    return Error{ErrorCode::kUnavailable, fmt::format("redis: {}", std::string_view(reply->str, reply->len))};
  return reply;
}

}  // namespace spillway::gateway
