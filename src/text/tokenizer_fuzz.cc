// Bytes up to the first NUL are a tokenizer.json, the rest a text: loading never crashes; decoding and streaming agree.
#include <cstdlib>
#include <string_view>

#include "text/tokenizer.h"
#include "text/unicode.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace spillway::text;
  const std::string_view bytes(reinterpret_cast<const char*>(data), size);
  const size_t cut = std::min(bytes.find('\0'), bytes.size());
  const auto tokenizer = Tokenizer::parse(bytes.substr(0, cut));
  if (!tokenizer.ok()) return 0;
  const std::string_view text = bytes.substr(std::min(cut + 1, bytes.size()));
  const Encoding encoding = (*tokenizer)->encode(text);
  (void)(*tokenizer)->encode_pair(text, text, {.add_special_tokens = false, .parse_added_tokens = false});
  if (encoding.ids.size() != encoding.type_ids.size()) std::abort();
  Detokenizer detokenizer(**tokenizer, false);
  std::string streamed;
  for (const int32_t id : encoding.ids) {
    const std::string part = detokenizer.push(id);
    if (!is_valid_utf8(part)) std::abort();
    streamed += part;
  }
  streamed += detokenizer.finish();
  if (streamed != (*tokenizer)->decode(encoding.ids, false)) std::abort();
  return 0;
}
