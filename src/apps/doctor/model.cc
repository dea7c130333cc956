// Whether the models that the configuration names could be loaded: files, architecture, precision.
#include <fmt/format.h>

#include <filesystem>
#include <iterator>

#include "apps/builtin_model.h"
#include "apps/doctor/finding.h"
#include "apps/local_model.h"
#include "apps/model_sources.h"
#include "models/loader.h"
#include "models/model_folder.h"
#include "models/one_shot_loader.h"
#include "store/location.h"

namespace spillway::apps {
namespace {

using Level = Finding::Level;
namespace fs = std::filesystem;

Finding bad(std::string what, std::string mend) { return {Level::kBad, "model", std::move(what), std::move(mend)}; }

void append(Findings& findings, Findings more) { std::move(more.begin(), more.end(), std::back_inserter(findings)); }

bool is_on_disk(const config::Config& config) {
  const std::string& path = config.text("model.path");
  return path != "builtin" && path != "none" && !store::is_location(path) && !config.boolean("model.random_weights");
}

int64_t checkpoint_bytes(const fs::path& folder) {
  int64_t bytes = 0;
  std::error_code error;
  for (const auto& entry : fs::directory_iterator(folder, error)) {
    if (entry.path().extension() != ".safetensors") continue;
    const auto size = entry.file_size(error);
    if (!error) bytes += int64_t(size);
  }
  return bytes;
}

// Language models; what one-shot models compute in depends on more and is told when they load.
Findings check_numbers(const config::Config& config, tensor::Device device) {
  const auto choice = models::parse_precision(config.text("model.precision"));
  if (!choice.ok()) return {bad(choice.error().message, "")};
  const Status usable = models::check_precision(*choice, device);
  if (usable.ok()) return {};
  return {bad("model." + usable.error().message, "take another --precision; auto always works")};
}

Findings check_folder(const config::Config& config, const fs::path& folder, tensor::Device device) {
  Findings findings;
  const auto model = models::read_config(folder.string());
  if (!model.ok()) return {bad(model.error().message, "download it again")};
  const auto one_shot = models::find_one_shot_family(**model, device);
  const auto language = models::find_family(**model);
  if (!one_shot.ok() && !language.ok()) {
    findings.push_back(bad(fmt::format("{}: {}", folder.string(), language.error().message),
                           "take a model of one of these architectures"));
  }
  std::error_code error;
  const auto reader = models::find_one_shot_family(**model, tensor::Device());
  const bool reads_text = !reader.ok() || *reader != models::load_resnet;
  for (const char* name : {"tokenizer.json", "tokenizer_config.json"}) {
    if (!reads_text || fs::exists(folder / name, error)) continue;
    findings.push_back({std::string_view(name) == "tokenizer.json" ? Level::kBad : Level::kWarning, "model",
                        fmt::format("{} has no {}", folder.string(), name),
                        "download the whole checkpoint again; every file of the repository belongs to it"});
  }
  if (checkpoint_bytes(folder) == 0) {
    findings.push_back(
        bad(folder.string() + " has no .safetensors files",
            "download the checkpoint in the safetensors format; a git clone without git-lfs leaves them out"));
  }
  if (findings.empty()) findings.push_back({Level::kGood, "model", folder.string() + ": the files are all there", ""});
  if (language.ok()) append(findings, check_numbers(config, device));
  return findings;
}

Findings check_one(const config::Config& config) {
  const std::string& path = config.text("model.path");
  if (const Status known = check_model_options(config); !known.ok())
    return {bad(known.error().message, "pass the folder that holds config.json: --model DIR")};
  const auto device = chosen_device(config);
  if (!device.ok()) return {bad(device.error().message, "take --device auto")};
  Findings findings;
  if (!is_on_disk(config)) {
    const char* const about = path == "builtin"          ? ": tiny-r1, embedded in the program"
                              : store::is_location(path) ? " is fetched at the start and was not looked at"
                                                         : " with random weights";
    findings.push_back({Level::kGood, "model", path + about, ""});
    if (path == "builtin") append(findings, check_numbers(config, *device));
    return findings;
  }
  const auto folders = version_folders(path, config.text("model.versions"));
  if (!folders.ok()) return {bad(folders.error().message, "pass the folder that holds config.json: --model DIR")};
  for (const VersionFolder& one : *folders) append(findings, check_folder(config, one.path, *device));
  return findings;
}

}  // namespace

int64_t stored_bytes(const config::Config& config) {
  int64_t bytes = 0;
  const auto each = config.each_model();
  if (!each.ok()) return 0;
  for (const config::Config& one : *each) {
    if (one.text("model.path") == "builtin" && !one.boolean("model.random_weights")) bytes += builtin_weight_bytes();
    if (!is_on_disk(one)) continue;
    const auto folders = version_folders(one.text("model.path"), one.text("model.versions"));
    for (const VersionFolder& folder : folders.ok() ? *folders : std::vector<VersionFolder>())
      bytes += checkpoint_bytes(folder.path);
  }
  return bytes;
}

Findings check_model(const config::Config& config) {
  if (names_no_model(config)) return {{Level::kGood, "model", "none: a gateway alone", ""}};
  const auto each = config.each_model();
  if (!each.ok()) return {bad(each.error().message, "correct the list of models")};
  Findings findings;
  for (const config::Config& one : *each) append(findings, check_one(one));
  return findings;
}

}  // namespace spillway::apps
