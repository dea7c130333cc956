#include "api/request_parts.h"

#include <fmt/format.h>

#include <algorithm>
#include <boost/json/serialize.hpp>
#include <charconv>

namespace spillway::api {
namespace json = boost::json;
namespace {

void read_stop(FieldReader& reader, std::vector<std::string>& out) {
  const json::value* value = reader.find("stop");
  if (!value) return;
  if (value->is_string()) {
    out.emplace_back(value->get_string());
  } else if (value->is_array()) {
    for (const json::value& item : value->get_array()) {
      if (!item.is_string()) {
        return reader.fail(ErrorKind::kInvalidFormat, "stop", "expected strings, found " + describe(item));
      }
      out.emplace_back(item.get_string());
    }
  } else {
    return reader.fail(ErrorKind::kInvalidFormat, "stop",
                       "expected a string or an array of strings, found " + describe(*value));
  }
  if (out.size() > kStopsMax) {
    return reader.fail(ErrorKind::kInvalidParameters, "stop",
                       fmt::format("expected at most {} strings, found {}", kStopsMax, out.size()));
  }
  for (const std::string& stop : out) {
    if (stop.empty()) return reader.fail(ErrorKind::kInvalidParameters, "stop", "expected strings that are not empty");
  }
}

void read_logit_bias(FieldReader& reader, std::vector<std::pair<int32_t, float>>& out) {
  const json::object* biases = reader.object("logit_bias");
  if (!biases) return;
  for (const auto& field : *biases) {
    const std::string_view key = field.key();
    int32_t token = 0;
    const auto [end, failed] = std::from_chars(key.data(), key.data() + key.size(), token);
    if (failed != std::errc() || end != key.data() + key.size() || token < 0) {
      return reader.fail(ErrorKind::kInvalidFormat, "logit_bias",
                         fmt::format("expected token ids as keys, found '{}'", key));
    }
    if (!field.value().is_number()) {
      return reader.fail(ErrorKind::kInvalidFormat, "logit_bias", "expected numbers, found " + describe(field.value()));
    }
    const double bias = field.value().to_number<double>();
    if (!(bias >= -100 && bias <= 100)) {
      return reader.fail(ErrorKind::kInvalidParameters, "logit_bias",
                         "expected numbers from -100 to 100, found " + describe(field.value()));
    }
    out.emplace_back(token, static_cast<float>(bias));
  }
}

// The named tools stay; which of them is called is left to the model.
void read_allowed_tools(FieldReader& choice, std::optional<ApiError>& failure, std::vector<Tool>& tools,
                        ToolChoice& out) {
  const json::object* allowed = choice.object("allowed_tools");
  if (!allowed) return choice.fail(ErrorKind::kInvalidFormat, "allowed_tools", "expected an object, found nothing");
  FieldReader fields(*allowed, "tool_choice.allowed_tools", failure);
  size_t mode = 0;
  fields.choice("mode", {"auto", "required"}, mode);
  out.kind = mode == 0 ? ToolChoice::Kind::kAuto : ToolChoice::Kind::kRequired;
  const json::array* items = fields.array("tools");
  if (!items || items->empty()) {
    return fields.fail(ErrorKind::kInvalidFormat, "tools", "expected an array of at least one tool");
  }
  std::vector<Tool> kept;
  for (const json::value& item : *items) {
    const json::value* function = item.is_object() ? item.get_object().if_contains("function") : nullptr;
    const json::value* name = function && function->is_object() ? function->get_object().if_contains("name") : nullptr;
    if (!name || !name->is_string()) {
      return fields.fail(ErrorKind::kInvalidFormat, "tools", "expected functions with a name, found " + describe(item));
    }
    const auto tool = std::ranges::find(tools, std::string_view(name->get_string()), &Tool::name);
    if (tool == tools.end()) {
      return fields.fail(ErrorKind::kInvalidParameters, "tools", describe(*name) + " is not one of the tools");
    }
    kept.push_back(*tool);
  }
  tools = std::move(kept);
}

}  // namespace

void read_ids(FieldReader& reader, std::string_view key, std::vector<int32_t>& out) {
  const json::array* items = reader.array(key);
  if (!items) return;
  out.reserve(items->size());
  for (const json::value& item : *items) {
    boost::system::error_code inexact;
    const int64_t id = item.is_number() ? item.to_number<int64_t>(inexact) : -1;
    if (!item.is_number() || inexact || id < 0 || id > INT32_MAX) {
      return reader.fail(ErrorKind::kInvalidFormat, key, "expected token ids, found " + describe(item));
    }
    out.push_back(static_cast<int32_t>(id));
  }
}

void read_sampling(FieldReader& reader, Sampling& out, int max_tokens_min) {
  reader.number("temperature", 0, 2, out.temperature);
  reader.number_above("top_p", 0, 1, out.top_p);
  reader.integer("top_k", -1, kTokensMax, out.top_k);
  if (out.top_k == -1) out.top_k = 0;
  reader.number("min_p", 0, 1, out.min_p);
  reader.number("frequency_penalty", -2, 2, out.frequency_penalty);
  reader.number("presence_penalty", -2, 2, out.presence_penalty);
  reader.number_above("repetition_penalty", 0, 2, out.repetition_penalty);
  reader.integer("seed", INT64_MIN, INT64_MAX, out.seed);
  reader.integer("max_tokens", max_tokens_min, kTokensMax, out.max_tokens);
  reader.integer("max_completion_tokens", max_tokens_min, kTokensMax, out.max_tokens);
  reader.integer("min_tokens", 0, kTokensMax, out.min_tokens);
  reader.boolean("ignore_eos", out.ignore_eos);
  reader.integer("n", 1, kChoicesMax, out.n);
  int best_of = out.n;
  reader.integer("best_of", 1, kChoicesMax, best_of);
  if (best_of != out.n) {
    reader.fail(ErrorKind::kInvalidParameters, "best_of",
                "is not supported unless it equals n; ask for n choices and pick");
  }
  read_stop(reader, out.stop);
  read_ids(reader, "stop_token_ids", out.stop_token_ids);
  read_logit_bias(reader, out.logit_bias);
}

void read_stream(FieldReader& reader, StreamOptions& out) {
  reader.boolean("stream", out.stream);
  const json::object* options = reader.object("stream_options");
  if (!options) return;
  if (!out.stream)
    return reader.fail(ErrorKind::kInvalidParameters, "stream_options", "is only allowed when stream is true");
  const json::value* include = options->if_contains("include_usage");
  if (!include || include->is_null()) return;
  if (!include->is_bool()) {
    return reader.fail(ErrorKind::kInvalidFormat, "stream_options.include_usage",
                       "expected true or false, found " + describe(*include));
  }
  out.include_usage = include->get_bool();
}

// Other servers' names for constrained output. An answer that is not constrained is not what they ask for, so what has
// no like here is refused rather than passed over.
static void read_guided(FieldReader& reader, ResponseFormat& out) {
  for (const char* key :
       {"guided_regex", "guided_choice", "guided_grammar", "structured_outputs", "grammar", "regex", "ebnf"}) {
    if (reader.find(key)) {
      reader.fail(ErrorKind::kInvalidParameters, key,
                  "is not supported; use response_format with a JSON schema (pattern, enum)");
    }
  }
  const json::object* schema = reader.object("guided_json");
  if (!schema) return;
  if (out.kind != ResponseFormat::Kind::kText)
    return reader.fail(ErrorKind::kInvalidParameters, "guided_json", "beside response_format; expected one of them");
  out = {ResponseFormat::Kind::kJsonSchema, *schema};
}

static void read_response_format(FieldReader& reader, ResponseFormat& out) {
  const json::object* format = reader.object("response_format");
  if (!format) return;
  const json::value* type = format->if_contains("type");
  const json::string* name = type ? type->if_string() : nullptr;
  if (name && *name == "text") {
    out.kind = ResponseFormat::Kind::kText;
  } else if (name && *name == "json_object") {
    out.kind = ResponseFormat::Kind::kJsonObject;
  } else if (name && *name == "json_schema") {
    const json::value* holder = format->if_contains("json_schema");
    const json::value* schema = holder && holder->is_object() ? holder->get_object().if_contains("schema") : nullptr;
    if (!schema || (!schema->is_object() && !schema->is_bool())) {
      return reader.fail(ErrorKind::kInvalidFormat, "response_format.json_schema.schema",
                         "expected a JSON schema object");
    }
    out.kind = ResponseFormat::Kind::kJsonSchema;
    out.schema = *schema;
  } else {
    reader.fail(ErrorKind::kInvalidParameters, "response_format.type",
                "expected one of text, json_object, json_schema, found " + (type ? describe(*type) : "nothing"));
  }
}

void read_format(FieldReader& reader, ResponseFormat& out) {
  read_response_format(reader, out);
  read_guided(reader, out);
}

void read_scheduling(FieldReader& reader, RequestPriority& priority, std::optional<int64_t>& deadline_ms) {
  reader.integer("deadline_ms", 0, int64_t{1} << 40, deadline_ms);
  const json::value* value = reader.find("priority");
  if (!value) return;
  if (value->is_number()) {
    const double level = value->to_number<double>();
    priority = level < 0 ? RequestPriority::kLow : level > 0 ? RequestPriority::kHigh : RequestPriority::kNormal;
    return;
  }
  size_t level = 1;
  reader.choice("priority", {"low", "normal", "high"}, level);
  priority = static_cast<RequestPriority>(int(level) - 1);
}

bool is_tool_name(std::string_view name) {
  if (name.empty() || name.size() > 64) return false;
  for (const char c : name) {
    if (!std::isalnum(static_cast<unsigned char>(c)) && c != '_' && c != '-') return false;
  }
  return true;
}

void read_tools(FieldReader& reader, std::optional<ApiError>& failure, std::vector<Tool>& out) {
  const json::array* items = reader.array("tools");
  if (!items) return;
  if (items->size() > kToolsMax) {
    return reader.fail(ErrorKind::kInvalidParameters, "tools",
                       fmt::format("expected at most {}, found {}", kToolsMax, items->size()));
  }
  for (size_t i = 0; i < items->size() && !reader.failed(); ++i) {
    const std::string path = fmt::format("tools[{}]", i);
    const json::value& item = (*items)[i];
    if (!item.is_object())
      return reader.fail(ErrorKind::kInvalidFormat, path, "expected an object, found " + describe(item));
    FieldReader tool_reader(item.get_object(), path, failure);
    std::string type = "function";
    tool_reader.string("type", type);
    if (type != "function") {
      return tool_reader.fail(ErrorKind::kInvalidParameters, "type", "expected 'function', found '" + type + "'");
    }
    const json::object* function = tool_reader.object("function");
    if (!function) return tool_reader.fail(ErrorKind::kInvalidFormat, "function", "expected an object, found nothing");
    FieldReader fields(*function, path + ".function", failure);
    Tool tool;
    fields.string("name", tool.name);
    fields.string("description", tool.description);
    fields.boolean("strict", tool.strict);
    if (const json::object* parameters = fields.object("parameters")) tool.parameters = *parameters;
    if (!fields.failed() && !is_tool_name(tool.name)) {
      fields.fail(ErrorKind::kInvalidParameters, "name",
                  "expected 1 to 64 letters, digits, '_' or '-', found '" + tool.name + "'");
    }
    tool.source = item.get_object();
    out.push_back(std::move(tool));
  }
}

void read_tool_choice(FieldReader& reader, std::optional<ApiError>& failure, std::vector<Tool>& tools,
                      ToolChoice& out) {
  using Kind = ToolChoice::Kind;
  out.kind = tools.empty() ? Kind::kNone : Kind::kAuto;
  const json::value* value = reader.find("tool_choice");
  if (!value) return;
  if (value->is_string()) {
    size_t kind = 0;
    reader.choice("tool_choice", {"none", "auto", "required"}, kind);
    out.kind = static_cast<Kind>(kind);
  } else if (const json::object* choice = reader.object("tool_choice")) {
    FieldReader fields(*choice, "tool_choice", failure);
    std::string type = "function";
    fields.string("type", type);
    if (type == "allowed_tools") return read_allowed_tools(fields, failure, tools, out);
    if (type != "function") {
      return fields.fail(ErrorKind::kInvalidParameters, "type",
                         "expected function or allowed_tools, found '" + type + "'");
    }
    const json::object* function = fields.object("function");
    if (!function) return fields.fail(ErrorKind::kInvalidFormat, "function", "expected an object with the tool's name");
    FieldReader(*function, "tool_choice.function", failure).string("name", out.function);
    out.kind = Kind::kFunction;
    bool known = false;
    for (const Tool& tool : tools) known |= tool.name == out.function;
    if (!reader.failed() && !known) {
      reader.fail(ErrorKind::kInvalidParameters, "tool_choice.function.name",
                  "'" + out.function + "' is not one of the tools");
    }
  }
  if (!reader.failed() && tools.empty() && out.kind != Kind::kNone) {
    if (out.kind == Kind::kAuto) {
      out.kind = Kind::kNone;
    } else {
      reader.fail(ErrorKind::kInvalidParameters, "tool_choice", "needs tools");
    }
  }
}

}  // namespace spillway::api
