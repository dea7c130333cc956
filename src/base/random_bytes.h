// Unguessable bytes for ids, from the system's generator for secrets, fetched in blocks for each thread: an id costs no
// call into the system. Any thread. Not for keys: what is to stay secret must not lie in a buffer of its neighbours.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

namespace spillway {

void random_bytes(void* to, size_t count);

// count bytes as lower-case hexadecimal digits.
std::string random_hex(size_t count);

// text must have room for 2 * count.
void write_hex(const uint8_t* bytes, size_t count, char* text);

}  // namespace spillway
