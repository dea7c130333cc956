// GrammarCache: compiled grammars of recent requests. Equal requests share one, and with it the token masks it has
// found. Owned by the served model; any thread.
#pragma once

#include <boost/json/value.hpp>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <unordered_map>

#include "api/chat.h"
#include "base/result.h"
#include "text/grammar.h"

namespace spillway::server {

class GrammarCache {
 public:
  using Compiled = Result<std::shared_ptr<const text::Grammar>>;

  // The grammar of a response format other than text. in_reasoning: it begins after </think>.
  Compiled format(const api::ResponseFormat& format, bool in_reasoning);

  // At least one call of the request's tools, for tool_choice required or a function.
  Compiled tools(const api::ChatRequest& request, text::ToolStyle style, bool in_reasoning);

 private:
  static constexpr size_t kGrammarsMax = 64;
  template <class Make>
  Compiled get(const std::string& key, bool in_reasoning, const Make& make);

  std::mutex mutex_;
  std::unordered_map<std::string, std::shared_ptr<const text::Grammar>> grammars_;
};

}  // namespace spillway::server
