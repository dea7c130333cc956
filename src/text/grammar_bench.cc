// grammar_bench TOKENIZER.json: building the vocabulary trie, and the masks of a walk through a schema, new and seen
// before. Times are of this thread's processor.
#include <fmt/format.h>

#include <algorithm>
#include <boost/json/parse.hpp>
#include <ctime>
#include <fstream>
#include <iterator>
#include <string>
#include <vector>

#include "text/grammar.h"

namespace {

double milliseconds() {
  timespec now;
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return double(now.tv_sec) * 1e3 + double(now.tv_nsec) / 1e6;
}

struct Walk {
  double worst = 0;
  double sum = 0;
  int steps = 0;
};

}  // namespace

int main(int argc, char** argv) {
  using namespace spillway::text;
  if (argc != 2) {
    fmt::print(stderr, "usage: grammar_bench TOKENIZER.json\n");
    return 2;
  }
  std::ifstream in(argv[1], std::ios::binary);
  const std::string json((std::istreambuf_iterator<char>(in)), {});
  const auto tokenizer = Tokenizer::parse(json).value();
  double start = milliseconds();
  const auto trie = TokenTrie::build(*tokenizer, tokenizer->vocab_size(), {0});
  fmt::print("trie of {} ids: {:.1f} ms\n", tokenizer->vocab_size(), milliseconds() - start);
  const auto schema = boost::json::parse(
      R"({"type":"object","properties":{"name":{"type":"string"},"tags":{"type":"array","items":{"type":"string"}},)"
      R"("age":{"type":"integer","minimum":0,"maximum":150}},"required":["name","tags","age"]})");
  const std::string text = R"({"name": "Grace Hopper", "tags": ["navy", "compilers", "COBOL"], "age": 85})";
  start = milliseconds();
  const auto grammar = Grammar::json_schema(schema).value();
  fmt::print("schema: {:.2f} ms\n", milliseconds() - start);
  std::vector<uint64_t> words((size_t(tokenizer->vocab_size()) + 63) / 64);
  for (const char* const pass : {"new", "seen"}) {
    const auto state = GrammarState::start(grammar, trie);
    Walk walk;
    for (const int32_t token : tokenizer->encode(text, {.add_special_tokens = false}).ids) {
      start = milliseconds();
      state->allowed(words);
      const double took = milliseconds() - start;
      walk.worst = std::max(walk.worst, took);
      walk.sum += took;
      ++walk.steps;
      if (!(words[size_t(token) / 64] >> (token % 64) & 1)) {
        fmt::print(stderr, "token {} is not allowed\n", token);
        return 1;
      }
      state->accept(token);
    }
    fmt::print("{} masks: {} steps, mean {:.1f} us, worst {:.1f} us\n", pass, walk.steps, walk.sum * 1e3 / walk.steps,
               walk.worst * 1e3);
  }
  return 0;
}
