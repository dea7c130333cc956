#include "gateway/tenants/key_json.h"

#include <fmt/format.h>

#include <boost/json/array.hpp>
#include <boost/json/parse.hpp>
#include <boost/json/serialize.hpp>
#include <cmath>

namespace spillway::gateway {
namespace {

namespace json = boost::json;

constexpr size_t kTextMax = 200, kModelsMax = 1000;
constexpr int64_t kLimitMax = 1'000'000'000'000;
constexpr int64_t kBudgetMax_usd = 1'000'000'000;

Error wrong(std::string_view field, std::string_view expected, const json::value& found) {
  std::string text = json::serialize(found);
  if (text.size() > 60) text = text.substr(0, 60) + "...";
  return invalid(fmt::format("{}: expected {}, found {}", field, expected, text));
}

Status set_text(std::string_view field, const json::value& value, std::string& out) {
  if (!value.is_string() || value.get_string().size() > kTextMax)
    return wrong(field, fmt::format("a string of at most {} bytes", kTextMax), value);
  for (const char c : value.get_string()) {
    if (static_cast<unsigned char>(c) < 0x20) return wrong(field, "text without control characters", value);
  }
  out = value.get_string();
  return {};
}

Status set_integer(std::string_view field, const json::value& value, int64_t min, int64_t max, int64_t& out) {
  if (!value.is_int64() || value.get_int64() < min || value.get_int64() > max)
    return wrong(field, fmt::format("an integer from {} to {}", min, max), value);
  out = value.get_int64();
  return {};
}

Status set_models(const json::value& value, std::vector<std::string>& out) {
  if (!value.is_array() || value.get_array().size() > kModelsMax)
    return wrong("models", "a list of model names", value);
  std::vector<std::string> models;
  for (const json::value& item : value.get_array()) {
    std::string model;
    SW_TRY(set_text("models", item, model));
    if (model.empty()) return wrong("models", "names", item);
    models.push_back(std::move(model));
  }
  out = std::move(models);
  return {};
}

Status set_dollars(const json::value& value, int64_t& nanodollars) {
  const double dollars = value.is_int64()    ? static_cast<double>(value.get_int64())
                         : value.is_double() ? value.get_double()
                                             : -1;
  if (!(dollars >= 0 && dollars <= static_cast<double>(kBudgetMax_usd)))
    return wrong("budget_usd", fmt::format("a number from 0 to {}", kBudgetMax_usd), value);
  nanodollars = std::llround(dollars * 1e9);
  return {};
}

Status apply_field(std::string_view name, const json::value& value, KeyRecord& key) {
  if (name == "name") return set_text(name, value, key.name);
  if (name == "tenant") return set_text(name, value, key.tenant);
  if (name == "models") return set_models(value, key.models);
  if (name == "requests_per_minute") return set_integer(name, value, 0, kLimitMax, key.requests_per_minute);
  if (name == "tokens_per_minute") return set_integer(name, value, 0, kLimitMax, key.tokens_per_minute);
  if (name == "expires_at") return set_integer(name, value, 0, kLimitMax, key.expires_unix_s);
  if (name == "budget_usd") return set_dollars(value, key.budget_nanodollars);
  if (name == "budget_period") {
    std::string text;
    SW_TRY(set_text(name, value, text));
    const auto period = parse_period(text);
    if (!period.ok()) return wrong(name, "total, day or month", value);
    key.budget_period = *period;
    return {};
  }
  if (name == "priority") {
    int64_t priority = 0;
    SW_TRY(set_integer(name, value, -1000, 1000, priority));
    key.priority = static_cast<int>(priority);
    return {};
  }
  return invalid(
      fmt::format("{}: no such field; expected name, tenant, models, requests_per_minute, tokens_per_minute, "
                  "budget_usd, budget_period, priority or expires_at",
                  name));
}

Result<KeyDigest> digest_of(std::string_view hex) {
  KeyDigest digest;
  const auto nibble = [](char c) { return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1; };
  bool good = hex.size() == 2 * digest.size();
  for (size_t i = 0; good && i < digest.size(); ++i) {
    const int high = nibble(hex[2 * i]), low = nibble(hex[2 * i + 1]);
    good = high >= 0 && low >= 0;
    digest[i] = static_cast<unsigned char>(high * 16 + low);
  }
  if (!good) return corrupt(fmt::format("digest: expected {} hexadecimal digits", 2 * digest.size()));
  return digest;
}

}  // namespace

json::object describe_key(const KeyRecord& key) {
  json::array models;
  for (const std::string& model : key.models) models.emplace_back(model);
  return {{"id", key.id},
          {"object", "virtual_key"},
          {"name", key.name},
          {"tenant", key.tenant},
          {"models", std::move(models)},
          {"requests_per_minute", key.requests_per_minute},
          {"tokens_per_minute", key.tokens_per_minute},
          {"budget_usd", static_cast<double>(key.budget_nanodollars) * 1e-9},
          {"budget_period", std::string(period_name(key.budget_period))},
          {"priority", key.priority},
          {"created_at", key.created_unix_s},
          {"expires_at", key.expires_unix_s},
          {"revoked", key.revoked}};
}

std::string describe_change(const KeyRecord& before, const KeyRecord& after) {
  const json::object old = describe_key(before);
  json::object changes;
  for (const auto& [field, value] : describe_key(after)) {
    if (field == "id" || field == "created_at" || old.at(field) == value) continue;
    changes[field] = json::array{old.at(field), value};
  }
  return json::serialize(changes);
}

std::string stored_key(const KeyRecord& key) {
  json::object object = describe_key(key);
  std::string hex;
  for (const unsigned char byte : key.digest) hex += fmt::format("{:02x}", byte);
  object["digest"] = hex;
  object["budget_nanodollars"] = key.budget_nanodollars;
  return json::serialize(object);
}

Result<KeyRecord> parse_stored_key(std::string_view text) {
  boost::system::error_code failed;
  json::value value = json::parse(text, failed);
  if (failed || !value.is_object()) return corrupt("stored key: expected a JSON object");
  json::object& object = value.get_object();
  const auto taken = [&](std::string_view name) {
    const auto found = object.find(name);
    json::value out = found == object.end() ? json::value() : found->value();
    object.erase(name);
    return out;
  };
  const json::value id = taken("id"), digest = taken("digest"), nanodollars = taken("budget_nanodollars"),
                    created = taken("created_at"), revoked = taken("revoked");
  taken("object");
  if (!id.is_string() || !digest.is_string() || !nanodollars.is_int64() || !created.is_int64() || !revoked.is_bool())
    return corrupt("stored key: expected id, digest, budget_nanodollars, created_at and revoked");
  KeyRecord key;
  SW_TRY(apply_key_fields(object, key));
  key.id = id.get_string();
  SW_ASSIGN(key.digest, digest_of(digest.get_string()));
  key.budget_nanodollars = nanodollars.get_int64();
  if (key.budget_nanodollars < 0 || key.budget_nanodollars > kBudgetMax_usd * 1'000'000'000)
    return corrupt(fmt::format("stored key: expected budget_nanodollars of 0 to {} dollars, found {}", kBudgetMax_usd,
                               key.budget_nanodollars));
  key.created_unix_s = created.get_int64();
  key.revoked = revoked.get_bool();
  return key;
}

Status apply_key_fields(const json::object& fields, KeyRecord& key) {
  KeyRecord changed = key;
  for (const auto& [name, value] : fields) SW_TRY(apply_field(name, value, changed));
  key = std::move(changed);
  return {};
}

}  // namespace spillway::gateway
