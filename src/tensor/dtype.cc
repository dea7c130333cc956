#include "tensor/dtype.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <string>

namespace spillway::tensor {
namespace {

struct Row {
  DType dtype;
  size_t size;
  std::string_view name;
  std::string_view stored_name;  // as safetensors headers spell it
};

constexpr std::array<Row, 12> kRows = {{
    {DType::kF32, 4, "f32", "F32"},
    {DType::kBF16, 2, "bf16", "BF16"},
    {DType::kF16, 2, "f16", "F16"},
    {DType::kF8E4M3, 1, "f8e4m3", "F8_E4M3"},
    {DType::kF8E5M2, 1, "f8e5m2", "F8_E5M2"},
    {DType::kI8, 1, "i8", "I8"},
    {DType::kU8, 1, "u8", "U8"},
    {DType::kI16, 2, "i16", "I16"},
    {DType::kI32, 4, "i32", "I32"},
    {DType::kI64, 8, "i64", "I64"},
    {DType::kF64, 8, "f64", "F64"},
    {DType::kBool, 1, "bool", "BOOL"},
}};

const Row& row(DType dtype) {
  const auto index = static_cast<size_t>(dtype);
  SW_CHECK(index < kRows.size() && kRows[index].dtype == dtype, "the table of types is out of order");
  return kRows[index];
}

}  // namespace

size_t size_of(DType dtype) { return row(dtype).size; }
std::string_view name_of(DType dtype) { return row(dtype).name; }

Result<DType> parse_dtype(std::string_view text) {
  for (const Row& candidate : kRows) {
    if (text == candidate.name || text == candidate.stored_name) return candidate.dtype;
  }
  return invalid("expected an element type such as BF16, found \"" + std::string(text) + "\"");
}

float bf16_to_float(uint16_t bits) { return std::bit_cast<float>(uint32_t{bits} << 16); }

float f16_to_float(uint16_t bits) {
  const int exponent = (bits >> 10) & 31;
  const int mantissa = bits & 1023;
  const float sign = (bits & 0x8000) != 0 ? -1.0f : 1.0f;
  if (exponent == 0) return sign * std::ldexp(static_cast<float>(mantissa), -24);
  if (exponent == 31) return mantissa == 0 ? sign * INFINITY : NAN;
  return sign * std::ldexp(static_cast<float>(1024 + mantissa), exponent - 25);
}

float f8e4m3_to_float(uint8_t bits) {
  const int exponent = (bits >> 3) & 15;
  const int mantissa = bits & 7;
  const float sign = (bits & 0x80) != 0 ? -1.0f : 1.0f;
  if ((bits & 0x7f) == 0x7f) return NAN;
  if (exponent == 0) return sign * std::ldexp(static_cast<float>(mantissa), -9);
  return sign * std::ldexp(static_cast<float>(8 + mantissa), exponent - 10);
}

uint16_t float_to_bf16(float value) {
  uint32_t bits = std::bit_cast<uint32_t>(value);
  if ((bits & 0x7fffffff) > 0x7f800000) return static_cast<uint16_t>((bits >> 16) | 64);  // a quiet NaN
  bits += 0x7fff + ((bits >> 16) & 1);
  return static_cast<uint16_t>(bits >> 16);
}

namespace {

// Rounds to a small float with `mantissa_bits` and the least exponent `exponent_min` (of the last place of subnormals).
float round_to(float magnitude, int mantissa_bits, int exponent_min) {
  int exponent = 0;
  std::frexp(magnitude, &exponent);
  const int unit = std::max(exponent - 1 - mantissa_bits, exponent_min);
  return std::ldexp(std::nearbyint(std::ldexp(magnitude, -unit)), unit);
}

}  // namespace

uint16_t float_to_f16(float value) {
  const uint16_t sign = std::signbit(value) ? 0x8000 : 0;
  if (std::isnan(value)) return sign | 0x7e00;
  const float magnitude = std::fabs(value) > 1e6f ? 1e6f : round_to(std::fabs(value), 10, -24);
  if (magnitude > 65504.0f) return sign | 0x7c00;
  if (magnitude < std::ldexp(1.0f, -14)) return sign | static_cast<uint16_t>(std::ldexp(magnitude, 24));
  int exponent = 0;
  const float fraction = std::frexp(magnitude, &exponent);  // in [0.5, 1)
  const auto mantissa = static_cast<uint16_t>(std::ldexp(fraction, 11)) & 1023;
  return static_cast<uint16_t>(sign | ((exponent + 14) << 10) | mantissa);
}

uint8_t float_to_f8e4m3(float value) {
  const uint8_t sign = std::signbit(value) ? 0x80 : 0;
  if (std::isnan(value)) return sign | 0x7f;
  const float magnitude = std::fabs(value) > 448.0f ? 448.0f : round_to(std::fabs(value), 3, -9);
  if (magnitude < std::ldexp(1.0f, -6)) return sign | static_cast<uint8_t>(std::ldexp(magnitude, 9));
  int exponent = 0;
  const float fraction = std::frexp(magnitude, &exponent);
  const auto mantissa = static_cast<uint8_t>(std::ldexp(fraction, 4)) & 7;
  return static_cast<uint8_t>(sign | ((exponent + 6) << 3) | mantissa);
}

}  // namespace spillway::tensor
