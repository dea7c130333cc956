// Packed bytes and kPackingVersion belong together: files of packed weights outlive the program that wrote them.
#include <gtest/gtest.h>

#include <cstring>

#include "kernels/isa.h"
#include "kernels/linear.h"
#include "kernels/pack_store.h"

namespace spillway::kernels {
namespace {

using tensor::DType;
using tensor::Tensor;

uint64_t fnv(uint64_t hash, const Tensor& tensor) {
  for (size_t i = 0; i < tensor.bytes(); ++i) hash = (hash ^ uint64_t(tensor.view().data[i])) * 1099511628211ull;
  return hash;
}

// Small numbers of either sign in any stored type; 70 x 150, so that panels, groups and blocks have ragged edges.
Tensor matrix(DType dtype, int64_t n, int64_t k) {
  Tensor tensor(dtype, {n, k});
  uint64_t state = 88172645463325252ull;
  for (int64_t i = 0; i < n * k; ++i) {
    state ^= state << 13, state ^= state >> 7, state ^= state << 17;
    const float value = float(int64_t(state % 2001) - 1000) / 512;
    const uint16_t half = dtype == DType::kBF16 ? tensor::float_to_bf16(value) : tensor::float_to_f16(value);
    if (dtype == DType::kF32) std::memcpy(tensor.view().data + i * 4, &value, 4);
    if (dtype == DType::kBF16 || dtype == DType::kF16) std::memcpy(tensor.view().data + i * 2, &half, 2);
    if (dtype == DType::kF8E4M3) tensor.view().data[i] = std::byte(state % 2 * 128 + state / 2 % 120);
  }
  return tensor;
}

uint64_t packed_hash(DType dtype, Precision precision) {
  tensor::Stream stream(1);
  const Tensor weight = matrix(dtype, 70, 150);
  Tensor scales;
  WeightSource source{.weight = weight, .scales = {}};
  if (dtype == DType::kF8E4M3) {
    scales = matrix(DType::kF32, 1, 2);
    source.scales = scales;
  }
  const auto packed = pack_linear(source, precision, stream);
  EXPECT_TRUE(packed.ok());
  return fnv(fnv(14695981039346656037ull, packed->data), packed->scales);
}

struct Case {
  DType dtype;
  Precision precision;
  uint64_t expected;
};

// When this fails because the layout was meant to change: raise kPackingVersion, then put the new numbers here.
TEST(Packing, BytesAreThoseOfThisVersion) {
  static_assert(kPackingVersion == 2);
  const Case cases[] = {
      {DType::kF32, Precision::kFp32, 1097506184962999019u},
      {DType::kF16, Precision::kFp32, 8584217855643961877u},
      {DType::kBF16, Precision::kFp32, 18031790415947850682u},
      {DType::kF8E4M3, Precision::kFp32, 16233539406012501519u},
      {DType::kF32, Precision::kBf16, 18031790415947850682u},
      {DType::kBF16, Precision::kBf16, 18031790415947850682u},
      {DType::kF8E4M3, Precision::kBf16, 11129064077277973931u},
      {DType::kBF16, Precision::kInt8, 9642470700128109771u},
      {DType::kF8E4M3, Precision::kInt8, 1229353648846666989u},
      {DType::kF32, Precision::kW8A8, 15265530797026661747u},
  };
  const IsaLevel before = active_isa();
  for (const IsaLevel isa : available_isas()) {
    force_isa(isa);
    for (const Case& c : cases) {
      EXPECT_EQ(packed_hash(c.dtype, c.precision), c.expected)
          << name_of(isa) << ", stored " << tensor::name_of(c.dtype) << ", precision " << int(c.precision);
    }
  }
  force_isa(before);
}

class Recorder : public PackStore {
 public:
  std::optional<uint64_t> locate(const std::byte* bytes) override {
    return bytes == mapped ? std::optional<uint64_t>(place) : std::nullopt;
  }
  std::optional<PackedBytes> find(PackRequest& request) override {
    names.push_back(request.name());
    return give;
  }
  void keep(const PackRequest&, PackedLinear&) override { ++kept; }
  const std::byte* mapped = nullptr;
  uint64_t place = 0;
  std::optional<PackedBytes> give;
  std::vector<std::string> names;
  int kept = 0;
};

TEST(PackStore, IsAskedWithinItsScopeAndTellsWeightsApart) {
  tensor::Stream stream(1);
  const Tensor first = matrix(DType::kBF16, 70, 150), second = matrix(DType::kBF16, 70, 150);
  second.view().data[5] ^= std::byte{1};
  Recorder recorder;
  {
    const PackScope scope(&recorder);
    for (const Tensor* weight : {&first, &second}) {
      ASSERT_TRUE(pack_linear(WeightSource{.weight = *weight, .scales = {}}, Precision::kBf16, stream).ok());
    }
    EXPECT_EQ(PackScope::store(), &recorder);
  }
  EXPECT_EQ(PackScope::store(), nullptr);
  ASSERT_TRUE(pack_linear(WeightSource{.weight = first, .scales = {}}, Precision::kBf16, stream).ok());
  ASSERT_EQ(recorder.names.size(), 2u);
  EXPECT_NE(recorder.names[0], recorder.names[1]);
  EXPECT_EQ(recorder.kept, 2);
}

TEST(PackStore, TellsMappedWeightsApartByTheirPlace) {
  tensor::Stream stream(1);
  const Tensor weight = matrix(DType::kBF16, 70, 150);
  Recorder recorder;
  const PackScope scope(&recorder);
  recorder.mapped = weight.view().data;
  for (const uint64_t place : {1000, 2000, 1000}) {
    recorder.place = place;
    ASSERT_TRUE(pack_linear(WeightSource{.weight = weight, .scales = {}}, Precision::kBf16, stream).ok());
  }
  EXPECT_NE(recorder.names[0], recorder.names[1]);
  EXPECT_EQ(recorder.names[0], recorder.names[2]);
}

TEST(PackStore, BytesOfAnotherSizeAreNotUsed) {
  tensor::Stream stream(1);
  const Tensor weight = matrix(DType::kBF16, 70, 150);
  const WeightSource source{.weight = weight, .scales = {}};
  const auto packed = pack_linear(source, Precision::kBf16, stream);
  Recorder recorder;
  const PackScope scope(&recorder);
  const std::span<const std::byte> bytes(packed->data.view().data, packed->data.bytes());
  recorder.give = PackedBytes{bytes, {}};
  EXPECT_EQ(pack_linear(source, Precision::kBf16, stream)->data.view().data, packed->data.view().data);
  EXPECT_EQ(recorder.kept, 0);
  for (const PackedBytes& wrong : {PackedBytes{bytes.first(bytes.size() - 1), {}}, PackedBytes{bytes, bytes}}) {
    recorder.give = wrong;
    EXPECT_NE(pack_linear(source, Precision::kBf16, stream)->data.view().data, packed->data.view().data);
  }
  EXPECT_EQ(recorder.kept, 2);
}

}  // namespace
}  // namespace spillway::kernels
