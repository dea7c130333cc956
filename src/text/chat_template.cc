#include "text/chat_template.h"

#include "text/jinja_interpreter.h"
#include "text/jinja_parser.h"

namespace spillway::text {

namespace {

constexpr size_t kSourceMax = size_t(1) << 20;

Error located(const jinja::Failure& failure) {
  std::string message = failure.what();
  if (failure.line > 0) {
    message = "line " + std::to_string(failure.line) + ", column " + std::to_string(failure.column) + ": " + message;
  }
  return invalid(std::move(message)).in("chat template");
}

class JinjaTemplate final : public ChatTemplate {
 public:
  explicit JinjaTemplate(jinja::Body body) : body_(std::move(body)) {}

  Result<std::string> render(const boost::json::object& variables) const override {
    try {
      return jinja::Interpreter(variables).run(body_);
    } catch (const jinja::Failure& failure) {
      return located(failure);
    }
  }

 private:
  jinja::Body body_;
};

}  // namespace

Result<std::unique_ptr<ChatTemplate>> ChatTemplate::parse(std::string_view source) {
  if (source.size() > kSourceMax) {
    return invalid("chat template: expected at most 1 MiB, found " + std::to_string(source.size()) + " bytes");
  }
  try {
    return std::unique_ptr<ChatTemplate>(std::make_unique<JinjaTemplate>(jinja::TemplateParser(source).parse()));
  } catch (const jinja::Failure& failure) {
    return located(failure);
  }
}

}  // namespace spillway::text
