#include "text/tokenizer_template.h"

#include <fmt/format.h>

#include "text/tokenizer_json.h"
#include "text/tokenizer_vocab.h"

namespace spillway::text {

namespace json = boost::json;

PostProcessor::PostProcessor() : single_{{Part::kFirst, 0}}, pair_{{Part::kFirst, 0}, {Part::kSecond, 1}} {}

namespace {

constexpr int64_t kTypeIdMax = 255;

Result<std::vector<int32_t>> ids_of_special(const JsonAt& at, const std::string& name) {
  SW_ASSIGN(const JsonAt table, at.child("special_tokens"));
  SW_ASSIGN(const JsonAt entry, table.child(name));
  const json::value* ids = entry.find("ids");
  if (!ids || !ids->is_array()) return entry.wrong("ids", "an array of ids");
  std::vector<int32_t> out;
  for (const json::value& id : ids->get_array()) {
    if (!id.is_int64() || id.get_int64() < 0 || id.get_int64() >= kTokenIdLimit)
      return entry.wrong("ids", "an array of ids");
    out.push_back(int32_t(id.get_int64()));
  }
  return out;
}

// ["[SEP]", 102]
Result<int32_t> parse_named_id(const JsonAt& at, std::string_view key) {
  const json::value* value = at.find(key);
  const json::array* pair = value ? value->if_array() : nullptr;
  if (!pair || pair->size() != 2 || !(*pair)[1].is_int64()) return at.wrong(key, "[token, id]");
  const int64_t id = (*pair)[1].get_int64();
  if (id < 0 || id >= kTokenIdLimit) return at.wrong(key, "[token, id]");
  return int32_t(id);
}

}  // namespace

Result<std::vector<PostProcessor::Part>> PostProcessor::parse_parts(const JsonAt& at, std::string_view key) {
  SW_ASSIGN(const std::vector<JsonAt> items, at.children(key));
  std::vector<Part> parts;
  for (const JsonAt& item : items) {
    const bool sequence = item.find("Sequence") != nullptr;
    SW_ASSIGN(const JsonAt body, item.child(sequence ? "Sequence" : "SpecialToken"));
    SW_ASSIGN(const std::string id, body.string("id"));
    SW_ASSIGN(const int64_t type_id, body.integer("type_id", 0, kTypeIdMax));
    if (sequence) {
      if (id != "A" && id != "B") return body.wrong("id", "A or B");
      if (id == "B" && key == "single") return body.wrong("id", "A");
      parts.push_back({id == "A" ? Part::kFirst : Part::kSecond, int32_t(type_id)});
      continue;
    }
    SW_ASSIGN(const std::vector<int32_t> tokens, ids_of_special(at, id));
    for (const int32_t token : tokens) parts.push_back({Part::kToken, int32_t(type_id), token});
  }
  return parts;
}

Result<PostProcessor> PostProcessor::parse_pair_of_tokens(const JsonAt& at, bool roberta) {
  SW_ASSIGN(const int32_t cls, parse_named_id(at, "cls"));
  SW_ASSIGN(const int32_t sep, parse_named_id(at, "sep"));
  PostProcessor out;
  const int32_t second = roberta ? 0 : 1;
  out.single_ = {{Part::kToken, 0, cls}, {Part::kFirst, 0}, {Part::kToken, 0, sep}};
  out.pair_ = out.single_;
  if (roberta) out.pair_.push_back({Part::kToken, 0, sep});
  out.pair_.push_back({Part::kSecond, second});
  out.pair_.push_back({Part::kToken, second, sep});
  out.plain_ = false;
  return out;
}

Result<PostProcessor> PostProcessor::parse_sequence(const JsonAt& at) {
  SW_ASSIGN(const std::vector<JsonAt> children, at.children("processors"));
  PostProcessor out;
  for (const JsonAt& child : children) {
    SW_ASSIGN(PostProcessor step, parse(child));
    if (step.plain_) continue;
    if (!out.plain_) return unsupported("a second post-processor that adds tokens at " + child.path());
    out = std::move(step);
  }
  return out;
}

Result<PostProcessor> PostProcessor::parse(const JsonAt& at) {
  SW_ASSIGN(const std::string type, at.string("type"));
  if (type == "ByteLevel") return PostProcessor();
  if (type == "Sequence") return parse_sequence(at);
  if (type == "BertProcessing") return parse_pair_of_tokens(at, false);
  if (type == "RobertaProcessing") return parse_pair_of_tokens(at, true);
  if (type == "TemplateProcessing") {
    PostProcessor out;
    SW_ASSIGN(out.single_, parse_parts(at, "single"));
    SW_ASSIGN(out.pair_, parse_parts(at, "pair"));
    out.plain_ = false;
    return out;
  }
  return unsupported(at.wrong("type",
                              "a post-processor of TemplateProcessing, BertProcessing, RobertaProcessing, ByteLevel, "
                              "Sequence")
                         .message);
}

Encoding PostProcessor::single(std::vector<int32_t> ids, bool add_special_tokens) const {
  Encoding out;
  if (plain_) {
    out.ids = std::move(ids);
    out.type_ids.assign(out.ids.size(), 0);
    return out;
  }
  for (const Part& part : single_) {
    if (part.kind == Part::kFirst) {
      out.ids.insert(out.ids.end(), ids.begin(), ids.end());
    } else if (add_special_tokens) {
      out.ids.push_back(part.token);
    }
    out.type_ids.resize(out.ids.size(), part.type_id);
  }
  return out;
}

Encoding PostProcessor::pair(const std::vector<int32_t>& first, const std::vector<int32_t>& second,
                             bool add_special_tokens) const {
  Encoding out;
  for (const Part& part : pair_) {
    if (part.kind == Part::kToken) {
      if (add_special_tokens) out.ids.push_back(part.token);
    } else {
      const auto& ids = part.kind == Part::kFirst ? first : second;
      out.ids.insert(out.ids.end(), ids.begin(), ids.end());
    }
    out.type_ids.resize(out.ids.size(), part.type_id);
  }
  return out;
}

}  // namespace spillway::text
