#include "gateway/tenants/admin_api.h"

#include <fmt/format.h>

#include <boost/json/array.hpp>
#include <boost/json/parse.hpp>
#include <boost/json/serialize.hpp>
#include <charconv>
#include <chrono>

#include "gateway/tenants/key_json.h"

namespace spillway::gateway {
namespace {

namespace json = boost::json;

constexpr std::string_view kPrefix = "/admin/v1/";
constexpr std::string_view kDigestPepper = "admin";

AdminResponse failure(const api::ApiError& error) { return {error.http_status(), api::openai_error_body(error)}; }
AdminResponse failure(api::ErrorKind kind, std::string message) { return failure({kind, std::move(message), "", ""}); }
AdminResponse failure(const Error& error) { return failure(api::to_api_error(error)); }
AdminResponse answer(const json::value& value, int status = 200) { return {status, json::serialize(value)}; }

AdminResponse wrong_method(const AdminRequest& request) {
  return failure(api::ErrorKind::kMethodNotAllowed, fmt::format("{} is not allowed here", request.method));
}

json::object list_of(json::array data) { return {{"object", "list"}, {"data", std::move(data)}}; }

Result<json::object> parse_object(const std::string& body) {
  boost::system::error_code failed;
  json::value value = json::parse(body, failed);
  if (failed || !value.is_object()) return invalid("expected a JSON object");
  return std::move(value.get_object());
}

std::string date_of(int64_t day) {
  const std::chrono::year_month_day date{std::chrono::sys_days(std::chrono::days(day))};
  return fmt::format("{:04}-{:02}-{:02}", static_cast<int>(date.year()), static_cast<unsigned>(date.month()),
                     static_cast<unsigned>(date.day()));
}

Result<int64_t> day_of(const std::string& text) {
  int year = 0;
  unsigned month = 0, day = 0;
  const auto part = [&](size_t at, size_t size, auto& value) {
    if (text.size() != 10) return false;
    const auto [end, error] = std::from_chars(text.data() + at, text.data() + at + size, value);
    return error == std::errc() && end == text.data() + at + size;
  };
  const bool read = part(0, 4, year) && part(5, 2, month) && part(8, 2, day) && text[4] == '-' && text[7] == '-';
  const std::chrono::year_month_day date{std::chrono::year(year), std::chrono::month(month), std::chrono::day(day)};
  if (!read || !date.ok()) return invalid(fmt::format("from: expected YYYY-MM-DD, found \"{}\"", text.substr(0, 40)));
  return std::chrono::sys_days(date).time_since_epoch().count();
}

std::string parameter(const AdminRequest& request, const char* name) {
  const auto found = request.query.find(name);
  return found == request.query.end() ? "" : found->second;
}

}  // namespace

AdminApi::AdminApi(TenantLedger& ledger, std::string_view admin_key)
    : ledger_(ledger), open_(!admin_key.empty()), admin_digest_(key_digest(admin_key, kDigestPepper)) {}

bool AdminApi::authorized(std::string_view authorization) const {
  constexpr std::string_view kBearer = "Bearer ";
  if (!open_ || !authorization.starts_with(kBearer)) return false;
  return same_digest(key_digest(authorization.substr(kBearer.size()), kDigestPepper), admin_digest_);
}

AdminResponse AdminApi::handle(const AdminRequest& request) {
  if (!authorized(request.authorization))
    return failure(api::ErrorKind::kAuthentication, "The admin API asks for the admin key.");
  const std::string_view path = request.path;
  if (!path.starts_with(kPrefix)) return failure(api::ErrorKind::kNotFound, "no such path");
  const std::string_view rest = path.substr(kPrefix.size());
  if (rest == "keys") return keys(request);
  if (rest.starts_with("keys/")) return key(request, std::string(rest.substr(5)));
  const bool known = rest == "usage" || rest == "budgets" || rest == "audit";
  if (known && request.method != "GET") return wrong_method(request);
  if (rest == "usage") return usage(request);
  if (rest == "budgets") return budgets();
  if (rest == "audit") return audit(request);
  return failure(api::ErrorKind::kNotFound, "no such path");
}

AdminResponse AdminApi::keys(const AdminRequest& request) {
  if (request.method == "POST") return create(request);
  if (request.method != "GET") return wrong_method(request);
  json::array data;
  for (const KeyRecord& record : ledger_.keys()) data.emplace_back(describe_key(record));
  return answer(list_of(std::move(data)));
}

AdminResponse AdminApi::create(const AdminRequest& request) {
  auto fields = parse_object(request.body);
  if (!fields.ok()) return failure(fields.error());
  KeyRecord wanted;
  const Status applied = apply_key_fields(*fields, wanted);
  if (!applied.ok()) return failure(applied.error());
  const auto created = ledger_.create(std::move(wanted), request.peer);
  if (!created.ok()) return failure(created.error());
  json::object object = describe_key(created->record);
  object["key"] = created->key;
  return answer(object, 201);
}

AdminResponse AdminApi::key(const AdminRequest& request, const std::string& id) {
  if (request.method == "GET") {
    for (const KeyRecord& record : ledger_.keys()) {
      if (record.id == id) return answer(describe_key(record));
    }
    return failure(api::ErrorKind::kNotFound, "no such key");
  }
  if (request.method == "DELETE") {
    const auto revoked =
        ledger_.update(id, "key.revoke", request.peer, [](KeyRecord& record) { record.revoked = true; });
    return revoked.ok() ? answer(describe_key(*revoked)) : failure(revoked.error());
  }
  if (request.method != "PATCH") return wrong_method(request);
  auto fields = parse_object(request.body);
  if (!fields.ok()) return failure(fields.error());
  KeyRecord trial;
  const Status good = apply_key_fields(*fields, trial);
  if (!good.ok()) return failure(good.error());
  const auto changed = ledger_.update(id, "key.update", request.peer, [&](KeyRecord& record) {
    SW_CHECK(apply_key_fields(*fields, record).ok(), "fields");
  });
  return changed.ok() ? answer(describe_key(*changed)) : failure(changed.error());
}

AdminResponse AdminApi::usage(const AdminRequest& request) {
  int64_t first_day = INT64_MIN;
  if (const std::string from = parameter(request, "from"); !from.empty()) {
    const auto day = day_of(from);
    if (!day.ok()) return failure(day.error());
    first_day = *day;
  }
  const auto usage = ledger_.usage(parameter(request, "key"), first_day);
  if (!usage.ok()) return failure(usage.error());
  json::array data;
  for (const auto& [of, sum] : *usage) {
    data.push_back(json::object{{"key", of.key_id},
                                {"date", date_of(of.day)},
                                {"model", of.model},
                                {"requests", sum.requests},
                                {"prompt_tokens", sum.prompt_tokens},
                                {"cached_tokens", sum.cached_tokens},
                                {"output_tokens", sum.output_tokens},
                                {"cost_usd", static_cast<double>(sum.nanodollars) * 1e-9}});
  }
  return answer(list_of(std::move(data)));
}

AdminResponse AdminApi::budgets() {
  json::array data;
  for (const KeyRecord& record : ledger_.keys()) {
    if (record.budget_nanodollars == 0) continue;
    const int64_t period = period_number(record.budget_period, ledger_.unix_now());
    const auto usage = ledger_.usage(record.id, first_day_of(record.budget_period, period));
    if (!usage.ok()) return failure(usage.error());
    int64_t spent = 0;
    for (const auto& [of, sum] : *usage) spent += sum.nanodollars;
    data.push_back(json::object{{"key", record.id},
                                {"tenant", record.tenant},
                                {"period", std::string(period_name(record.budget_period))},
                                {"budget_usd", static_cast<double>(record.budget_nanodollars) * 1e-9},
                                {"spent_usd", static_cast<double>(spent) * 1e-9},
                                {"left_usd", static_cast<double>(record.budget_nanodollars - spent) * 1e-9}});
  }
  return answer(list_of(std::move(data)));
}

AdminResponse AdminApi::audit(const AdminRequest& request) {
  int limit = 100;
  if (const std::string text = parameter(request, "limit"); !text.empty()) {
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), limit);
    if (error != std::errc() || end != text.data() + text.size() || limit < 1 || limit > 10000)
      return failure(
          invalid(fmt::format("limit: expected an integer from 1 to 10000, found \"{}\"", text.substr(0, 40))));
  }
  const auto entries = ledger_.audit(limit);
  if (!entries.ok()) return failure(entries.error());
  json::array data;
  for (const AuditEntry& entry : *entries) {
    auto detail = parse_object(entry.detail);
    data.push_back(json::object{{"at", entry.at_unix_s},
                                {"actor", entry.actor},
                                {"action", entry.action},
                                {"subject", entry.subject},
                                {"detail", detail.ok() ? *detail : json::object()}});
  }
  return answer(list_of(std::move(data)));
}

}  // namespace spillway::gateway
