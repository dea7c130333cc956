// ToolCallScan: follows one {"name": ..., "arguments": {...}} object (or "parameters") byte by byte and gives out the
// arguments as they come. One a call; not thread-safe.
#pragma once

#include <string>
#include <utility>

#include "text/json_scan.h"

namespace spillway::text {

class ToolCallScan {
 public:
  enum class Step { kMore, kDone, kBad };

  Step feed(char c);

  bool named() const { return announced_; }  // the name is known and the arguments have begun
  const std::string& name() const { return name_; }
  std::string take_arguments() { return std::exchange(arguments_, {}); }  // what came since the last take, once named

 private:
  static constexpr size_t kNameMax = 256;

  Step end_of_value();
  bool expected_key() const;

  JsonScan json_;
  std::string key_;
  std::string value_;  // the raw text of the value at depth 1, unless it streams
  std::string name_;
  std::string arguments_;
  bool capturing_ = false;
  bool have_arguments_ = false;
  bool announced_ = false;
  bool streaming_ = false;  // value bytes go straight to arguments_
};

}  // namespace spillway::text
