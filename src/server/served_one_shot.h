// ServedOneShot: everything that answering requests with one one-shot model needs: its engine, its tokenizer and its
// names. Shared by the connections that use it; immutable. Any thread.
// Not its job: loading weights; reading images; what a protocol makes of an output.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "engine/one_shot_engine.h"
#include "image/preprocessor.h"
#include "server/one_shot/text_inputs.h"
#include "text/tokenizer.h"

namespace spillway::server {

struct ServedOneShotOptions {
  std::string name;
  std::string version = "1";
  std::vector<std::string> aliases;
  std::string folder;  // of the checkpoint: its text files tell protocols of prompts, preprocessing, labels
};

class ServedOneShot {
 public:
  // Reads the tokenizer and the settings beside it, or preprocessor_config.json, from the folder.
  static Result<std::shared_ptr<ServedOneShot>> make(ServedOneShotOptions options,
                                                     std::unique_ptr<engine::OneShotEngine> engine);

  const std::string& name() const { return options_.name; }
  const std::string& version() const { return options_.version; }
  const std::vector<std::string>& aliases() const { return options_.aliases; }
  const std::string& folder() const { return options_.folder; }
  int64_t created() const { return created_; }
  bool answers_to(std::string_view name) const;

  engine::OneShotEngine& engine() const { return *engine_; }
  const models::OneShotInfo& info() const { return engine_->model().info(); }
  const text::Tokenizer* tokenizer() const { return tokenizer_.get(); }  // null: the model takes pixels
  const TextInputs* text() const { return text_.get(); }                 // null: the model takes pixels
  const image::Preprocessor* images() const { return images_.get(); }    // null: the model takes tokens
  bool offers(models::OneShotOutput output) const;

 private:
  ServedOneShot() = default;

  ServedOneShotOptions options_;
  int64_t created_ = 0;
  std::unique_ptr<text::Tokenizer> tokenizer_;
  std::unique_ptr<const TextInputs> text_;
  std::unique_ptr<const image::Preprocessor> images_;
  std::unique_ptr<engine::OneShotEngine> engine_;  // last: its thread stops before the rest goes
};

}  // namespace spillway::server
