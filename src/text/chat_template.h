// ChatTemplate: the Jinja template of a checkpoint (tokenizer_config.json "chat_template"), rendered as transformers'
// apply_chat_template renders it. Immutable after parsing; any thread.
#pragma once

#include <boost/json/object.hpp>
#include <boost/json/value.hpp>
#include <memory>
#include <string>
#include <string_view>

#include "base/result.h"

namespace spillway::text {

class ChatTemplate {
 public:
  // Errors give line and column and what was expected.
  static Result<std::unique_ptr<ChatTemplate>> parse(std::string_view source);
  virtual ~ChatTemplate() = default;

  // variables: messages, tools, add_generation_prompt, bos_token, eos_token, enable_thinking, ... as JSON. Rendering is
  // bounded in steps and output size; raise_exception() and undefined lookups are errors with their message.
  virtual Result<std::string> render(const boost::json::object& variables) const = 0;
};

}  // namespace spillway::text
