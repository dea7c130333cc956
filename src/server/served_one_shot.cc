#include "server/served_one_shot.h"

#include <algorithm>
#include <chrono>
#include <filesystem>
#include <fstream>
#include <iterator>

#include "models/image_config.h"

namespace spillway::server {
namespace {

Result<std::string> read_file(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) return not_found(path.string() + ": expected a readable file");
  return std::string(std::istreambuf_iterator<char>(file), {});
}

image::Filter filter_of(models::ImageConfig::Filter filter) {
  switch (filter) {
    case models::ImageConfig::Filter::kNearest:
      return image::Filter::kNearest;
    case models::ImageConfig::Filter::kBicubic:
      return image::Filter::kBicubic;
    case models::ImageConfig::Filter::kLanczos:
      return image::Filter::kLanczos;
    case models::ImageConfig::Filter::kBilinear:
      break;
  }
  return image::Filter::kBilinear;
}

image::PreprocessorSettings settings_of(const models::ImageConfig& config, const models::OneShotInfo& info) {
  image::PreprocessorSettings settings;
  settings.resize = config.resize;
  settings.shortest_edge = config.shortest_edge;
  settings.resize_height = config.resize_height;
  settings.resize_width = config.resize_width;
  settings.filter = filter_of(config.filter);
  settings.rescale = config.rescale;
  settings.normalize = config.normalize;
  settings.mean = config.mean;
  settings.deviation = config.deviation;
  settings.channels = info.channels;
  settings.height = info.height;
  settings.width = info.width;
  return settings;
}

}  // namespace

Result<std::shared_ptr<ServedOneShot>> ServedOneShot::make(ServedOneShotOptions options,
                                                           std::unique_ptr<engine::OneShotEngine> engine) {
  std::shared_ptr<ServedOneShot> model(new ServedOneShot());
  const models::OneShotInfo& info = engine->model().info();
  const std::filesystem::path folder = options.folder;
  if (info.vision) {
    SW_ASSIGN(const models::ImageConfig config, models::read_image_config(options.folder));
    model->images_ = std::make_unique<const image::Preprocessor>(settings_of(config, info));
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
