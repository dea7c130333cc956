// Runs a fuzz target without libFuzzer: every file of the given folders, then seeded mutations of each (byte flips,
// cuts, repeats), so that CI exercises each parser on bad bytes with any compiler.
#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <random>
#include <string>
#include <vector>

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size);

namespace {

using Bytes = std::vector<uint8_t>;

void mutate(Bytes& bytes, std::mt19937& random) {
  if (bytes.empty()) return;
  const size_t at = random() % bytes.size();
  switch (random() % 4) {
    case 0:
      bytes[at] ^= uint8_t(1u << (random() % 8));
      break;
    case 1:
      bytes[at] = uint8_t(random());
      break;
    case 2:
      bytes.resize(at);
      break;
    default: {
      const size_t count = std::min<size_t>(bytes.size() - at, 1 + random() % 16);
      const Bytes piece(bytes.begin() + long(at), bytes.begin() + long(at + count));
      bytes.insert(bytes.begin() + long(at), piece.begin(), piece.end());
    }
  }
}

}  // namespace

int main(int argc, char** argv) {
  constexpr int kMutations = 300;
  int files = 0;
  for (int i = 1; i < argc; ++i) {
    for (const auto& entry : std::filesystem::directory_iterator(argv[i])) {
      std::ifstream in(entry.path(), std::ios::binary);
      const Bytes seed((std::istreambuf_iterator<char>(in)), {});
      LLVMFuzzerTestOneInput(seed.data(), seed.size());
      std::mt19937 random(uint32_t(seed.size()) * 2654435761u);
      Bytes bytes = seed;
      for (int round = 0; round < kMutations; ++round) {
        if (round % 8 == 0) bytes = seed;
        mutate(bytes, random);
        LLVMFuzzerTestOneInput(bytes.data(), bytes.size());
      }
      ++files;
    }
  }
  std::printf("%d corpus files, %d mutations each\n", files, kMutations);
  return files > 0 ? 0 : 1;
}
