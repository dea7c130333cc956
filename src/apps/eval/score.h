// Scoring of an exact-match evaluation: questions from a file, answers judged, tallies by task. Pure functions.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace spillway::apps {

struct Question {
  std::string task;
  std::string prompt;
  std::string answer;
};

// [{"task", "prompt", "answer"}, ...]; task may lack. Errors name the entry and the field.
Result<std::vector<Question>> parse_questions(std::string_view json);

// The text after the last </think>, stripped of white space: what is compared with the answer.
std::string_view final_answer(std::string_view text);

struct Tally {
  int asked = 0;
  int right = 0;
  int64_t tokens = 0;  // generated
  double accuracy() const { return asked ? double(right) / asked : 0; }
};

struct Score {
  std::map<std::string, Tally> tasks;
  Tally total;
  void add(const std::string& task, bool right, int64_t tokens);
};

std::string render(const Score& score);

}  // namespace spillway::apps
