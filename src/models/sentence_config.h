// SentenceConfig: what a folder published for sentence-transformers says about making a vector of a text: modules.json
// with its pooling, dense and normalising modules, the prompts, and the length texts are cut to. Values; any thread.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <vector>

#include "base/result.h"
#include "kernels/encoder.h"

namespace spillway::models {

struct SentenceDense {
  std::string folder;  // the module's own, with model.safetensors
  int inputs = 0;
  int outputs = 0;
  kernels::Activation activation = kernels::Activation::kNone;
};

struct SentenceConfig {
  bool published = false;  // modules.json is there; otherwise the defaults hold: the mean, as it is
  kernels::Pooling pooling = kernels::Pooling::kMean;
  std::vector<SentenceDense> dense;
  bool normalize = false;
  std::optional<int> tokens_max;               // longer texts are cut to it
  std::map<std::string, std::string> prompts;  // by name: "query", "passage", ...
  std::string default_prompt;                  // a name; empty: none
  std::string similarity = "cosine";           // cosine, dot, euclidean or manhattan
};

Result<SentenceConfig> read_sentence_config(const std::string& folder);

}  // namespace spillway::models
