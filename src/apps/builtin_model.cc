#include "apps/builtin_model.h"

// The assembler copies the files into the program's read-only data.
#define SW_EMBED(symbol, file)                                                                                  \
  asm(".pushsection .rodata\n.balign 64\n" #symbol ":\n.incbin \"" SPILLWAY_BUILTIN_DIR "/" file "\"\n" #symbol \
      "_end:\n.byte 0\n.popsection\n");                                                                         \
  extern "C" {                                                                                                  \
  extern const char symbol[] __attribute__((visibility("hidden")));                                             \
  extern const char symbol##_end[] __attribute__((visibility("hidden")));                                       \
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

}  // namespace

Result<MemoryFolder> builtin_folder() {
  return MemoryFolder::create({
      {"config.json", between(sw_builtin_config, sw_builtin_config_end)},
      {"generation_config.json", between(sw_builtin_generation_config, sw_builtin_generation_config_end)},
      {"tokenizer.json", between(sw_builtin_tokenizer, sw_builtin_tokenizer_end)},
      {"tokenizer_config.json", between(sw_builtin_tokenizer_config, sw_builtin_tokenizer_config_end)},
      {"model.safetensors", between(sw_builtin_weights, sw_builtin_weights_end)},
  });
}

std::string_view builtin_evaluation() { return between(sw_builtin_evaluation, sw_builtin_evaluation_end); }

int64_t builtin_weight_bytes() { return sw_builtin_weights_end - sw_builtin_weights; }

}  // namespace spillway::apps
