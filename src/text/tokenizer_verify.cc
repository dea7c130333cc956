#include "text/tokenizer_verify.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <boost/json/parse.hpp>

#include "text/tokenizer.h"
#include "text/tokenizer_json.h"

namespace spillway::text {

namespace json = boost::json;

namespace {

using Ids = std::vector<int32_t>;

class Checker {
 public:
  Checker(const JsonAt& at, TokenizerReport::Case& result) : at_(at), result_(result) {}

  Status equal(std::string_view key, const Ids& found) {
    const json::value* value = at_.find(key);
    if (!value) return {};
    if (!value->is_array()) return at_.wrong(key, "an array of ids");
    Ids expected;
    for (const json::value& id : value->get_array()) {
      if (!id.is_int64() || id.get_int64() < 0 || id.get_int64() > INT32_MAX) return at_.wrong(key, "an array of ids");
      expected.push_back(int32_t(id.get_int64()));
    }
    report(key, expected == found, [&] { return fmt::format("expected {}, found {}", expected, found); });
    return {};
  }

  Status equal(std::string_view key, const std::string& found) {
    if (!at_.find(key)) return {};
    SW_ASSIGN(const std::string expected, at_.string(key));
    report(key, expected == found, [&] { return fmt::format("expected \"{}\", found \"{}\"", expected, found); });
    return {};
  }

  int checks() const { return checks_; }

 private:
  template <class Message>
  void report(std::string_view key, bool ok, Message message) {
    ++checks_;
    if (!ok) result_.failures.push_back(fmt::format("{}: {}", key, message()));
  }

  const JsonAt& at_;
  TokenizerReport::Case& result_;
  int checks_ = 0;
};

std::string streamed(const Tokenizer& tokenizer, const Ids& ids) {
  Detokenizer detokenizer(tokenizer, false);
  std::string out;
  for (const int32_t id : ids) out += detokenizer.push(id);
  return out + detokenizer.finish();
}

Status check_case(const Tokenizer& tokenizer, const JsonAt& at, TokenizerReport& report) {
  TokenizerReport::Case result;
  SW_ASSIGN(result.text, at.string("text"));
  SW_ASSIGN(const auto second, at.optional_string("second"));
  Checker checker(at, result);
  const Encoding plain = tokenizer.encode(result.text, {.add_special_tokens = false});
  const Encoding pair = tokenizer.encode_pair(result.text, second.value_or("a pair"));
  SW_TRY(checker.equal("ids", plain.ids));
  SW_TRY(checker.equal("ids_special", tokenizer.encode(result.text).ids));
  SW_TRY(checker.equal("pair", pair.ids));
  SW_TRY(checker.equal("pair_types", pair.type_ids));
  SW_TRY(checker.equal("decoded", tokenizer.decode(plain.ids, false)));
  SW_TRY(checker.equal("decoded", streamed(tokenizer, plain.ids)));
  report.checks += checker.checks();
  report.cases.push_back(std::move(result));
  return {};
}

}  // namespace

int TokenizerReport::failed_cases() const {
  return int(std::count_if(cases.begin(), cases.end(), [](const Case& one) { return !one.failures.empty(); }));
}

Result<TokenizerReport> verify_tokenizer(std::string_view tokenizer_json, std::string_view expected_json) {
  auto tokenizer = Tokenizer::parse(tokenizer_json);
  if (!tokenizer.ok()) return std::move(tokenizer).error().in("tokenizer");
  boost::system::error_code error;
  const json::value expected = json::parse(expected_json, error);
  if (error || !expected.is_array()) return corrupt("expected: expected a JSON array of cases");
  TokenizerReport report;
  for (const json::value& item : expected.get_array()) {
    SW_ASSIGN(const JsonAt at, JsonAt::make(item, fmt::format("$[{}]", report.cases.size())));
    SW_TRY(check_case(**tokenizer, at, report));
  }
  return report;
}

}  // namespace spillway::text
