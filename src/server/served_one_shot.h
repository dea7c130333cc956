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
  // Reads tokenizer.json of the folder unless the model takes pixels.
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

 private:
  ServedOneShot() = default;

  ServedOneShotOptions options_;
  int64_t created_ = 0;
  std::unique_ptr<text::Tokenizer> tokenizer_;
  std::unique_ptr<engine::OneShotEngine> engine_;  // last: its thread stops before the rest goes
};

}  // namespace spillway::server
