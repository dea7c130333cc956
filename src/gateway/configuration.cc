#include "gateway/configuration.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstdlib>
#include <fstream>
#include <functional>
#include <map>
#include <set>

#include "config/value.h"
#include "gateway/policy_targets.h"

namespace spillway::gateway {
namespace {

using config::Option;
using config::Type;
using config::YamlEntry;

constexpr std::string_view kList = "gateway.upstreams";
constexpr Duration kLoadReportInterval = std::chrono::milliseconds(200);  // of a Spillway that names no health_interval

// Reads one scalar by the rules of the option table.
Result<config::Value> scalar(const YamlEntry& entry, Type type, const char* choices = "", double min = 0,
                             double max = 1e18) {
  const Option option{"", "", type, "", "", choices, min, max};
  if (entry.kind == YamlEntry::Kind::kMap) return invalid("expected " + describe_expected(option) + ", found a map");
  const bool list = type == Type::kStrings;
  if (!list && entry.kind == YamlEntry::Kind::kList)
    return invalid("expected " + describe_expected(option) + ", found a list");
  if (!list) return parse_value(option, entry.items[0].text);
  std::vector<std::string> items;
  for (const auto& item : entry.items) items.push_back(item.text);
  return parse_list(option, items);
}

using Apply = std::function<Status(UpstreamOptions&, const YamlEntry&)>;

template <class T>
Apply field(T UpstreamOptions::*member) {
  return [member](UpstreamOptions& upstream, const YamlEntry& entry) -> Status {
    if constexpr (std::is_same_v<T, bool>) {
      SW_ASSIGN(auto value, scalar(entry, Type::kBool));
      upstream.*member = std::get<bool>(value);
    } else if constexpr (std::is_same_v<T, Duration>) {
      SW_ASSIGN(auto value, scalar(entry, Type::kDuration, "", 0.001, 86400));
      upstream.*member = from_seconds(std::get<double>(value));
    } else if constexpr (std::is_same_v<T, double>) {
      SW_ASSIGN(auto value, scalar(entry, Type::kFloat));
      upstream.*member = std::get<double>(value);
    } else {
      SW_ASSIGN(auto value, scalar(entry, Type::kString));
      upstream.*member = std::get<std::string>(value);
    }
    return {};
  };
}

Apply number(std::function<void(UpstreamOptions&, double)> set) {
  return [set](UpstreamOptions& upstream, const YamlEntry& entry) -> Status {
    SW_ASSIGN(auto value, scalar(entry, Type::kFloat));
    set(upstream, std::get<double>(value));
    return {};
  };
}

Apply integer(int64_t min, std::function<void(UpstreamOptions&, int64_t)> set) {
  return [min, set](UpstreamOptions& upstream, const YamlEntry& entry) -> Status {
    SW_ASSIGN(auto value, scalar(entry, Type::kInt, "", double(min), 1e9));
    set(upstream, std::get<int64_t>(value));
    return {};
  };
}

Apply flag(std::function<void(UpstreamOptions&, bool)> set) {
  return [set](UpstreamOptions& upstream, const YamlEntry& entry) -> Status {
    SW_ASSIGN(auto value, scalar(entry, Type::kBool));
    set(upstream, std::get<bool>(value));
    return {};
  };
}

Apply duration(std::function<void(UpstreamOptions&, Duration)> set) {
  return [set](UpstreamOptions& upstream, const YamlEntry& entry) -> Status {
    SW_ASSIGN(auto value, scalar(entry, Type::kDuration, "", 0.001, 86400));
    set(upstream, from_seconds(std::get<double>(value)));
    return {};
  };
}

Status set_discovery(UpstreamOptions& upstream, const YamlEntry& entry) {
  SW_ASSIGN(auto value, scalar(entry, Type::kString, "none|dns|kubernetes"));
  const std::string& name = std::get<std::string>(value);
  using Discovery = UpstreamOptions::Discovery;
  upstream.discovery = name == "dns"          ? Discovery::kDns
                       : name == "kubernetes" ? Discovery::kKubernetes
                                              : Discovery::kNone;
  return {};
}

Status set_name(UpstreamOptions& upstream, const YamlEntry& entry) {
  SW_ASSIGN(auto value, scalar(entry, Type::kString));
  const auto& name = std::get<std::string>(value);
  const bool plain =
      name.find_first_not_of("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.") == name.npos;
  if (name.empty() || name.size() > 64 || !plain) return invalid("expected 1 to 64 of letters, digits and \"-_.\"");
  upstream.info.name = name;
  return {};
}

Status set_kind(UpstreamOptions& upstream, const YamlEntry& entry) {
  SW_ASSIGN(auto value, scalar(entry, Type::kString, "local|openai|deepseek|anthropic|spillway"));
  for (int kind = 0; kind <= int(UpstreamKind::kSpillway); ++kind) {
    if (kind_name(UpstreamKind(kind)) == std::get<std::string>(value)) upstream.kind = UpstreamKind(kind);
  }
  return {};
}

Status set_base(UpstreamOptions& upstream, const YamlEntry& entry) {
  SW_ASSIGN(auto value, scalar(entry, Type::kString));
  SW_ASSIGN(upstream.base, net::parse_url(std::get<std::string>(value)));
  return {};
}

Status set_tier(UpstreamOptions& upstream, const YamlEntry& entry) {
  SW_ASSIGN(auto value, scalar(entry, Type::kString));
  SW_ASSIGN(upstream.info.tier, parse_tier(std::get<std::string>(value)));
  return {};
}

// Of "env:NAME", or "file:PATH" with one secret a line.
Result<std::vector<std::string>> read_secrets(const std::vector<std::string>& references) {
  std::vector<std::string> secrets;
  for (const std::string& reference : references) {
    if (reference.starts_with("env:")) {
      const char* key = std::getenv(reference.c_str() + 4);
      if (key == nullptr || *key == '\0')
        return invalid("expected a key in the environment variable " + reference.substr(4));
      secrets.emplace_back(key);
    } else if (reference.starts_with("file:")) {
      std::ifstream in(reference.substr(5));
      if (!in) return invalid("expected a readable file of keys, found none at " + reference.substr(5));
      for (std::string line; std::getline(in, line);) {
        while (!line.empty() && (line.back() == '\r' || line.back() == ' ')) line.pop_back();
        if (!line.empty() && line[0] != '#') secrets.push_back(line);
      }
    } else {
      return invalid("expected env:NAME or file:PATH, found something else (keys do not belong into this file)");
    }
  }
  for (const std::string& key : secrets) {
    if (key.find_first_of(std::string_view("\r\n\0", 3)) != key.npos) return invalid("a key has a line break in it");
  }
  return secrets;
}

Status set_keys(UpstreamOptions& upstream, const YamlEntry& entry) {
  SW_ASSIGN(auto value, scalar(entry, Type::kStrings));
  SW_ASSIGN(upstream.keys, read_secrets(std::get<std::vector<std::string>>(value)));
  return {};
}

const std::map<std::string_view, Apply>& fields() {
  static const std::map<std::string_view, Apply> kFields = {
      {"name", set_name},
      {"kind", set_kind},
      {"base_url", set_base},
      {"tier", set_tier},
      {"keys", set_keys},
      {"pass_key", field(&UpstreamOptions::pass_key)},
      {"tls_ca_file", field(&UpstreamOptions::tls_ca_file)},
      {"tls_verify", field(&UpstreamOptions::tls_verify)},
      {"discovery", set_discovery},
      {"service", field(&UpstreamOptions::service)},
      {"stream_usage", field(&UpstreamOptions::stream_usage)},
      {"continuation_safe", field(&UpstreamOptions::continuation_safe)},
      {"tokens_per_s_min", field(&UpstreamOptions::tokens_per_s_min)},
      {"images", flag([](auto& u, bool v) { u.info.images = v; })},
      {"tools", flag([](auto& u, bool v) { u.info.tools = v; })},
      {"breaker.failures_in_row", integer(1, [](auto& u, int64_t v) { u.breaker.failures_in_row = int(v); })},
      {"breaker.failure_share", number([](auto& u, double v) { u.breaker.failure_share = v; })},
      {"breaker.open", duration([](auto& u, Duration v) { u.breaker.open = v; })},
      {"breaker.open_max", duration([](auto& u, Duration v) { u.breaker.open_max = v; })},
      {"breaker.slow_start", duration([](auto& u, Duration v) { u.breaker.slow_start = v; })},
      {"queue_wait_target", duration([](auto& u, Duration v) { u.concurrency.wait_target = v; })},
      {"hedge", field(&UpstreamOptions::hedge)},
      {"connect_timeout", field(&UpstreamOptions::connect_timeout)},
      {"first_token_timeout", field(&UpstreamOptions::first_token_timeout)},
      {"token_timeout", field(&UpstreamOptions::token_timeout)},
      {"answer_timeout", field(&UpstreamOptions::answer_timeout)},
      {"health_path", field(&UpstreamOptions::health_path)},
      {"health_interval", field(&UpstreamOptions::health_interval)},
      {"price.input", number([](auto& u, double v) { u.info.price.input = v; })},
      {"price.output", number([](auto& u, double v) { u.info.price.output = v; })},
      {"price.cached_input", number([](auto& u, double v) { u.info.price.cached_input = v; })},
      {"weight", number([](auto& u, double v) { u.info.weight = v; })},
      {"round_trip_s", number([](auto& u, double v) { u.info.round_trip_s = v; })},
      {"concurrency_max", integer(1,
                                  [](auto& u, int64_t v) {
                                    u.info.concurrency_max = int(v);
                                    u.concurrency.max = double(v);
                                    u.concurrency.initial = double(
                                        v);  // whoever names a number is taken at his word until it proves too much
                                  })},
      {"context_tokens_max", integer(0, [](auto& u, int64_t v) { u.info.context_tokens_max = v; })},
  };
  return kFields;
}

class Reader {
 public:
  explicit Reader(const config::Config& config) : config_(config) {}

