// PolicyOptions: reads the options of one policy as configuration gives them, each with its bounds, and refuses those
// nobody read. Used while parsing only.
#pragma once

#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "gateway/policy.h"

namespace spillway::gateway {

class PolicyOptions {
 public:
  explicit PolicyOptions(const PolicySpec& spec) : spec_(spec) {}

  // The option, or the fallback where it is not given. The first error is kept for done().
  double number(std::string_view name, double fallback, double min, double max);
  int64_t integer(std::string_view name, int64_t fallback, int64_t min, int64_t max);
  bool boolean(std::string_view name, bool fallback);
  std::string text(std::string_view name, std::string_view fallback = "");
  std::string choice(std::string_view name, std::string_view fallback, std::string_view choices);  // "a|b"
  std::vector<std::string> list(std::string_view name);                                            // split at '|'
  bool given(std::string_view name) const { return spec_.options.count(std::string(name)) > 0; }
  void fail(std::string_view name, std::string_view expected);

  // The first problem, or an option that no one asked for.
  Status done() const;

 private:
  const std::string* find(std::string_view name);

  const PolicySpec& spec_;
  std::set<std::string> read_;
  std::string error_;
};

}  // namespace spillway::gateway
