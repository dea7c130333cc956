// PromptScan: what routing needs to know of a prompt's text, from one pass over it: about how many tokens it is, in
// which script it is written, and the rolling hashes of its blocks, by which equal prefixes are found. No tokenizer:
// foreign models have others, and a prompt of 100,000 tokens must cost well under a millisecond. One scan a request;
// used on the thread that decodes the request.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "gateway/policy.h"

namespace spillway::gateway {

inline constexpr size_t kPrefixBlockBytes = 512;
inline constexpr size_t kPrefixBlocksMax = 4096;  // of longer prompts the first 2 MiB are enough to tell

class PromptScan {
 public:
  // salt keeps prompts of different models (or tenants, where caches are not shared) apart.
  explicit PromptScan(uint64_t salt = 0) : hash_(salt) {}

  // The next message, in the order of the conversation: its role ("system", "user", ...) and a piece of its text. Tools
  // and other text that the prompt begins with are pieces too.
  void add(std::string_view role, std::string_view text);

  // Sets prompt_tokens, language, prefix_blocks and tokens_per_block.
  void finish(RequestFeatures& features) const;

  int64_t tokens() const;
  std::string language() const;

 private:
  void count(std::string_view text);
  void hash(std::string_view text);

  size_t bytes_ = 0;
  size_t roles_ = 0;
  size_t high_bytes_ = 0;              // with the top bit set
  std::array<uint64_t, 256> leads_{};  // of those, how often each
  uint64_t hash_;
  std::array<char, kPrefixBlockBytes> block_{};
  size_t block_size_ = 0;
  std::vector<uint64_t> blocks_;
};

// The salt of a model's prompts.
uint64_t prefix_salt(std::string_view model, std::string_view scope = {});

}  // namespace spillway::gateway
