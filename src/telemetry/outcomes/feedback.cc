#include "telemetry/outcomes/feedback.h"

#include <fmt/format.h>

#include <boost/json/parse.hpp>
#include <boost/json/serialize.hpp>
#include <boost/json/value.hpp>
#include <cmath>

namespace spillway::telemetry {
namespace {

namespace json = boost::json;

constexpr double kValueMax = 1e12, kGradeMax = 100;
constexpr size_t kIdMax = 128, kLabelMax = 256, kShownMax = 60;

Error wrong(std::string_view field, std::string_view expected, const json::value& found) {
  std::string text = json::serialize(found);
  if (text.size() > kShownMax) text = text.substr(0, kShownMax) + "...";
  return invalid(fmt::format("{}: expected {}, found {}", field, expected, text));
}

Result<std::string> text_of(std::string_view field, const json::value& value, size_t bytes_max) {
  const auto* text = value.if_string();
  if (text == nullptr || text->empty() || text->size() > bytes_max) {
    return wrong(field, fmt::format("a string of 1 to {} bytes", bytes_max), value);
  }
  return std::string(*text);
}

Result<double> number_of(std::string_view field, const json::value& value, double min, double max) {
  const double number = value.is_number() ? value.to_number<double>() : std::nan("");
  if (!(number >= min && number <= max)) return wrong(field, fmt::format("a number from {} to {}", min, max), value);
  return number;
}

Result<bool> bool_of(std::string_view field, const json::value& value) {
  if (!value.is_bool()) return wrong(field, "true or false", value);
  return value.get_bool();
}

Result<std::vector<double>> grades_of(const json::value& value) {
  std::vector<double> grades;
  if (const auto* list = value.if_array()) {
    if (list->empty() || list->size() > kGradesMax) {
      return invalid(fmt::format("relevance: expected 1 to {} grades, found {}", kGradesMax, list->size()));
    }
    for (size_t i = 0; i < list->size(); ++i) {
      SW_ASSIGN(const double grade, number_of(fmt::format("relevance[{}]", i), (*list)[i], 0, kGradeMax));
      grades.push_back(grade);
    }
    return grades;
  }
  SW_ASSIGN(const double grade, number_of("relevance", value, 0, kGradeMax));
  grades.push_back(grade);
  return grades;
}

Status read_field(Feedback& feedback, std::string_view name, const json::value& value, bool& has_value) {
  if (name == "request_id") {
    SW_ASSIGN(feedback.request_id, text_of(name, value, kIdMax));
  } else if (name == "conversion") {
    SW_ASSIGN(feedback.converted, bool_of(name, value));
  } else if (name == "value") {
    SW_ASSIGN(feedback.value, number_of(name, value, -kValueMax, kValueMax));
    has_value = true;
  } else if (name == "relevance") {
    SW_ASSIGN(feedback.grades, grades_of(value));
  } else if (name == "correct") {
    SW_ASSIGN(feedback.correct, bool_of(name, value));
  } else if (name == "label") {
    SW_ASSIGN(feedback.label, text_of(name, value, kLabelMax));
  } else if (name == "predicted") {
    SW_ASSIGN(feedback.predicted, text_of(name, value, kLabelMax));
  } else if (name == "thumbs") {
    const auto* text = value.if_string();
    const std::string_view thumbs = text == nullptr ? "" : std::string_view(text->data(), text->size());
    if (thumbs != "up" && thumbs != "down") return wrong(name, "\"up\" or \"down\"", value);
    feedback.thumbs_up = thumbs == "up";
  } else {
    return invalid(
        fmt::format("{}: expected request_id, conversion, value, relevance, correct, label, predicted or "
                    "thumbs, found this field",
                    name.substr(0, kShownMax)));
  }
  return {};
}

}  // namespace

Result<Feedback> parse_feedback(std::string_view body) {
  if (body.size() > kFeedbackBytesMax) {
    return Error{ErrorCode::kResourceExhausted,
                 fmt::format("feedback: expected at most {} bytes, found {}", kFeedbackBytesMax, body.size())};
  }
  json::parse_options options;
  options.max_depth = 8;
  boost::system::error_code error;
  const json::value root = json::parse(json::string_view(body.data(), body.size()), error, {}, options);
  if (error) return invalid("feedback: expected JSON, found other text: " + error.message());
  const auto* object = root.if_object();
  if (object == nullptr) return wrong("feedback", "an object", root);
  Feedback feedback;
  bool has_value = false;
  for (const auto& [name, value] : *object) {
    SW_TRY(read_field(feedback, std::string_view(name.data(), name.size()), value, has_value));
  }
  if (feedback.request_id.empty()) return invalid("request_id: expected the X-Request-Id of an answer, found none");
  if (has_value && !feedback.converted) feedback.converted = true;  // a value says that there was one
  if (has_value && !*feedback.converted) return invalid("value: expected none without a conversion, found one");
  if (feedback.predicted && !feedback.label) return invalid("predicted: expected a label beside it, found none");
  if (feedback.correct && feedback.label) return invalid("correct: expected this or a label, found both");
  const bool says_something =
      feedback.converted || !feedback.grades.empty() || feedback.correct || feedback.label || feedback.thumbs_up;
  if (!says_something) {
    return invalid("feedback: expected conversion, value, relevance, correct, label or thumbs, found none of them");
  }
  return feedback;
}

}  // namespace spillway::telemetry
