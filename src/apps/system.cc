#include "apps/system.h"

#include <arpa/inet.h>
#include <fmt/format.h>
#include <link.h>
#include <netinet/in.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <ctime>
#include <fstream>
#include <sstream>
#include <string_view>

namespace spillway::apps {
namespace {

// 0 when the file is missing or says "max".
int64_t read_number(const char* path) {
  std::ifstream in(path);
  int64_t value = 0;
  return in >> value ? value : 0;
}

}  // namespace

MemoryReading read_memory() {
  MemoryReading reading;
  std::ifstream in("/proc/meminfo");
  std::string name, unit;
  for (int64_t kib = 0; in >> name >> kib && std::getline(in, unit);) {
    if (name == "MemTotal:") reading.total = kib * 1024;
    if (name == "MemAvailable:") reading.available = kib * 1024;
  }
  reading.limit = read_number("/sys/fs/cgroup/memory.max");
  reading.limit_used = read_number("/sys/fs/cgroup/memory.current");
  std::ifstream stat("/sys/fs/cgroup/memory.stat");
  for (int64_t bytes = 0; stat >> name >> bytes;) {
    if (name == "file") reading.limit_used -= bytes;  // the page cache gives way
  }
  return reading;
}

int64_t resident_bytes() {
  std::ifstream in("/proc/self/statm");
  int64_t size = 0, resident = 0;
  in >> size >> resident;
  return resident * ::sysconf(_SC_PAGESIZE);
}

int64_t peak_resident_bytes() {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  return int64_t(usage.ru_maxrss) * 1024;
}

void release_start_pages() {
  const auto page = static_cast<uintptr_t>(::sysconf(_SC_PAGESIZE));
  const auto release = [](dl_phdr_info* object, size_t, void* context) {
    const uintptr_t mask = *static_cast<const uintptr_t*>(context) - 1;
    if (std::string_view(object->dlpi_name).starts_with("linux-vdso")) return 0;
    for (int i = 0; i < object->dlpi_phnum; ++i) {
      const auto& segment = object->dlpi_phdr[i];
      // Never what may have been written, relocations included: those are in writable segments.
      if (segment.p_type != PT_LOAD || (segment.p_flags & PF_W) != 0) continue;
      const uintptr_t begin = (object->dlpi_addr + segment.p_vaddr) & ~mask;
      const uintptr_t end = (object->dlpi_addr + segment.p_vaddr + segment.p_memsz + mask) & ~mask;
      ::madvise(reinterpret_cast<void*>(begin), end - begin, MADV_DONTNEED);
    }
    return 0;
  };
  ::dl_iterate_phdr(release, const_cast<uintptr_t*>(&page));
}

double seconds_since_process_start() {
  std::ifstream in("/proc/self/stat");
  std::string line;
  std::getline(in, line);
  const size_t name_end = line.rfind(')');
  if (name_end == std::string::npos) return 0;
  std::istringstream fields(line.substr(name_end + 1));
  std::string skipped;
  constexpr int kFieldsBetween = 19;  // from the state to the start time, proc(5)
  for (int i = 0; i < kFieldsBetween; ++i) fields >> skipped;
  double ticks = 0;
  fields >> ticks;
  timespec now{};
  clock_gettime(CLOCK_BOOTTIME, &now);
  return double(now.tv_sec) + double(now.tv_nsec) * 1e-9 - ticks / double(sysconf(_SC_CLK_TCK));
}

std::string format_bytes(int64_t bytes) {
  const char* units[] = {"B", "KiB", "MiB", "GiB", "TiB"};
  double value = double(bytes);
  int unit = 0;
  while (value >= 1024 && unit < 4) value /= 1024, ++unit;
  return unit == 0 ? fmt::format("{} B", bytes) : fmt::format("{:.1f} {}", value, units[unit]);
}

int port_error(const std::string& host, int port) {
  const bool v6 = host.find(':') != std::string::npos;
  const int fd = socket(v6 ? AF_INET6 : AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (fd < 0) return errno;
  const int on = 1;
  setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
  sockaddr_in v4_address{};
  sockaddr_in6 v6_address{};
  v4_address.sin_family = AF_INET;
  v4_address.sin_port = htons(uint16_t(port));
  v6_address.sin6_family = AF_INET6;
  v6_address.sin6_port = htons(uint16_t(port));
  const bool parsed = v6 ? inet_pton(AF_INET6, host.c_str(), &v6_address.sin6_addr) == 1
                         : inet_pton(AF_INET, host.c_str(), &v4_address.sin_addr) == 1;
  int error = parsed ? 0 : EINVAL;
  if (parsed && bind(fd, v6 ? reinterpret_cast<sockaddr*>(&v6_address) : reinterpret_cast<sockaddr*>(&v4_address),
                     v6 ? sizeof(v6_address) : sizeof(v4_address)) != 0) {
    error = errno;
  }
  close(fd);
  return error;
}

bool is_terminal(int fd) { return isatty(fd) == 1; }

bool colours(int fd) { return is_terminal(fd) && std::getenv("NO_COLOR") == nullptr; }

}  // namespace spillway::apps
