#include <boost/json.hpp>

#include "apps/load/load_generator.h"

namespace spillway::apps {
namespace {

namespace json = boost::json;

constexpr size_t kRequestsMax = 10'000'000;
constexpr int64_t kTokensMax = 1'000'000;

Result<LoadRequest> parse_line(std::string_view line) {
  json::error_code failed;
  const json::value value = json::parse(line, failed);
  if (failed || !value.is_object()) return corrupt("expected a JSON object, found none");
  const json::object& object = value.get_object();
  const json::value* at = object.if_contains("at_s");
  const json::value* prompt = object.if_contains("prompt");
  const json::value* tokens = object.if_contains("max_tokens");
  LoadRequest request;
  if (!at || !at->is_number() || !((request.at_s = at->to_number<double>()) >= 0)) {
    return invalid("expected \"at_s\": seconds of zero or more");
  }
  if (!prompt || !prompt->is_string()) return invalid("expected \"prompt\": a text");
  if (!tokens || !tokens->is_int64() || tokens->get_int64() < 1 || tokens->get_int64() > kTokensMax) {
    return invalid("expected \"max_tokens\": a whole number of 1 or more");
  }
  request.prompt = prompt->get_string();
  request.max_tokens = int(tokens->get_int64());
  return request;
}

}  // namespace

Result<std::vector<LoadRequest>> parse_trace(std::string_view text) {
  std::vector<LoadRequest> trace;
  for (size_t number = 1; !text.empty(); ++number) {
    const size_t end = std::min(text.find('\n'), text.size());
    const std::string_view line = text.substr(0, end);
    text.remove_prefix(std::min(end + 1, text.size()));
    if (line.find_first_not_of(" \t\r") == std::string_view::npos) continue;
    auto request = parse_line(line);
    const std::string where = "trace line " + std::to_string(number);
    if (!request.ok()) return std::move(request).error().in(where);
    if (!trace.empty() && request->at_s < trace.back().at_s) {
      return invalid(where + ": expected at_s to rise, found it earlier than the line before");
    }
    if (trace.size() >= kRequestsMax) return invalid(where + ": expected at most 10,000,000 requests");
    trace.push_back(std::move(request).value());
  }
  if (trace.empty()) return invalid("trace: expected a request, found none");
  return trace;
}

}  // namespace spillway::apps
