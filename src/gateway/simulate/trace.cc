#include "gateway/simulate/trace.h"

#include <fmt/format.h>

#include <array>
#include <charconv>
#include <fstream>
#include <sstream>

namespace spillway::gateway {
namespace {

constexpr std::string_view kHeader = "arrival_s,prompt_tokens,output_tokens,prefix_id,prefix_tokens,priority,tenant";
constexpr size_t kFields = 7;
constexpr size_t kRequestsMax = 2'000'000;

std::string_view next_line(std::string_view& rest) {
  const size_t end = rest.find('\n');
  std::string_view line = rest.substr(0, end);
  rest.remove_prefix(end == std::string_view::npos ? rest.size() : end + 1);
  if (line.ends_with('\r')) line.remove_suffix(1);
  return line;
}

template <class T>
Result<T> number(std::string_view name, std::string_view text, T min, T max) {
  T value{};
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size() || !(value >= min && value <= max))
    return invalid(
        fmt::format("{}: expected a number from {} to {}, found \"{}\"", name, min, max, text.substr(0, 40)));
  return value;
}

Result<TraceRequest> parse_row(std::string_view line) {
  std::array<std::string_view, kFields> fields;
  size_t count = 0;
  for (std::string_view rest = line;; ++count) {
    const size_t comma = rest.find(',');
    if (count < kFields) fields[count] = rest.substr(0, comma);
    if (comma == std::string_view::npos) break;
    rest.remove_prefix(comma + 1);
  }
  if (++count != kFields) return invalid(fmt::format("expected {} fields, found {}", kFields, count));
  constexpr int64_t kTokensMax = 10'000'000;
  TraceRequest request;
  SW_ASSIGN(request.arrival_s, number<double>("arrival_s", fields[0], 0, 1e9));
  SW_ASSIGN(request.prompt_tokens, number<int64_t>("prompt_tokens", fields[1], 1, kTokensMax));
  SW_ASSIGN(request.output_tokens, number<int64_t>("output_tokens", fields[2], 1, kTokensMax));
  SW_ASSIGN(request.prefix_id, number<int64_t>("prefix_id", fields[3], -1, INT64_MAX));
  SW_ASSIGN(request.prefix_tokens, number<int64_t>("prefix_tokens", fields[4], 0, request.prompt_tokens));
  SW_ASSIGN(request.priority, number<int>("priority", fields[5], -1000, 1000));
  request.tenant = fields[6];
  return request;
}

}  // namespace

Result<std::vector<TraceRequest>> parse_trace(std::string_view csv) {
  std::vector<TraceRequest> requests;
  const std::string_view header = next_line(csv);
  if (header != kHeader)
    return invalid(fmt::format("line 1: expected \"{}\", found \"{}\"", kHeader, header.substr(0, 120)));
  for (int line = 2; !csv.empty(); ++line) {
    const std::string_view text = next_line(csv);
    if (text.empty()) continue;
    auto request = parse_row(text);
    if (!request.ok()) return std::move(request).error().in(fmt::format("line {}", line));
    if (!requests.empty() && request->arrival_s < requests.back().arrival_s)
      return invalid(fmt::format("line {}: arrival_s: expected at least {}, found {}", line, requests.back().arrival_s,
                                 request->arrival_s));
    requests.push_back(std::move(*request));
    if (requests.size() > kRequestsMax) return invalid(fmt::format("expected at most {} requests", kRequestsMax));
  }
  if (requests.empty()) return invalid("expected at least one request, found none");
  return requests;
}

Result<std::vector<TraceRequest>> load_trace(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  if (!in) return not_found(path + ": expected a readable file");
  std::ostringstream text;
  text << in.rdbuf();
  auto trace = parse_trace(text.str());
  if (!trace.ok()) return std::move(trace).error().in(path);
  return trace;
}

}  // namespace spillway::gateway
