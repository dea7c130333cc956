// Prober: asks upstreams how they are, each on its own coroutine of one thread, so that one that hangs delays nobody
// else's question. A Spillway answers with its load, which becomes a LoadReport; others tell only that they are up.
// Owned by the gateway whose upstreams it asks; ends at once when that is destroyed.
#pragma once

#include <boost/asio/io_context.hpp>
#include <memory>
#include <thread>
#include <vector>

#include "gateway/lane.h"
#include "gateway/policies/prefix_index.h"
#include "gateway/upstream.h"

namespace spillway::gateway {

class Prober {
 public:
  // Null when none of them is to be asked.
  static std::unique_ptr<Prober> start(const std::vector<std::shared_ptr<Upstream>>& upstreams,
                                       std::shared_ptr<PrefixIndex> prefixes);
  ~Prober();

 private:
  Prober() : lane_(std::make_shared<Lane>(context_.get_executor(), 256)) {}
  static asio::awaitable<void> watch(std::shared_ptr<Lane> lane, std::shared_ptr<Upstream> upstream, std::string path);
  static asio::awaitable<void> watch_prefixes(std::shared_ptr<Lane> lane, std::shared_ptr<Upstream> upstream,
                                              std::shared_ptr<PrefixIndex> prefixes, size_t index);

  asio::io_context context_{1};
  std::shared_ptr<Lane> lane_;
  std::thread thread_;
};

// What a Spillway says at /health of the models it serves, as one report; nothing when the text is something else.
std::optional<LoadReport> parse_load_report(std::string_view body);

}  // namespace spillway::gateway