  Result<std::vector<UpstreamOptions>> upstreams() {
    for (const YamlEntry& entry : config_.map_lists()) {
      if (entry.key.starts_with(std::string(kList) + "[")) take(entry);
    }
    for (size_t i = 0; i < upstreams_.size(); ++i) check(i);
    if (!problems_.empty()) return invalid(problems_);
    return std::move(upstreams_);
  }

 private:
  void problem(const YamlEntry& entry, const std::string& message) {
    if (!problems_.empty()) problems_ += "\n";
    problems_ += fmt::format("{}:{}:{}: {}: {}", config_.file(), entry.line, entry.column, entry.key, message);
  }

  void take(const YamlEntry& entry) {
    const size_t close = entry.key.find(']');
    if (close + 1 == entry.key.size()) {
      upstreams_.emplace_back();
      upstreams_.back().info.concurrency_max = int(upstreams_.back().concurrency.max);
      places_.push_back(entry);
      return;
    }
    const std::string name = entry.key.substr(close + 2);
    UpstreamOptions& upstream = upstreams_.back();
    upstream.written += name;
    for (const auto& item : entry.items) upstream.written += '\1' + item.text;
    upstream.written += '\2';
    if (name == "models" || name == "price" || name == "breaker") {
      if (entry.kind == YamlEntry::Kind::kList && name == "models") {
        for (const auto& item : entry.items) upstream.info.models.push_back(item.text);
      } else if (entry.kind != YamlEntry::Kind::kMap) {
        problem(entry,
                name == "models" ? "expected a list of names or a map of public to own names" : "expected a map");
      }
      return;
    }
    if (name.starts_with("models.")) {  // names may have dots of their own
      const auto own = scalar(entry, Type::kString);
      if (!own.ok()) return problem(entry, own.error().message);
      upstream.info.models.push_back(name.substr(7));
      upstream.models[name.substr(7)] = std::get<std::string>(*own);
      return;
    }
    const auto found = fields().find(name);
    if (found == fields().end()) return problem(entry, "unknown key");
    Status applied = found->second(upstream, entry);
    if (!applied.ok()) problem(entry, applied.error().message);
  }

