// Whether memory is enough for the model, and whether its pages can be large.
#include <fmt/format.h>

#include <filesystem>
#include <fstream>

#include "apps/builtin_model.h"
#include "apps/doctor/finding.h"
#include "apps/system.h"

namespace spillway::apps {
namespace {

using Level = Finding::Level;
namespace fs = std::filesystem;

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

Finding huge_pages() {
  std::ifstream in("/sys/kernel/mm/transparent_hugepage/enabled");
  std::string line;
  if (!std::getline(in, line)) return {Level::kGood, "huge pages", "not offered by this kernel", ""};
  if (line.find("[never]") == std::string::npos) return {Level::kGood, "huge pages", line, ""};
  return {Level::kWarning, "huge pages", line + ": reading the weights misses the address cache more often",
          "echo madvise > /sys/kernel/mm/transparent_hugepage/enabled"};
}

}  // namespace

Findings check_memory(const config::Config& config) {
  Findings findings;
  const MemoryReading memory = read_memory();
  std::string what = fmt::format("{} free of {}", format_bytes(memory.available), format_bytes(memory.total));
  if (memory.limit > 0) what += fmt::format(", the container's limit is {}", format_bytes(memory.limit));
  findings.push_back({Level::kGood, "memory", what, ""});
  const std::string& path = config.text("model.path");
  const int64_t stored = path == "builtin" ? builtin_weight_bytes() : checkpoint_bytes(path);
  if (stored > 0 && !config.boolean("model.random_weights")) {
    const auto usable = int64_t(double(memory.usable()) * config.number("hardware.memory_fraction"));
    const std::string model = fmt::format("the weights of {} are {} as stored", path, format_bytes(stored));
    if (stored <= usable) {
      findings.push_back({Level::kGood, "memory", model + ", which fits", ""});
    } else {
      findings.push_back(
          {Level::kBad, "memory", fmt::format("{}, but {} may be used", model, format_bytes(usable)),
           "take a smaller model, --precision int8 if it is stored wider, or a machine with more memory"});
    }
  }
  findings.push_back(huge_pages());
  return findings;
}

Findings check_model(const config::Config& config) {
  const std::string& path = config.text("model.path");
  if (path == "builtin") return {{Level::kGood, "model", "builtin: tiny-r1, embedded in the program", ""}};
  if (config.boolean("model.random_weights")) return {{Level::kGood, "model", path + " with random weights", ""}};
  if (path.find("://") != std::string::npos) {
    return {{Level::kBad, "model", path + " is an address; this build loads folders only",
             "download the checkpoint and pass its folder: --model DIR"}};
  }
  std::error_code error;
  if (!fs::is_directory(path, error)) {
    return {{Level::kBad, "model", path + " is not a folder", "pass the folder that holds config.json: --model DIR"}};
  }
  Findings findings;
  for (const char* name : {"config.json", "tokenizer.json", "tokenizer_config.json"}) {
    if (fs::exists(fs::path(path) / name, error)) continue;
    const bool needed = std::string_view(name) != "tokenizer_config.json";
    findings.push_back({needed ? Level::kBad : Level::kWarning, "model", fmt::format("{} has no {}", path, name),
                        "download the whole checkpoint again; every file of the repository belongs to it"});
  }
  if (checkpoint_bytes(path) == 0) {
    findings.push_back(
        {Level::kBad, "model", path + " has no .safetensors files",
         "download the checkpoint in the safetensors format; a git clone without git-lfs leaves them out"});
  }
  if (findings.empty()) findings.push_back({Level::kGood, "model", path + ": the files are all there", ""});
  return findings;
}

}  // namespace spillway::apps
