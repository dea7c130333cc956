// What the commands read from the machine and show to people. Any thread.
#pragma once

#include <cstdint>
#include <string>

namespace spillway::apps {

struct MemoryReading {
  int64_t total = 0;
  int64_t available = 0;
  int64_t limit = 0;  // of the control group; 0: none
  int64_t limit_used = 0;
  // What a model may still take.
  int64_t usable() const { return limit > 0 && limit - limit_used < available ? limit - limit_used : available; }
};
MemoryReading read_memory();

// Resident memory of this process: now, and the highest so far.
int64_t resident_bytes();
int64_t peak_resident_bytes();

// Lets go of the program's and its libraries' pages that only the start needed (relocations, parsing, set-up): code and
// constants are mapped in 64 KiB at a time and would stay. What is used again comes back from the page cache.
void release_start_pages();

// Seconds since the kernel started this process.
double seconds_since_process_start();

// 0 when a server could listen there, else errno. host is a numeric address.
int port_error(const std::string& host, int port);

std::string format_bytes(int64_t bytes);  // "1.5 GiB"

bool is_terminal(int fd);
bool colours(int fd);  // a terminal, and NO_COLOR is not set

}  // namespace spillway::apps
