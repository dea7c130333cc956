// PrefixLedger: which beginnings of prompts this server's prefix cache holds, in the words of the gateways before it. A
// gateway sends the hashes of a prompt's blocks along (X-Spillway-Prefix) and asks for those that are still held
// (GET /v1/cached_prefixes), so that each of several gateways knows what the others' requests have left here. The
// hashes mean nothing to this server: they are bounded by how many tokens the cache holds now, the least recently used
// go first. Any thread; each call holds one lock briefly.
#pragma once

#include <cstdint>
#include <list>
#include <mutex>
#include <string>
#include <string_view>
#include <unordered_map>

namespace spillway::server {

inline constexpr std::string_view kPrefixHeader = "X-Spillway-Prefix";

class PrefixLedger {
 public:
  static constexpr size_t kBlocksMax = 4096;      // remembered
  static constexpr size_t kBlocksToldMax = 1024;  // in one answer

  PrefixLedger();

  // A prompt was computed: "TOKENS:HASH,HASH,...", tokens of a block and the blocks' hashes (hexadecimal), first to
  // last. Text that is not so is ignored, for it is a client's.
  void served(std::string_view header);

  // {"epoch":"...","blocks":["HASH",...]}: most recent first, roots before their leaves, no more than
  // tokens_held. Another epoch is another process, whose cache began empty.
  std::string json(int64_t tokens_held) const;

 private:
  struct Block {
    uint64_t hash = 0;
    int tokens = 0;
  };

  void touch(uint64_t hash, int tokens);  // mutex_ is held

  const std::string epoch_;
  mutable std::mutex mutex_;
  std::list<Block> recent_;  // most recent first
  std::unordered_map<uint64_t, std::list<Block>::iterator> places_;
};

}  // namespace spillway::server