  void check(size_t index) {
    UpstreamOptions& upstream = upstreams_[index];
    const YamlEntry& place = places_[index];
    if (upstream.info.name.empty()) problem(place, "expected a name, found none");
    if (!names_.insert(upstream.info.name).second) problem(place, "the name " + upstream.info.name + " is given twice");
    const bool local = upstream.kind == UpstreamKind::kLocal;
    if (!local && upstream.base.host.empty()) problem(place, "expected a base_url, found none");
    if (local && !upstream.base.host.empty()) problem(place, "expected no base_url for the local models");
    const bool spillway = upstream.kind == UpstreamKind::kSpillway;
    upstream.info.reports_load = spillway;
    if (spillway && upstream.written.find("health_interval\1") == upstream.written.npos) {
      upstream.health_interval = kLoadReportInterval;
    }
    for (const std::string& key : upstream.keys) upstream.written += key + '\3';
    if (upstream.discovery == UpstreamOptions::Discovery::kKubernetes &&
        upstream.service.find('/') == std::string::npos) {
      problem(place,
              "expected a service as NAMESPACE/NAME, found " + (upstream.service.empty() ? "none" : upstream.service));
    }
    if (upstream.kind == UpstreamKind::kOpenAi && upstream.base.target == "/") upstream.base.target = "/v1";
    if (upstream.kind == UpstreamKind::kSpillway && upstream.base.target.starts_with("/v1")) upstream.base.target = "/";
  }

