#include "gateway/tenants/redis_connection.h"

#include <fmt/format.h>
#include <hiredis/hiredis.h>

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

}  // namespace

void RedisReplyDeleter::operator()(redisReply* reply) const { freeReplyObject(reply); }

Result<RedisOptions> parse_redis_url(std::string_view url) {
  constexpr std::string_view kScheme = "redis://";
  const auto refused = [&] {
    return invalid(fmt::format("expected redis://[:PASSWORD@]HOST[:PORT], found \"{}\"", url.substr(0, 100)));
  };
  if (!url.starts_with(kScheme)) return refused();
  std::string_view rest = url.substr(kScheme.size());
  RedisOptions options;
  if (const size_t at = rest.rfind('@'); at != rest.npos) {
    const size_t colon = rest.find(':');
    if (colon > at) return refused();
    options.password = rest.substr(colon + 1, at - colon - 1);
    rest.remove_prefix(at + 1);
  }
  if (const size_t colon = rest.rfind(':'); colon != rest.npos) {
    const std::string_view port = rest.substr(colon + 1);
    const auto [end, error] = std::from_chars(port.data(), port.data() + port.size(), options.port);
    if (error != std::errc() || end != port.data() + port.size() || options.port < 1 || options.port > 65535)
      return refused();
    rest = rest.substr(0, colon);
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

Status RedisConnection::connect() {
  if (context_ != nullptr) return {};
  if (std::chrono::steady_clock::now() < retry_at_)
    return Error{ErrorCode::kUnavailable, fmt::format("redis {}:{}: not reachable", options_.host, options_.port)};
  context_ = redisConnectWithTimeout(options_.host.c_str(), options_.port, timeval_of(options_.timeout));
  if (context_ == nullptr) return drop("out of memory");
  if (context_->err != 0) return drop(context_->errstr);
  if (redisSetTimeout(context_, timeval_of(options_.timeout)) != REDIS_OK) return drop("no time-out can be set");
  if (options_.password.empty()) return {};
  const RedisReply reply(static_cast<redisReply*>(redisCommand(context_, "AUTH %s", options_.password.c_str())));
  if (!reply) return drop(context_->errstr);
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
      return drop(context_->errstr);
  }
  std::vector<RedisReply> replies;
  for (size_t i = 0; i < commands.size(); ++i) {
    void* reply = nullptr;
    if (redisGetReply(context_, &reply) != REDIS_OK) return drop(context_->errstr);
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
