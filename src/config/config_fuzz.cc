// Any bytes as a configuration file: an answer, never a crash; and what loads must print and load back to the same.
#include <cstdint>
#include <string_view>

#include "base/check.h"
#include "config/render.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace spillway::config;
  Config config;
  if (!config.load_yaml(std::string_view(reinterpret_cast<const char*>(data), size), "fuzz.yaml").ok()) return 0;
  Config again;
  const auto status = again.load_yaml(print_yaml(config), "printed.yaml");
  SW_CHECK(status.ok(), status.ok() ? "" : status.error().message);
  for (size_t i = 0; i < kOptionCount; ++i) {
    if (is_hidden(kOptions[i], config.value(i))) continue;
    SW_CHECK(format_value(kOptions[i], again.value(i)) == format_value(kOptions[i], config.value(i)), kOptions[i].key);
  }
  return 0;
}