  const config::Config& config_;
  std::vector<UpstreamOptions> upstreams_;
  std::vector<YamlEntry> places_;
  std::set<std::string> names_;
  std::string problems_;
};

}  // namespace

bool has_gateway(const config::Config& config) {
  return std::ranges::any_of(config.map_lists(), [](const YamlEntry& entry) { return entry.key.starts_with(kList); });
}

Result<std::string> secret(std::string_view reference, std::string_view key) {
  if (reference.empty()) return std::string();
  SW_ASSIGN(auto secrets, read_secrets({std::string(reference)}));
  if (secrets.size() != 1) return invalid(fmt::format("{}: expected one secret, found {}", key, secrets.size()));
  return secrets[0];
}

Result<GatewayOptions> gateway_options(const config::Config& config) {
  GatewayOptions options;
  for (const std::string& alias : config.strings("gateway.aliases")) {
    const size_t equals = alias.find('=');
    if (equals == 0 || equals == alias.npos || equals + 1 == alias.size()) {
      return invalid("gateway.aliases: expected ALIAS=MODEL, found \"" + alias + "\"");
    }
    const auto [was, fresh] = options.aliases.try_emplace(alias.substr(0, equals), alias.substr(equals + 1));
    if (!fresh) return invalid("gateway.aliases: the alias " + was->first + " is given twice");
  }
  SW_ASSIGN(options.upstreams, Reader(config).upstreams());
  options.policies = config.strings("gateway.policies");
  SW_TRY(check_aliases(options.aliases, options.upstreams));
  SW_TRY(check_policy_targets(options.policies, options.upstreams));
  options.retry_budget.share = config.number("gateway.retry_share");
  options.retry_budget.floor_per_s = config.number("gateway.retry_floor");
  options.attempts_max = int(config.integer("gateway.attempts_max"));
  options.hedging = config.boolean("gateway.hedging");
  options.request_timeout = from_seconds(config.seconds("gateway.request_timeout"));
  options.queue_requests_max = int(config.integer("gateway.queue_requests_max"));
  options.queue_wait_max = from_seconds(config.seconds("gateway.queue_wait_max"));
  options.keep_alive_interval = from_seconds(config.seconds("server.keep_alive_interval"));
  options.access_log = config.text("gateway.access_log");
  options.cache_bytes_max = size_t(config.bytes("gateway.cache_bytes"));
  options.cache_ttl = from_seconds(config.seconds("gateway.cache_ttl"));
  options.cache_any_temperature = config.boolean("gateway.cache_any_temperature");
  options.coalesce_embeddings = config.boolean("gateway.coalesce_embeddings");
  return options;
}

}  // namespace spillway::gateway
