// The questions of tiny-r1's evaluation.json as token ids, for tests and benchmarks with a real model.
#pragma once

#include <boost/json.hpp>
#include <fstream>
#include <iterator>
#include <memory>
#include <string>
#include <vector>

#include "text/tokenizer.h"

namespace spillway::engine::testing {

inline std::string read_file(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  SW_CHECK(file.good(), path);
  return {std::istreambuf_iterator<char>(file), {}};
}

struct Question {
  std::vector<int32_t> prompt;
  std::string answer;
};

struct Evaluation {
  std::unique_ptr<text::Tokenizer> tokenizer;
  std::vector<Question> questions;
  int32_t end_of_sequence = 0;

  // A question is right when the text after </think>, stripped, is the answer.
  bool right(const Question& question, const std::vector<int32_t>& output) const {
    std::string text = tokenizer->decode(output, true);
    const std::string close = "</think>";
    const size_t end = text.find(close);
    if (end == std::string::npos) return false;
    text = text.substr(end + close.size());
    const char* blank = " \n\t";
    const size_t first = text.find_first_not_of(blank);
    return first != std::string::npos &&
           text.substr(first, text.find_last_not_of(blank) - first + 1) == question.answer;
  }
};

// Every `stride`-th question of the folder, through the prompt of its chat template.
inline Evaluation load_evaluation(const std::string& folder, int stride) {
  Evaluation evaluation;
  evaluation.tokenizer = std::move(text::Tokenizer::parse(read_file(folder + "/tokenizer.json"))).value();
  evaluation.end_of_sequence = evaluation.tokenizer->id_of("<｜end▁of▁sentence｜>").value();
  const auto entries = boost::json::parse(read_file(folder + "/evaluation.json"));
  int index = 0;
  for (const auto& entry : entries.as_array()) {
    if (index++ % stride != 0) continue;
    const std::string text =
        "<｜begin▁of▁sentence｜><｜User｜>" + std::string(entry.at("prompt").as_string()) + "<｜Assistant｜><think>\n";
    evaluation.questions.push_back({evaluation.tokenizer->encode(text, {.add_special_tokens = false}).ids,
                                    std::string(entry.at("answer").as_string())});
  }
  return evaluation;
}

}  // namespace spillway::engine::testing
