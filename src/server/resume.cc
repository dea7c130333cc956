#include "server/resume.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <boost/json/object.hpp>
#include <boost/json/parse.hpp>

namespace spillway::server {
namespace {

namespace json = boost::json;

constexpr size_t kTokensMax = 1 << 20;

api::ApiError wrong(std::string message) {
  return {api::ErrorKind::kInvalidFormat, std::move(message), std::string(kResumeMember), ""};
}

std::optional<int64_t> integer_of(const json::object& object, const char* name) {
  const json::value* value = object.if_contains(name);
  if (value == nullptr) return std::nullopt;
  if (value->is_int64()) return value->get_int64();
  if (value->is_uint64()) return int64_t(value->get_uint64());
  return std::nullopt;
}

}  // namespace

api::Parsed<std::optional<ResumePoint>> parse_resume(std::string_view body) {
  const std::optional<ResumePoint> none;
  if (body.find(kResumeMember) == body.npos) return none;
  boost::system::error_code failed;
  const json::value value = json::parse(body, failed);
  if (failed || !value.is_object()) return none;  // the request's own parser says what is wrong
  const json::value* member = value.get_object().if_contains(kResumeMember);
  if (member == nullptr) return none;
  const json::object* object = member->if_object();
  if (object == nullptr) return wrong("Expected an object.");
  ResumePoint point;
  const auto seed = integer_of(*object, "seed"), created = integer_of(*object, "created");
  const json::value* id = object->if_contains("id");
  const json::value* tokens = object->if_contains("tokens");
  if (!seed || !created || id == nullptr || !id->is_string() || tokens == nullptr || !tokens->is_array()) {
    return wrong("Expected id, created, seed and tokens.");
  }
  point.id = id->get_string();
  point.created = *created;
  point.seed = uint64_t(*seed);
  if (point.id.empty() || point.id.size() > 128) return wrong("Expected an id of 1 to 128 characters.");
  if (tokens->get_array().size() > kTokensMax) return wrong(fmt::format("Expected at most {} tokens.", kTokensMax));
  for (const json::value& token : tokens->get_array()) {
    if (!token.is_int64() || token.get_int64() < 0 || token.get_int64() > INT32_MAX)
      return wrong("Expected tokens as ids.");
    point.tokens.push_back(int32_t(token.get_int64()));
  }
  return std::optional<ResumePoint>(std::move(point));
}

std::string first_marker(const ResumePoint& point) {
  return fmt::format(R"(spillway {{"id":"{}","created":{},"seed":{},"tokens":[]}})", point.id, point.created,
                     int64_t(point.seed));
}

std::string marker(const std::vector<int32_t>& tokens) {
  return fmt::format(R"(spillway {{"tokens":[{}]}})", fmt::join(tokens, ","));
}

}  // namespace spillway::server
