// Bytes up to the first NUL are a JSON schema, the rest steers a walk through what it allows: compiling never crashes,
// and what the walk writes is JSON where the grammar says that it may end.
#include <boost/json/parse.hpp>
#include <cstdlib>
#include <string>
#include <string_view>
#include <vector>

#include "text/grammar.h"

namespace {

// A vocabulary of all bytes and a few words.
const char* const kTokenizer = R"({"model":{"type":"BPE","vocab":{)";

std::unique_ptr<spillway::text::Tokenizer> make_tokenizer() {
  // GPT-2's alphabet: the code point of each byte.
  std::string json = kTokenizer;
  int next = 256;
  for (int byte = 0; byte < 256; ++byte) {
    const bool printable = (byte >= 0x21 && byte <= 0x7E) || (byte >= 0xA1 && byte <= 0xAC) || byte >= 0xAE;
    char entry[32];
    std::snprintf(entry, sizeof entry, "\"\\u%04x\":%d,", unsigned(printable ? byte : next++), byte);
    json += entry;
  }
  json += R"("\"a":256,"\":":257,"true":258,"},":259,"[]":260},"merges":[]},)"
          R"("pre_tokenizer":{"type":"ByteLevel","add_prefix_space":false,"use_regex":false}})";
  auto tokenizer = spillway::text::Tokenizer::parse(json);
  if (!tokenizer.ok()) std::abort();
  return std::move(tokenizer).value();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace spillway::text;
  static const auto tokenizer = make_tokenizer();
  static const auto trie = TokenTrie::build(*tokenizer, 262, {261});
  const std::string_view bytes(reinterpret_cast<const char*>(data), size);
  const size_t cut = std::min(bytes.find('\0'), bytes.size());
  boost::system::error_code error;
  const boost::json::value schema = boost::json::parse(bytes.substr(0, cut), error);
  if (error) return 0;
  const auto grammar = Grammar::json_schema(schema);
  if (!grammar.ok()) return 0;
  const auto state = GrammarState::start(*grammar, trie);
  std::string text;
  std::vector<uint64_t> words(5);
  for (const char choice : bytes.substr(std::min(cut + 1, bytes.size())).substr(0, 200)) {
    state->allowed(words);
    std::vector<int32_t> tokens;
    for (int32_t token = 0; token < 262; ++token) {
      if (words[size_t(token) / 64] >> (token % 64) & 1) tokens.push_back(token);
    }
    if (tokens.empty()) std::abort();
    if (state->complete()) {
      boost::json::parse_options options;
      options.max_depth = 256;
      boost::json::parse(text, error, {}, options);
      if (error || !(*grammar)->matches(text)) std::abort();
    }
    const int32_t token = tokens[uint8_t(choice) % tokens.size()];
    if (token == 261) break;
    text += tokenizer->token_bytes(token);
    state->accept(token);
  }
  return 0;
}
