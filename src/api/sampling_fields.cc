#include "api/sampling_fields.h"

#include <boost/json/serialize.hpp>
#include <charconv>

namespace spillway::api {

namespace {

constexpr size_t kStopsMax = 16;
constexpr size_t kBiasMax = 4096;

void read_logit_bias(JsonFields& fields, Sampling& out) {
  const auto* bias = fields.object("logit_bias");
  if (!bias) return;
  if (bias->size() > kBiasMax) {
    return fields.out_of_range("logit_bias", "at most " + std::to_string(kBiasMax) + " tokens", std::to_string(bias->size()));
  }
  for (const auto& item : *bias) {
    const std::string_view key(item.key().data(), item.key().size());
    int32_t token = -1;
    const auto parsed = std::from_chars(key.data(), key.data() + key.size(), token);
    if (parsed.ec != std::errc() || parsed.ptr != key.data() + key.size() || token < 0) {
      return fields.expected("logit_bias", "token ids as keys (\"50256\")", nullptr);
    }
    if (!item.value().is_number()) return fields.expected("logit_bias." + std::string(key), "a number", &item.value());
    const double value = item.value().to_number<double>();
    if (!(value >= -100 && value <= 100)) {
      return fields.out_of_range("logit_bias." + std::string(key), "a number from -100 to 100",
                                 boost::json::serialize(item.value()));
    }
    out.logit_bias.emplace_back(token, float(value));
  }
}

void read_seed(JsonFields& fields, Sampling& out) {
  const auto* seed = fields.find("seed");
  if (!seed) return;
  if (seed->is_int64()) {
    out.seed = uint64_t(seed->get_int64());
  } else if (seed->is_uint64()) {
    out.seed = seed->get_uint64();
  } else {
    fields.expected("seed", "an integer", seed);
  }
}

void read_stop_token_ids(JsonFields& fields, Sampling& out) {
  const auto* ids = fields.array("stop_token_ids");
  if (!ids) return;
  for (const auto& id : *ids) {
    const auto* number = id.if_int64();
    if (!number || *number < 0 || *number > INT32_MAX) return fields.expected("stop_token_ids", "token ids", &id);
    out.stop_token_ids.push_back(int32_t(*number));
  }
}

}  // namespace

void read_stop(JsonFields& fields, std::string_view name, std::vector<std::string>& out) {
  const auto* stop = fields.find(name);
  if (!stop) return;
  const auto add = [&](const boost::json::value& value) {
    if (!value.is_string()) return fields.expected(name, "a string or an array of strings", &value);
    if (value.get_string().empty()) return fields.out_of_range(name, "stop strings of at least one character", "\"\"");
    out.emplace_back(value.get_string());
  };
  if (!stop->is_array()) return add(*stop);
  if (stop->get_array().size() > kStopsMax) {
    return fields.out_of_range(name, "at most 16 strings", std::to_string(stop->get_array().size()));
  }
  for (const auto& value : stop->get_array()) add(value);
}

void read_sampling(JsonFields& fields, Sampling& out, int max_tokens_low) {
  fields.number("temperature", 0, 2, out.temperature);
  fields.number("top_p", 0, 1, out.top_p, true);
  fields.number("min_p", 0, 1, out.min_p);
  fields.number("frequency_penalty", -2, 2, out.frequency_penalty);
  fields.number("presence_penalty", -2, 2, out.presence_penalty);
  fields.number("repetition_penalty", 0, 2, out.repetition_penalty, true);
  if (fields.integer("top_k", -1, INT32_MAX, out.top_k) && *out.top_k < 0) out.top_k = 0;
  fields.integer("max_tokens", max_tokens_low, INT32_MAX, out.max_tokens);
  fields.integer("max_completion_tokens", max_tokens_low, INT32_MAX, out.max_tokens);
  fields.integer("min_tokens", 0, INT32_MAX, out.min_tokens);
  if (out.max_tokens && out.min_tokens > *out.max_tokens) {
    fields.out_of_range("min_tokens", "at most max_tokens (" + std::to_string(*out.max_tokens) + ")", std::to_string(out.min_tokens));
  }
  fields.boolean("ignore_eos", out.ignore_eos);
  fields.integer("n", 1, 128, out.n);
  read_seed(fields, out);
  read_stop(fields, "stop", out.stop);
  read_stop_token_ids(fields, out);
  read_logit_bias(fields, out);
}

void read_stream(JsonFields& fields, StreamOptions& out) {
  fields.boolean("stream", out.stream);
  const auto* options = fields.object("stream_options");
  if (!options) return;
  if (!out.stream) return fields.out_of_range("stream_options", "stream to be true with it", "stream false");
  std::optional<ApiError> error;
  JsonFields inner(*options, "stream_options", error);
  inner.boolean("include_usage", out.include_usage);
  if (error) fields.expected("stream_options.include_usage", "true or false", options->if_contains("include_usage"));
}

void read_priority(JsonFields& fields, RequestPriority& out) {
  const auto* priority = fields.find("priority");
  if (!priority) return;
  if (priority->is_number()) {
    const double value = priority->to_number<double>();
    out = value < 0 ? RequestPriority::kLow : value > 0 ? RequestPriority::kHigh : RequestPriority::kNormal;
    return;
  }
  std::string name;
  if (!fields.choice("priority", {"low", "normal", "high"}, name)) return;
  out = name == "low" ? RequestPriority::kLow : name == "high" ? RequestPriority::kHigh : RequestPriority::kNormal;
}

void read_user(JsonFields& fields, std::string& out) {
  fields.string("user", out);
  fields.string("user_id", out);
}

}  // namespace spillway::api
