// DType: the element types of tensors, their sizes and names. Values only; any thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

#include "base/result.h"

namespace spillway::tensor {

enum class DType : uint8_t { kF32, kBF16, kF16, kF8E4M3, kF8E5M2, kI8, kU8, kI16, kI32, kI64, kF64, kBool };

// Bytes of one element.
size_t size_of(DType dtype);

// The short name of messages and of --precision: "f32", "bf16", "f8e4m3", ...
std::string_view name_of(DType dtype);

// Accepts the short names and the safetensors ones ("F32", "BF16", "F8_E4M3", "I64", ...).
Result<DType> parse_dtype(std::string_view text);

// Exact conversions to float32, and round-to-nearest-even back.
float bf16_to_float(uint16_t bits);
float f16_to_float(uint16_t bits);
float f8e4m3_to_float(uint8_t bits);
uint16_t float_to_bf16(float value);
uint16_t float_to_f16(float value);
uint8_t float_to_f8e4m3(float value);  // saturates at 448

}  // namespace spillway::tensor
