// What the requests of one-shot models share: inputs (texts or token ids), how they are cut to the model's length, and
// the writing of vectors as JSON. Plain values, any thread.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "api/common.h"
#include "api/field_reader.h"

namespace spillway::api {

using TextOrIds = std::variant<std::string, std::vector<int32_t>>;

// What happens to an input that is longer than the model takes.
struct Truncation {
  bool cut = false;        // otherwise it is refused
  bool from_left = false;  // the end stays
  int tokens_max = 0;      // cut to this, special tokens included; 0: what the model takes
};

inline constexpr size_t kInputsMax = 4096;

struct EncodeCommon {
  std::string model;  // empty: the server's default for the task
  Truncation truncation;
  RequestPriority priority = RequestPriority::kNormal;
  std::optional<int64_t> deadline_ms;
  std::string user;
};

// A string, an array of strings, an array of token ids, or an array of such arrays. single: it was one, not an array.
void read_inputs(FieldReader& reader, std::string_view key, std::vector<TextOrIds>& out, bool& single);

// An array of strings, or of objects with a "text".
void read_texts(FieldReader& reader, std::string_view key, std::vector<std::string>& out);

// model, user, priority, deadline_ms, and vLLM's truncate_prompt_tokens (-1: what the model takes).
void read_common(FieldReader& reader, EncodeCommon& out);

// TEI's truncate and truncation_direction.
void read_tei_truncation(FieldReader& reader, Truncation& out);

// Shortest decimals that read back as the same float32; what is not finite becomes null.
void append_float(std::string& out, float value);
void append_floats(std::string& out, std::span<const float> values);  // "[0.1,-2]"
void append_base64(std::string& out, std::span<const float> values);  // little-endian, without quotes
void append_json_string(std::string& out, std::string_view text);     // quoted and escaped
std::optional<std::string> decode_base64(std::string_view text);      // nothing when it is not base64

}  // namespace spillway::api
