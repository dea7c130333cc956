#include "gateway/body_scan.h"

#include "gateway/json_cursor.h"

namespace spillway::gateway {
namespace {

using Kind = JsonCursor::Kind;

class Scanner {
 public:
  explicit Scanner(std::string_view body) : body_(body), cursor_(body) {}

  Result<BodyScan> scan() {
    if (!cursor_.enter_object()) return invalid("expected a JSON object as the body");
    std::string_view key;
    while (cursor_.next_member(key)) {
      scan_.empty = false;
      SW_TRY(member(key));
    }
    scan_.end = cursor_.position() - 1;
    if (!cursor_.finished()) return invalid("the body is not well-formed JSON");
    return scan_;
  }

 private:
  Span span_of(std::string_view part) const { return {size_t(part.data() - body_.data()), part.size()}; }

  Status member(std::string_view key) {
    if (key == "model") return model();
    if (key == "stream") return stream();
    if (key == "messages") return messages();
    if (key == "stream_options") {
      stream_options();
    } else if (key == "max_tokens" || key == "max_completion_tokens") {
      if (const auto value = integer()) scan_.max_tokens = value;
    } else if (key == "n") {
      scan_.n = integer().value_or(1);
    } else if (key == "seed") {
      scan_.seed = integer();
    } else if (key == "logprobs" || key == "top_logprobs") {
      const Kind kind = cursor_.peek();
      scan_.logprobs |= kind == Kind::kTrue || kind == Kind::kNumber;
      cursor_.skip();
    } else if (key == "tools" || key == "functions") {
      const std::string_view value = cursor_.value();
      scan_.tools = value.size() > 2 && value[0] == '[';
    } else if (key == "user") {
      const auto text = cursor_.string();
      if (text)
        scan_.user = span_of(*text);
      else
        cursor_.skip();
    } else if (key == "prompt" || key == "input" || key == "system" || key == "documents" || key == "query") {
      texts("");
    } else {
      cursor_.skip();
    }
    return {};
  }

  std::optional<int64_t> integer() {
    if (cursor_.peek() == Kind::kNumber) return cursor_.integer();
    cursor_.skip();
    return std::nullopt;
  }

  Status model() {
    const auto text = cursor_.string();
    if (!text) return invalid("model: expected a string");
    if (scan_.model.size > 0) return invalid("model: given twice");
    if (text->empty() || text->size() > 256) return invalid("model: expected 1 to 256 characters");
    scan_.model = span_of(*text);
    return {};
  }

  Status stream() {
    if (cursor_.peek() == Kind::kNull) {
      cursor_.skip();
      return {};
    }
    const auto value = cursor_.boolean();
    if (!value) return invalid("stream: expected true or false");
    scan_.stream = *value;
    return {};
  }

  void stream_options() {
    const std::string_view value = cursor_.value();
    if (!value.starts_with('{') && value != "null") return;
    scan_.stream_options = span_of(value);
    if (value[0] != '{') return;
    JsonCursor inner(value);
    std::string_view key;
    inner.enter_object();
    while (inner.next_member(key)) {
      if (key == "include_usage") scan_.include_usage = inner.peek() == Kind::kTrue;
      inner.skip();
    }
  }

  Status messages() {
    if (cursor_.peek() != Kind::kArray) return invalid("messages: expected a list");
    cursor_.peek();
    const size_t begin = body_.find('[', cursor_.position());
    texts("");
    if (!cursor_.failed()) scan_.messages = {begin, cursor_.position() - begin};
    return {};
  }

  // Adds up strings; looks for parts that are images by their "type".
  void texts(std::string_view key) {
    switch (cursor_.peek()) {
      case Kind::kString: {
        const std::string_view text = cursor_.string().value_or("");
        if (key == "type") {
          scan_.images |= text == "image_url" || text == "image" || text == "input_image";
        } else if (key != "role" && key != "url" && key != "data" && key != "id") {
          scan_.text_bytes += int64_t(text.size());
        }
        return;
      }
      case Kind::kObject: {
        std::string_view name;
        if (!cursor_.enter_object()) return;
        while (cursor_.next_member(name)) texts(name);
        return;
      }
      case Kind::kArray:
        if (!cursor_.enter_array()) return;
        while (cursor_.next_element()) texts(key);
        return;
      default:
        cursor_.skip();
    }
  }

  std::string_view body_;
  JsonCursor cursor_;
  BodyScan scan_;
};

}  // namespace

Result<BodyScan> scan_body(std::string_view body) { return Scanner(body).scan(); }

std::string spliced(std::string_view body, const std::vector<Splice>& splices) {
  size_t more = 0;
  for (const Splice& splice : splices) more += splice.text.size();
  std::string out;
  out.reserve(body.size() + more);
  size_t at = 0;
  for (const Splice& splice : splices) {
    out.append(body.substr(at, splice.where.begin - at)).append(splice.text);
    at = splice.where.begin + splice.where.size;
  }
  return out.append(body.substr(at));
}

std::optional<Splice> asking_for_usage(std::string_view body, const BodyScan& scan) {
  if (!scan.stream || scan.include_usage) return std::nullopt;
  const std::string_view given = scan.stream_options.of(body);
  if (given.empty()) return member(scan, "stream_options", R"({"include_usage":true})");
  if (given[0] == '{' && given.find("include_usage") == given.npos) {
    const bool bare = given.find('"') == given.npos;
    return Splice{{scan.stream_options.begin + 1, 0}, bare ? R"("include_usage":true)" : R"("include_usage":true,)"};
  }
  const bool alone = given.find(',') == given.npos;  // "include_usage": false
  if (!alone) return std::nullopt;
  return Splice{scan.stream_options, R"({"include_usage":true})"};
}

Splice member(const BodyScan& scan, std::string_view name, std::string_view json) {
  std::string text = scan.empty ? "\"" : ",\"";
  text.append(name).append("\":").append(json);
  return {{scan.end, 0}, std::move(text)};
}

}  // namespace spillway::gateway
