#include "apps/eval/score.h"

#include <fmt/format.h>

#include <boost/json.hpp>

#include "apps/table.h"

namespace spillway::apps {
namespace {

namespace json = boost::json;

std::vector<std::string> row(const std::string& name, const Tally& tally) {
  return {name, std::to_string(tally.right), std::to_string(tally.asked),
          fmt::format("{:.2f}%", tally.accuracy() * 100),
          fmt::format("{:.1f}", tally.asked ? double(tally.tokens) / tally.asked : 0)};
}

}  // namespace

Result<std::vector<Question>> parse_questions(std::string_view text) {
  std::error_code error;
  const json::value value = json::parse(json::string_view(text.data(), text.size()), error);
  if (error) return corrupt("questions: expected JSON, found " + error.message());
  if (!value.is_array()) return corrupt("questions: expected an array of {\"task\", \"prompt\", \"answer\"}");
  std::vector<Question> questions;
  for (const json::value& entry : value.get_array()) {
    const std::string where = fmt::format("questions[{}]", questions.size());
    if (!entry.is_object()) return corrupt(where + ": expected an object");
    const auto field = [&](const char* name) -> const json::string* {
      const json::value* found = entry.get_object().if_contains(name);
      return found ? found->if_string() : nullptr;
    };
    const json::string *task = field("task"), *prompt = field("prompt"), *answer = field("answer");
    if (!prompt || !answer) return corrupt(where + ": expected the strings \"prompt\" and \"answer\"");
    questions.push_back({task ? std::string(*task) : "all", std::string(*prompt), std::string(*answer)});
  }
  if (questions.empty()) return corrupt("questions: expected at least one, found none");
  return questions;
}

std::string_view final_answer(std::string_view text) {
  constexpr std::string_view kThinkEnd = "</think>", kSpace = " \t\r\n";
  if (const size_t at = text.rfind(kThinkEnd); at != std::string_view::npos) text.remove_prefix(at + kThinkEnd.size());
  const size_t first = text.find_first_not_of(kSpace);
  if (first == std::string_view::npos) return {};
  return text.substr(first, text.find_last_not_of(kSpace) - first + 1);
}

void Score::add(const std::string& task, bool right, int64_t tokens) {
  for (Tally* tally : {&tasks[task], &total}) {
    ++tally->asked;
    tally->right += right;
    tally->tokens += tokens;
  }
}

std::string render(const Score& score) {
  Table table({"task", "right", "asked", "accuracy", "tokens each"});
  for (const auto& [task, tally] : score.tasks) table.add(row(task, tally));
  table.add(row("total", score.total));
  return table.render();
}

}  // namespace spillway::apps
