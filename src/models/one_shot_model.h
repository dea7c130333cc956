// OneShotModel: a model that answers each input in one pass: encoders (tokens in, vectors or scores out) and vision
// (pixels in, class scores out). It computes over ragged batches without padding; it knows no request, no text and no
// policy. Owned by its engine; run() is called from the engine's thread only.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "base/check.h"
#include "base/result.h"
#include "tensor/stream.h"
#include "tensor/tensor.h"

namespace spillway::models {

// What one pass can give for an input.
enum class OneShotOutput : uint8_t {
  kEmbedding,     // one pooled vector, normalised where the model's own files say so: width embedding_dims
  kTokenVectors,  // the last hidden state of every token: tokens x hidden_size
  kScores,        // class logits, or one relevance logit of a reranker: width labels.size()
  kSparse,  // one weight a vocabulary entry (masked-LM head, maximum over tokens of log(1 + relu)): width vocab_size
  kPooled,  // BERT's pooler: the first token through a product and tanh; width hidden_size
};

struct OneShotInfo {
  std::string architecture;            // as in config.json: "BertModel"
  bool vision = false;                 // inputs are pixels; otherwise tokens
  std::vector<OneShotOutput> outputs;  // offered; the first is the default
  int vocab_size = 0;                  // encoders
  int hidden_size = 0;
  int embedding_dims = 0;
  int tokens_max = 0;                       // longest input
  int type_vocab_size = 0;                  // token types (segments); 0 or 1: types are ignored
  int channels = 0, height = 0, width = 0;  // vision: the shape of pixels
  std::vector<std::string> labels;          // id2label in order; of a reranker one
  bool multi_label = false;                 // scores go through a sigmoid each rather than a softmax
  int64_t weight_bytes = 0;
  int64_t mapped_bytes = 0;
  int64_t parameters = 0;
  int64_t flops_per_token = 0;  // of the products without attention; vision: per image
  std::string precision;        // "fp32", "tf32", "bf16", "fp16", "int8", "fp8"
};

// One input. tokens with their types (empty: all 0), special tokens included; or pixels, float32 [channels, height,
// width], already scaled and normalised, of a smaller height or width than the model's where these are given.
struct OneShotInput {
  std::span<const int32_t> tokens;
  std::span<const int32_t> types;
  std::span<const float> pixels;
  int height = 0, width = 0;  // of pixels; 0: info's
  OneShotOutput output = OneShotOutput::kEmbedding;

  // What a batch is budgeted by: tokens, or 1 an image.
  int64_t cost() const { return pixels.empty() ? int64_t(tokens.size()) : 1; }
};

// Whether the model can take the input: lengths, ids inside the vocabulary, an offered output. For whoever got the
// input from outside; run() takes it for granted.
Status check_input(const OneShotInfo& info, const OneShotInput& input);

class OneShotModel {
 public:
  virtual ~OneShotModel() = default;
  virtual const OneShotInfo& info() const = 0;

  // Most cost and most inputs in one call: the workspace was sized for them at load.
  virtual int64_t batch_cost_max() const = 0;
  virtual int batch_inputs_max() const = 0;

  // Float32 outputs, one tensor an input in batch order (kTokenVectors: [tokens, hidden_size]; else [width]),
  // host-readable once stream is synchronised, valid until the next call. An input's bits do not depend on what else is
  // in the batch on the CPU; elsewhere to rounding.
  virtual std::vector<tensor::TensorView> run(std::span<const OneShotInput> batch, tensor::Stream& stream) = 0;

  // How many batches may be under way, one behind another. run_in() is run() with outputs of the slot's own, valid
  // until the slot's next call, which may come when its last batch is done, whatever the others do.
  virtual int slots() const { return 1; }
  virtual std::vector<tensor::TensorView> run_in(int slot, std::span<const OneShotInput> batch,
                                                 tensor::Stream& stream) {
    SW_CHECK(slot == 0, "a slot that the model has");
    return run(batch, stream);
  }

  // The last batch's work once more, for measurements of a device alone; false where there is nothing apart from run().
  virtual bool recompute(tensor::Stream&) { return false; }

  // Costs of batches, ascending, whose first run takes longer than any later one because something is chosen or made
  // for that size; none where there are no such sizes. Whoever starts the model runs one of each before requests come.
  virtual std::vector<int64_t> prepared_costs() const { return {}; }

  // Kernels that the last run() launched; 0 where nobody counts.
  virtual int64_t launches() const { return 0; }
};

}  // namespace spillway::models
