// What a client says came of a request: the body of POST /v1/feedback. Plain values.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace spillway::telemetry {

inline constexpr size_t kFeedbackBytesMax = 64 << 10;
inline constexpr size_t kGradesMax = 1000;

struct Feedback {
  std::string request_id;
  std::optional<bool> converted;
  double value = 0;             // of the conversion, in the operator's currency
  std::vector<double> grades;   // of the results in the order they were shown; empty: none given
  std::optional<bool> correct;  // or the label and what was predicted:
  std::optional<std::string> label, predicted;
  std::optional<bool> thumbs_up;
};

// Errors name the field, what was expected and what was found.
Result<Feedback> parse_feedback(std::string_view body);

}  // namespace spillway::telemetry
