#include "server/served_one_shot.h"

#include <algorithm>
#include <chrono>
#include <filesystem>
#include <fstream>
#include <iterator>

namespace spillway::server {
namespace {

Result<std::string> read_file(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) return not_found(path.string() + ": expected a readable file");
  return std::string(std::istreambuf_iterator<char>(file), {});
}

}  // namespace

Result<std::shared_ptr<ServedOneShot>> ServedOneShot::make(ServedOneShotOptions options,
                                                           std::unique_ptr<engine::OneShotEngine> engine) {
  std::shared_ptr<ServedOneShot> model(new ServedOneShot());
  const models::OneShotInfo& info = engine->model().info();
  const std::filesystem::path folder = options.folder;
  if (info.vision) {
    std::error_code missing;
    const std::filesystem::path config = folder / "preprocessor_config.json";
    std::string bytes;
    if (std::filesystem::exists(config, missing)) {
      SW_ASSIGN(bytes, read_file(config));
    }
    SW_ASSIGN(auto images, image::Preprocessor::make(bytes, info.channels, info.height, info.width));
    model->images_ = std::make_unique<const image::Preprocessor>(std::move(images));
  } else {
    SW_ASSIGN(const std::string bytes, read_file(folder / "tokenizer.json"));
    SW_ASSIGN(model->tokenizer_, text::Tokenizer::parse(bytes));
    SW_ASSIGN(model->text_, TextInputs::make(*model->tokenizer_, options.folder, info.tokens_max, info.vocab_size));
  }
  model->options_ = std::move(options);
  model->created_ =
      std::chrono::duration_cast<std::chrono::seconds>(std::chrono::system_clock::now().time_since_epoch()).count();
  model->engine_ = std::move(engine);
  return model;
}

bool ServedOneShot::answers_to(std::string_view name) const {
  return name == options_.name || std::ranges::find(options_.aliases, name) != options_.aliases.end();
}

bool ServedOneShot::offers(models::OneShotOutput output) const {
  return std::ranges::find(info().outputs, output) != info().outputs.end();
}

}  // namespace spillway::server
