// Raw bytes through the server's and the client's parsers: whole, and cut in pieces whose size the first byte chooses.
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include "base/check.h"
#include "net/request_parser.h"
#include "net/response_parser.h"

namespace {

using spillway::net::RequestParser;

// As a connection does: what was not taken is shown again with more behind it.
std::string requests(std::string_view bytes, size_t cut) {
  std::string log, held;
  auto parser = std::make_unique<RequestParser>(spillway::net::RequestLimits{1024, 4096});
  while (!bytes.empty() || !held.empty()) {
    const size_t part = std::min(cut, bytes.size());
    held.append(bytes.substr(0, part));
    bytes.remove_prefix(part);
    const size_t used = parser->feed(held);
    SW_CHECK(used <= held.size(), "took more than there was");
    held.erase(0, used);
    if (parser->state() == RequestParser::State::kFailed) return log + "!";
    if (parser->state() == RequestParser::State::kDone) {
      const auto request = parser->take();
      SW_CHECK(request.body.size() <= 4096, "body over its bound");
      log += request.method + request.path + request.query + request.body + ";";
      parser = std::make_unique<RequestParser>(spillway::net::RequestLimits{1024, 4096});
    } else if (part == 0) {
      break;
    }
  }
  return log;
}

void responses(std::string_view bytes, size_t cut) {
  spillway::net::ResponseParser parser(false, 4096);
  std::string held;
  while (!bytes.empty() && !parser.done()) {
    const size_t part = std::min(cut, bytes.size());
    held.append(bytes.substr(0, part));
    bytes.remove_prefix(part);
    const auto used = parser.feed(held);
    if (!used.ok()) return;
    held.erase(0, *used);
  }
  if (!parser.done()) (void)parser.end_of_stream().ok();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0 || size > 1 << 16) return 0;
  const std::string_view bytes(reinterpret_cast<const char*>(data) + 1, size - 1);
  const size_t cut = 1 + data[0] % 64;
  const std::string whole = requests(bytes, bytes.size() + 1), cuts = requests(bytes, cut);
  // A failure may be noticed earlier or later, but what was understood before it is the same.
  const std::string_view shorter = whole.size() < cuts.size() ? whole : cuts;
  const size_t common = shorter.ends_with('!') ? shorter.size() - 1 : shorter.size();
  SW_CHECK(whole.compare(0, common, cuts, 0, common) == 0, "the cut of the stream changed its meaning");
  responses(bytes, bytes.size() + 1);
  responses(bytes, cut);
  return 0;
}
