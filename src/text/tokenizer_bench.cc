// tokenizer_bench TOKENIZER.json TEXT: load time, encoding and decoding speed, the best of several runs.
#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <fstream>
#include <iterator>
#include <string>

#include "text/tokenizer.h"

namespace {

std::string read_file(const char* path) {
  std::ifstream in(path, std::ios::binary);
  return {(std::istreambuf_iterator<char>(in)), {}};
}

template <class Work>
double best_seconds(int runs, Work work) {
  double best = 1e9;
  for (int i = 0; i < runs; ++i) {
    const auto start = std::chrono::steady_clock::now();
    work();
    best = std::min(best, std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count());
  }
  return best;
}

}  // namespace

int main(int argc, char** argv) {
  using namespace spillway::text;
  if (argc != 3) {
    fmt::print(stderr, "usage: tokenizer_bench TOKENIZER.json TEXT\n");
    return 2;
  }
  const std::string json = read_file(argv[1]);
  const std::string text = read_file(argv[2]);
  auto tokenizer = Tokenizer::parse(json);
  if (!tokenizer.ok()) {
    fmt::print(stderr, "{}\n", tokenizer.error().message);
    return 1;
  }
  const double load = best_seconds(5, [&] { (void)Tokenizer::parse(json); });
  Encoding encoding;
  const double encode = best_seconds(3, [&] { encoding = (*tokenizer)->encode(text, {.add_special_tokens = false}); });
  std::string decoded;
  const double decode = best_seconds(3, [&] { decoded = (*tokenizer)->decode(encoding.ids, false); });
  const double megabytes = double(text.size()) / 1e6;
  size_t short_bytes = 0;
  const double brief = best_seconds(3, [&] {
    short_bytes = 0;
    for (size_t at = 0; at < text.size() && short_bytes < 4'000'000; at += 400) {
      (void)(*tokenizer)->encode(std::string_view(text).substr(at, 400), {.add_special_tokens = false});
      short_bytes += 400;
    }
  });
  fmt::print("load {:.1f} ms ({:.1f} MB, {} ids)\n", load * 1e3, double(json.size()) / 1e6, (*tokenizer)->vocab_size());
  fmt::print("encode {:.1f} MB/s ({:.1f} MB, {} ids); texts of 400 bytes {:.1f} MB/s; decode {:.1f} MB/s\n",
             megabytes / encode, megabytes, encoding.ids.size(), double(short_bytes) / 1e6 / brief, megabytes / decode);
  return 0;
}
