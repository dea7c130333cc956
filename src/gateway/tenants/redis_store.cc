#include "gateway/tenants/redis_store.h"

#include <fmt/format.h>
#include <hiredis/hiredis.h>
#include <openssl/rand.h>

#include <array>
#include <boost/json/parse.hpp>
#include <boost/json/serialize.hpp>
#include <charconv>
#include <mutex>

#include "gateway/tenants/key_json.h"

namespace spillway::gateway {
namespace {

namespace json = boost::json;
using Command = RedisConnection::Command;

std::string text_of(const redisReply& reply) { return reply.str == nullptr ? "" : std::string(reply.str, reply.len); }

int64_t integer_of(std::string_view text) {
  int64_t value = 0;
  std::from_chars(text.data(), text.data() + text.size(), value);
  return value;
}

std::string entry_json(const AuditEntry& entry) {
  return json::serialize(json::object{{"at", entry.at_unix_s},
                                      {"actor", entry.actor},
                                      {"action", entry.action},
                                      {"subject", entry.subject},
                                      {"detail", entry.detail}});
}

class RedisStore final : public TenantStore {
 public:
  explicit RedisStore(RedisOptions options) : connection_(std::move(options)) {}

  Result<std::string> salt() override {
    std::array<unsigned char, 32> fresh;
    if (RAND_bytes(fresh.data(), fresh.size()) != 1)
      return Error{ErrorCode::kInternal, "no randomness from the system"};
    const std::string made(reinterpret_cast<const char*>(fresh.data()), fresh.size());
    SW_TRY(one({"SETNX", key("salt"), made}));
    SW_ASSIGN(const RedisReply reply, one({"GET", key("salt")}));
    return text_of(*reply);
  }

  Result<std::vector<KeyRecord>> keys() override {
    SW_ASSIGN(const RedisReply reply, one({"HVALS", key("keys")}));
    std::vector<KeyRecord> keys;
    for (size_t i = 0; i < reply->elements; ++i) {
      SW_ASSIGN(KeyRecord record, parse_stored_key(text_of(*reply->element[i])));
      keys.push_back(std::move(record));
    }
    return keys;
  }

  Status put_key(const KeyRecord& record, const AuditEntry& entry) override {
    return transaction({{"HSET", key("keys"), record.id, stored_key(record)},
                        {"LPUSH", key("audit"), entry_json(entry)},
                        {"INCR", key("version")}});
  }

  // Usage of a key and day is a hash of "model|field".
  Status add_usage(const UsageTable& usage) override {
    std::vector<Command> commands;
    for (const auto& [of, sum] : usage) {
      const std::string hash = fmt::format("{}:{}:{}", key("usage"), of.key_id, of.day);
      const std::pair<const char*, int64_t> fields[] = {{"requests", sum.requests},
                                                        {"prompt", sum.prompt_tokens},
                                                        {"cached", sum.cached_tokens},
                                                        {"output", sum.output_tokens},
                                                        {"nanodollars", sum.nanodollars}};
      for (const auto& [name, amount] : fields)
        commands.push_back({"HINCRBY", hash, of.model + "|" + name, std::to_string(amount)});
      commands.push_back({"SADD", key("usage"), fmt::format("{}:{}", of.key_id, of.day)});
    }
    return transaction(std::move(commands));
  }

  Result<UsageTable> usage(const std::string& key_id, int64_t first_day) override {
    SW_ASSIGN(const RedisReply days, one({"SMEMBERS", key("usage")}));
    UsageTable usage;
    for (size_t i = 0; i < days->elements; ++i) {
      const std::string name = text_of(*days->element[i]);
      const size_t colon = name.rfind(':');
      if (colon == std::string::npos) continue;
      const std::string id = name.substr(0, colon);
      const int64_t day = integer_of(std::string_view(name).substr(colon + 1));
      if ((!key_id.empty() && id != key_id) || day < first_day) continue;
      SW_ASSIGN(const RedisReply sums, one({"HGETALL", key("usage") + ":" + name}));
      for (size_t field = 0; field + 1 < sums->elements; field += 2)
        add(usage, id, day, text_of(*sums->element[field]), integer_of(text_of(*sums->element[field + 1])));
    }
    return usage;
  }

  Result<std::vector<AuditEntry>> audit(int limit) override {
    SW_ASSIGN(const RedisReply reply, one({"LRANGE", key("audit"), "0", std::to_string(limit - 1)}));
    std::vector<AuditEntry> entries;
    for (size_t i = 0; i < reply->elements; ++i) {
      boost::system::error_code failed;
      const json::value value = json::parse(text_of(*reply->element[i]), failed);
      if (failed || !value.is_object()) return corrupt("tenant store: expected audit entries in JSON");
      const auto text = [&](const char* name) {
        const json::value* member = value.get_object().if_contains(name);
        return member != nullptr && member->is_string() ? std::string(member->get_string()) : std::string();
      };
      const json::value* at = value.get_object().if_contains("at");
      entries.push_back({at != nullptr && at->is_int64() ? at->get_int64() : 0, text("actor"), text("action"),
                         text("subject"), text("detail")});
    }
    return entries;
  }

  Result<int64_t> version() override {
    SW_ASSIGN(const RedisReply reply, one({"GET", key("version")}));
    return integer_of(text_of(*reply));
  }

 private:
  std::string key(const char* name) const { return connection_.options().prefix + ":" + name; }

  Result<RedisReply> one(const Command& command) {
    std::lock_guard lock(mutex_);
    return connection_.run(command);
  }

  Status transaction(std::vector<Command> commands) {
    commands.insert(commands.begin(), Command{"MULTI"});
    commands.push_back({"EXEC"});
    std::lock_guard lock(mutex_);
    SW_ASSIGN(const std::vector<RedisReply> replies, connection_.run(commands));
    if (replies.back()->type == REDIS_REPLY_ARRAY) return {};
    return Error{ErrorCode::kUnavailable, fmt::format("redis: {}", text_of(*replies.back()))};
  }

  static void add(UsageTable& usage, const std::string& id, int64_t day, const std::string& field, int64_t amount) {
    const size_t bar = field.rfind('|');
    if (bar == std::string::npos) return;
    UsageSum& sum = usage[{id, day, field.substr(0, bar)}];
    const std::string_view name = std::string_view(field).substr(bar + 1);
    if (name == "requests") sum.requests = amount;
    if (name == "prompt") sum.prompt_tokens = amount;
    if (name == "cached") sum.cached_tokens = amount;
    if (name == "output") sum.output_tokens = amount;
    if (name == "nanodollars") sum.nanodollars = amount;
  }

  std::mutex mutex_;
  RedisConnection connection_;
};

}  // namespace

std::unique_ptr<TenantStore> make_redis_store(RedisOptions options) {
  return std::make_unique<RedisStore>(std::move(options));
}

}  // namespace spillway::gateway
