#include "apps/builtin_model.h"

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <fmt/format.h>
#include <unistd.h>
#include <utility>

// The assembler copies the files into the program's read-only data.
#define SW_EMBED(symbol, file)                                                     \
  asm(".pushsection .rodata\n.balign 64\n" #symbol ":\n.incbin \"" SPILLWAY_BUILTIN_DIR \
      "/" file "\"\n" #symbol "_end:\n.byte 0\n.popsection\n");                    \
  extern "C" {                                                                     \
  extern const char symbol[] __attribute__((visibility("hidden")));                \
  extern const char symbol##_end[] __attribute__((visibility("hidden")));          \
  }

SW_EMBED(sw_builtin_config, "config.json")
SW_EMBED(sw_builtin_generation_config, "generation_config.json")
SW_EMBED(sw_builtin_tokenizer, "tokenizer.json")
SW_EMBED(sw_builtin_tokenizer_config, "tokenizer_config.json")
SW_EMBED(sw_builtin_evaluation, "evaluation.json")
SW_EMBED(sw_builtin_weights, "model.safetensors")

namespace spillway::apps {
namespace {

std::string_view between(const char* begin, const char* end) { return {begin, size_t(end - begin)}; }

Error failed(const std::string& what) {
  return {ErrorCode::kUnavailable, fmt::format("the embedded model: {}: {}", what, std::strerror(errno))};
}

// A folder that only this user can read, in the first place that takes one.
Result<std::string> make_folder() {
  const char* preferred = std::getenv("TMPDIR");
  for (const char* parent : {preferred, "/tmp", "/dev/shm", "/var/tmp"}) {
    if (!parent || !*parent) continue;
    std::string path = std::string(parent) + "/spillway-XXXXXX";
    if (mkdtemp(path.data())) return path;
  }
  return failed("no temporary folder can be made (set TMPDIR)");
}

}  // namespace

std::string_view builtin_evaluation() { return between(sw_builtin_evaluation, sw_builtin_evaluation_end); }

int64_t builtin_weight_bytes() { return sw_builtin_weights_end - sw_builtin_weights; }

Result<BuiltinFolder> BuiltinFolder::create() {
  BuiltinFolder folder;
  SW_ASSIGN(folder.path_, make_folder());
  SW_TRY(folder.add("config.json", between(sw_builtin_config, sw_builtin_config_end)));
  SW_TRY(folder.add("generation_config.json", between(sw_builtin_generation_config, sw_builtin_generation_config_end)));
  SW_TRY(folder.add("tokenizer.json", between(sw_builtin_tokenizer, sw_builtin_tokenizer_end)));
  SW_TRY(folder.add("tokenizer_config.json", between(sw_builtin_tokenizer_config, sw_builtin_tokenizer_config_end)));
  SW_TRY(folder.add("model.safetensors", between(sw_builtin_weights, sw_builtin_weights_end)));
  return folder;
}

Status BuiltinFolder::add(const char* name, std::string_view bytes) {
  SW_ASSIGN(MemoryFile file, MemoryFile::create(name, bytes));
  const std::string link = path_ + "/" + name;
  if (symlink(file.path().c_str(), link.c_str()) != 0) return failed(link);
  files_.push_back(std::move(file));
  links_.push_back(link);
  return {};
}

BuiltinFolder::BuiltinFolder(BuiltinFolder&& other) noexcept
    : path_(std::exchange(other.path_, {})),
      links_(std::exchange(other.links_, {})),
      files_(std::exchange(other.files_, {})) {}

BuiltinFolder::~BuiltinFolder() {
  for (const auto& link : links_) unlink(link.c_str());
  if (!path_.empty()) rmdir(path_.c_str());
}

}  // namespace spillway::apps
