// Trace: what the program's threads did and for how long, for a few seconds on demand. A Span costs one relaxed load and a
// branch while nobody traces; while somebody does, two clock readings and one store into its thread's own ring, which
// nobody else writes. Reading happens after stop(): the rings are copied and written as Chrome's trace JSON, which Perfetto
// opens. Names are string literals: a ring keeps the pointers. Not its job: metrics, requests' histories.
#pragma once

#include <atomic>
#include <cstdint>
#include <string>
#include <string_view>

namespace spillway::trace {

inline std::atomic<bool> active{false};
inline bool on() { return active.load(std::memory_order_relaxed); }

struct Event {
  enum class Kind : uint8_t { kSpan, kCounter, kAsync };
  int64_t begin_ns = 0;
  int64_t end_ns = 0;            // spans
  const char* category = "";
  const char* name = "";
  const char* label = nullptr;   // of value; null: none
  int64_t value = 0;
  uint64_t id = 0;               // of an async span: those of one id are drawn in one row
  Kind kind = Kind::kSpan;
};

int64_t now_ns();
void record(const Event& event);

// A span on this thread, from construction to destruction.
class Span {
 public:
  Span(const char* category, const char* name, const char* label = nullptr, int64_t value = 0) {
    if (!on()) [[likely]] return;
    category_ = category;
    name_ = name;
    label_ = label;
    value_ = value;
    begin_ns_ = now_ns();
  }
  ~Span() {
    if (begin_ns_ != 0) [[unlikely]] end();
  }
  void set_value(int64_t value) { value_ = value; }
  Span(const Span&) = delete;
  Span& operator=(const Span&) = delete;

 private:
  void end();

  int64_t begin_ns_ = 0;   // 0: nobody traces, and the rest is never read
  const char* category_;
  const char* name_;
  const char* label_;
  int64_t value_;
};

// A span that awaits on the way and may end on another thread: begin by now_ns() (0 while not tracing), end here.
inline int64_t begin_async() { return on() ? now_ns() : 0; }
void end_async(const char* category, const char* name, uint64_t id, int64_t begin_ns, const char* label = nullptr,
               int64_t value = 0);

// A number over time.
inline void counter(const char* name, int64_t value) {
  if (!on()) [[likely]] return;
  record({.begin_ns = now_ns(), .category = "counter", .name = name, .value = value, .kind = Event::Kind::kCounter});
}

// How this thread is called in the trace; before its first event.
void name_thread(std::string_view name);

// False when somebody traces already. Events of an earlier trace are forgotten.
bool start();
// Ends the trace and gives it as JSON ({"traceEvents": [...]}).
std::string stop();

// Events that were overwritten since start(), because a ring was full.
uint64_t overwritten();

}  // namespace spillway::trace
