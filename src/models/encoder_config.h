// EncoderConfig: what the encoder model needs to know of a checkpoint: sizes, which form of layer, and what the family
// calls its weights. Parsed from config.json, checked. Values; any thread. Not its job: weights.
#pragma once

#include <boost/json/fwd.hpp>
#include <string>
#include <vector>

#include "base/result.h"
#include "nn/encoder_layer.h"

namespace spillway::models {

// The part behind the layers, by the checkpoint's names without ".weight"; empty: there is none.
struct ClassifierNames {
  kernels::Pooling pooling = kernels::Pooling::kFirst;
  std::string dense;
  kernels::Activation activation = kernels::Activation::kTanh;
  std::string norm;
  std::string output;
};

struct MaskedLmNames {
  std::string dense;
  std::string norm;
  std::string decoder;  // tied to the word embeddings where the checkpoint lacks it
  std::string bias;     // the whole name
};

struct EncoderNames {
  std::string prefix;  // "bert": before everything but the heads, where the checkpoint has it
  std::string words, positions, types, embedding_norm;
  std::string layers;  // "encoder.layer"
  std::string final_norm;
  std::string pooler;
  ClassifierNames classifier;
  MaskedLmNames masked_lm;
};

enum class EncoderTask { kEmbedding, kClassification, kMaskedLm };

struct EncoderConfig {
  std::string architecture;
  EncoderTask task = EncoderTask::kEmbedding;
  EncoderNames names;
  nn::EncoderLayerConfig layer;  // of every layer but for its window and first norm
  int layers = 0;
  int vocab_size = 0;
  int position_rows = 0;    // of learned positions; 0: none
  int position_offset = 0;  // row of the first token
  int tokens_max = 0;
  int type_rows = 0;
  double rope_theta = 0;  // 0: no rotation
  double rope_theta_local = 0;
  std::vector<bool> local_layers;  // which attend within the window; empty: none
  bool first_norm_is_identity = false;
  std::vector<std::string> labels;
  bool multi_label = false;
  std::string dtype;
};

Result<EncoderConfig> parse_encoder_config(const boost::json::object& config);

// id2label in the order of the numbers; a checkpoint without it has `count` labels named LABEL_i.
std::vector<std::string> parse_labels(const boost::json::object& config, int count);

}  // namespace spillway::models
