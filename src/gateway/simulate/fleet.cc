#include "gateway/simulate/fleet.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <fstream>
#include <sstream>

#include "config/yaml.h"

namespace spillway::gateway {
namespace {

using config::YamlEntry;

Result<double> number(std::string_view text, double min, double max) {
  double value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size() || !(value >= min && value <= max))
    return invalid(fmt::format("expected a number from {} to {}, found \"{}\"", min, max, text.substr(0, 40)));
  return value;
}

// "12:3.5" with the given separator.
Result<std::pair<double, double>> pair_of(std::string_view text, char separator) {
  const size_t at = text.find(separator);
  if (at == std::string_view::npos)
    return invalid(
        fmt::format("expected two numbers with '{}' between them, found \"{}\"", separator, text.substr(0, 40)));
  SW_ASSIGN(const double first, number(text.substr(0, at), 0, 1e9));
  SW_ASSIGN(const double second, number(text.substr(at + 1), 0, 1e9));
  return std::pair(first, second);
}

Result<std::string> scalar(const YamlEntry& entry) {
  if (entry.kind != YamlEntry::Kind::kScalar) return invalid("expected a single value");
  return entry.items[0].text;
}

Result<std::vector<std::string>> texts(const YamlEntry& entry) {
  if (entry.kind != YamlEntry::Kind::kList) return invalid("expected a list");
  std::vector<std::string> texts;
  for (const auto& item : entry.items) texts.push_back(item.text);
  return texts;
}

Status read_windows(const YamlEntry& entry, std::vector<std::pair<double, double>>& windows) {
  SW_ASSIGN(const auto items, texts(entry));
  for (const std::string& item : items) {
    SW_ASSIGN(const auto window, pair_of(item, '-'));
    if (window.second <= window.first || (!windows.empty() && window.first < windows.back().second))
      return invalid(fmt::format("expected rising times, found \"{}\"", item));
    windows.push_back(window);
  }
  return {};
}

Status read_rates(const YamlEntry& entry, std::vector<std::pair<int, double>>& rates) {
  SW_ASSIGN(const auto items, texts(entry));
  for (const std::string& item : items) {
    SW_ASSIGN(const auto point, pair_of(item, ':'));
    if (point.first < 1 || point.second <= 0 || (!rates.empty() && point.first <= rates.back().first))
      return invalid(fmt::format("expected STREAMS:RATE with rising streams, found \"{}\"", item));
    rates.emplace_back(static_cast<int>(point.first), point.second);
  }
  return {};
}

struct NumberField {
  const char* name;
  double min, max;
  void (*set)(ServerDescription& server, double value);
};

using Server = ServerDescription;
constexpr NumberField kNumbers[] = {
    {"prefill_tokens_per_s", 1, 1e9, [](Server& s, double v) { s.prefill_tokens_per_s = v; }},
    {"decode_while_prefilling", 0.01, 1, [](Server& s, double v) { s.decode_while_prefilling = v; }},
    {"concurrency_max", 1, 1e6, [](Server& s, double v) { s.info.concurrency_max = static_cast<int>(v); }},
    {"queue_max", 0, 1e6, [](Server& s, double v) { s.queue_max = static_cast<int>(v); }},
    {"cache_tokens", 0, 1e12, [](Server& s, double v) { s.cache_tokens = static_cast<int64_t>(v); }},
    {"context_tokens_max", 0, 1e9, [](Server& s, double v) { s.info.context_tokens_max = static_cast<int64_t>(v); }},
    {"weight", 0, 1e6, [](Server& s, double v) { s.info.weight = v; }},
    {"round_trip_s", 0, 100, [](Server& s, double v) { s.info.round_trip_s = v; }},
    {"report_interval_s", 0.001, 1e6, [](Server& s, double v) { s.report_interval_s = v; }},
    {"usd_per_hour", 0, 1e6, [](Server& s, double v) { s.usd_per_hour = v; }},
    {"usd_per_million_input", 0, 1e6, [](Server& s, double v) { s.info.price.input = v; }},
    {"usd_per_million_cached", 0, 1e6, [](Server& s, double v) { s.info.price.cached_input = v; }},
    {"usd_per_million_output", 0, 1e6, [](Server& s, double v) { s.info.price.output = v; }},
};

Status read_server(ServerDescription& server, std::string_view field, const YamlEntry& entry) {
  if (field == "decode_tokens_per_s") return read_rates(entry, server.decode_tokens_per_s);
  if (field == "down") return read_windows(entry, server.down);
  if (field == "silent") return read_windows(entry, server.silent);
  SW_ASSIGN(const std::string text, scalar(entry));
  if (field == "tier") {
    SW_ASSIGN(server.info.tier, parse_tier(text));
    return {};
  }
  for (const NumberField& row : kNumbers) {
    if (field != row.name) continue;
    SW_ASSIGN(const double value, number(text, row.min, row.max));
    row.set(server, value);
    return {};
  }
  return invalid("no such field of a server");
}

Status read_entry(FleetDescription& fleet, const YamlEntry& entry) {
  const std::string_view key = entry.key;
  const size_t dot = key.find('.');
  const std::string_view section = key.substr(0, dot), rest = dot == key.npos ? "" : key.substr(dot + 1);
  if (entry.kind == YamlEntry::Kind::kMap) {
    if (section != "servers" && section != "policies")
      return invalid("expected servers, policies, timeout_s or attempts_max");
    if (section == "servers" && !rest.empty() && rest.find('.') == rest.npos) {
      fleet.servers.emplace_back().info.name = rest;
      fleet.servers.back().info.reports_load = true;
    }
    return {};
  }
  if (section == "servers" && !fleet.servers.empty()) {
    const std::string prefix = fleet.servers.back().info.name + ".";
    if (rest.starts_with(prefix)) return read_server(fleet.servers.back(), rest.substr(prefix.size()), entry);
  }
  if (section == "policies" && !rest.empty()) {
    SW_ASSIGN(std::vector<std::string> policies, texts(entry));
    const auto chain = PolicyChain::parse(std::span<const std::string>(policies));
    if (!chain.ok()) return chain.error();
    fleet.policies.push_back({std::string(rest), std::move(policies)});
    return {};
  }
  if (key == "timeout_s" || key == "attempts_max") {
    SW_ASSIGN(const std::string text, scalar(entry));
    SW_ASSIGN(const double value, number(text, key == "timeout_s" ? 0.001 : 1, key == "timeout_s" ? 1e6 : 100));
    key == "timeout_s" ? fleet.timeout_s = value : fleet.attempts_max = static_cast<int>(value);
    return {};
  }
  return invalid("expected servers, policies, timeout_s or attempts_max");
}

}  // namespace

