// A 64-bit checksum at memory speed, for files that we wrote ourselves: two running sums (Fletcher's) in sixteen 64-bit
// lanes. It finds cut, zeroed, swapped and flipped bytes; it is no defence against somebody who forges them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

namespace spillway::weights {

uint64_t checksum(std::span<const std::byte> bytes);

}  // namespace spillway::weights
