#include "text/tool_call_scan.h"

#include <boost/json/parse.hpp>
#include <boost/json/value.hpp>

namespace spillway::text {

namespace {
bool is_white(char c) { return c == ' ' || c == '\n' || c == '\r' || c == '\t'; }

// The text of a JSON string literal; empty when it is none.
std::string decoded(const std::string& literal) {
  boost::system::error_code failed;
  const boost::json::value value = boost::json::parse(literal, failed);
  return !failed && value.is_string() ? std::string(value.get_string()) : std::string();
}
}  // namespace

bool ToolCallScan::expected_key() const {
  return key_ == "name" || key_ == "arguments" || key_ == "parameters" || key_ == "type" || key_ == "id";
}

ToolCallScan::Step ToolCallScan::end_of_value() {
  capturing_ = false;
  if (streaming_) {
    streaming_ = false;
    return Step::kMore;
  }
  if (key_ == "name" && name_.empty()) {
    name_ = decoded(value_);
    if (name_.empty() || name_.size() > kNameMax) return Step::kBad;
    if (have_arguments_) announced_ = true;
  } else if ((key_ == "arguments" || key_ == "parameters") && !have_arguments_) {
    have_arguments_ = true;
    arguments_ = value_[0] == '"' ? decoded(value_) : value_ == "null" ? "{}" : value_;
    if (value_[0] != '"' && value_[0] != '{' && value_ != "null") return Step::kBad;
    if (!name_.empty()) announced_ = true;
  }
  value_.clear();
  return Step::kMore;
}

ToolCallScan::Step ToolCallScan::feed(char c) {
  const bool starts_value = json_.depth() == 1 && json_.expects_value() && !is_white(c);
  const bool was_in_key = json_.depth() == 1 && json_.in_key();
  if (json_.depth() == 0 && c != '{' && !is_white(c)) return Step::kBad;
  if (!json_.feed(c)) return Step::kBad;
  if (was_in_key) {
    if (json_.after_key()) {
      if (!expected_key()) return Step::kBad;
    } else if ((key_ += c).size() > kNameMax) {
      return Step::kBad;
    }
    return Step::kMore;
  }
  if (json_.depth() == 1 && json_.in_key()) key_.clear();
  if (starts_value) {
    capturing_ = true;
    value_.clear();
    streaming_ = (key_ == "arguments" || key_ == "parameters") && !name_.empty() && !have_arguments_ && c == '{';
    if (streaming_) {
      have_arguments_ = true;
      announced_ = true;
    }
  }
  if (capturing_) {
    const bool container_or_string =
        streaming_ || value_.empty() || value_[0] == '{' || value_[0] == '[' || value_[0] == '"';
    const bool ended =
        (json_.depth() == 1 && json_.after_value()) || json_.depth() == 0 ||
        (!container_or_string && json_.depth() == 1 && !json_.after_value() && (c == ',' || is_white(c)));
    if (!ended || container_or_string) (streaming_ ? arguments_ : value_) += c;
    if (ended && end_of_value() == Step::kBad) return Step::kBad;
  }
  if (!json_.done()) return Step::kMore;
  if (name_.empty()) return Step::kBad;
  if (!have_arguments_) {
    have_arguments_ = true;
    arguments_ = "{}";
    announced_ = true;
  }
  return Step::kDone;
}

}  // namespace spillway::text