double ServerDescription::decode_rate(int streams) const {
  const auto& points = decode_tokens_per_s;
  if (streams <= points.front().first) return points.front().second;
  for (size_t i = 1; i < points.size(); ++i) {
    const auto& [before, fast] = points[i - 1];
    const auto& [after, slow] = points[i];
    if (streams <= after) return fast + (slow - fast) * (streams - before) / (after - before);
  }
  return points.back().second * points.back().first / streams;
}

Result<FleetDescription> parse_fleet(std::string_view yaml) {
  SW_ASSIGN(const std::vector<YamlEntry> entries, config::parse_yaml(yaml));
  FleetDescription fleet;
  for (const YamlEntry& entry : entries) {
    auto read = read_entry(fleet, entry);
    if (!read.ok()) return std::move(read).error().in(fmt::format("{}:{}: {}", entry.line, entry.column, entry.key));
  }
  if (fleet.servers.empty()) return invalid("servers: expected at least one, found none");
  for (const ServerDescription& server : fleet.servers) {
    if (server.prefill_tokens_per_s <= 0 || server.decode_tokens_per_s.empty())
      return invalid(
          fmt::format("servers.{}: expected prefill_tokens_per_s and decode_tokens_per_s", server.info.name));
  }
  if (fleet.policies.empty()) return invalid("policies: expected at least one, found none");
  return fleet;
}

Result<FleetDescription> load_fleet(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  if (!in) return not_found(path + ": expected a readable file");
  std::ostringstream text;
  text << in.rdbuf();
  auto fleet = parse_fleet(text.str());
  if (!fleet.ok()) return std::move(fleet).error().in(path);
  return fleet;
}

}  // namespace spillway::gateway
