#include "base/trace.h"

#include <fmt/format.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <iterator>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

namespace spillway::trace {
namespace {

constexpr uint64_t kRingEvents = 1 << 16;  // 4.5 MiB a thread, made at its first event in a trace

// One thread's events. The thread alone writes; readers look only when tracing is off and writers have had time to end.
struct Ring {
  int number = 0;
  std::string name;
  std::unique_ptr<Event[]> events;
  std::atomic<uint64_t> written{0};
  std::atomic<uint64_t> generation{0};
  std::atomic<bool> alive{true};
};

struct Rings {
  std::mutex mutex;
  std::vector<std::shared_ptr<Ring>> all;
  std::atomic<uint64_t> generation{0};
  int next_number = 1;
  bool tracing = false;
};

Rings& rings() {
  static Rings* const kRings = new Rings;  // outlives every thread
  return *kRings;
}

struct ThreadRing {
  ThreadRing() : ring(std::make_shared<Ring>()) {
    Rings& shared = rings();
    std::lock_guard lock(shared.mutex);
    std::erase_if(shared.all, [&](const auto& other) { return !other->alive && !shared.tracing; });
    ring->number = shared.next_number++;
    shared.all.push_back(ring);
  }
  ~ThreadRing() { ring->alive = false; }
  std::shared_ptr<Ring> ring;
};

Ring& own_ring() {
  thread_local ThreadRing own;
  return *own.ring;
}

void append_string(std::string& out, std::string_view text) {
  out += '"';
  for (const char c : text) {
    if (c == '"' || c == '\\') out += '\\';
    if (static_cast<unsigned char>(c) >= 0x20) out += c;
  }
  out += '"';
}

void append_event(std::string& out, const Event& event, int thread, int64_t origin_ns) {
  const auto to = std::back_inserter(out);
  const double ts = static_cast<double>(event.begin_ns - origin_ns) / 1e3;
  const double duration = static_cast<double>(event.end_ns - event.begin_ns) / 1e3;
  const auto head = [&](const char* phase, double at) {
    fmt::format_to(to, ",\n{{\"ph\":\"{}\",\"pid\":1,\"tid\":{},\"ts\":{:.3f},\"cat\":", phase, thread, at);
    append_string(out, event.category);
    out += ",\"name\":";
    append_string(out, event.name);
  };
  const auto arguments = [&] {
    if (event.label == nullptr) return;
    out += ",\"args\":{";
    append_string(out, event.label);
    fmt::format_to(to, ":{}}}", event.value);
  };
  switch (event.kind) {
    case Event::Kind::kSpan:
      head("X", ts);
      fmt::format_to(to, ",\"dur\":{:.3f}", duration);
      arguments();
      break;
    case Event::Kind::kCounter:
      head("C", ts);
      fmt::format_to(to, ",\"args\":{{\"value\":{}}}", event.value);
      break;
    case Event::Kind::kAsync:
      head("b", ts);
      fmt::format_to(to, ",\"id\":\"{:x}\"", event.id);
      arguments();
      out += '}';
      head("e", ts + duration);
      fmt::format_to(to, ",\"id\":\"{:x}\"", event.id);
      break;
  }
  out += '}';
}

}  // namespace

int64_t now_ns() {
  return std::chrono::steady_clock::now().time_since_epoch().count();
}

void record(const Event& event) {
  Ring& ring = own_ring();
  const uint64_t generation = rings().generation.load(std::memory_order_acquire);
  if (ring.generation.load(std::memory_order_relaxed) != generation) {
    if (!ring.events) ring.events.reset(new Event[kRingEvents]);
    ring.written.store(0, std::memory_order_relaxed);
    ring.generation.store(generation, std::memory_order_release);
  }
  const uint64_t index = ring.written.load(std::memory_order_relaxed);
  ring.events[index % kRingEvents] = event;
  ring.written.store(index + 1, std::memory_order_release);
}

void Span::end() {
  if (!on()) return;  // stopped meanwhile: the rings are being read
  record({.begin_ns = begin_ns_, .end_ns = now_ns(), .category = category_, .name = name_, .label = label_, .value = value_});
}

void end_async(const char* category, const char* name, uint64_t id, int64_t begin_ns, const char* label,
               int64_t value) {
  if (begin_ns == 0 || !on()) return;
  record({.begin_ns = begin_ns, .end_ns = now_ns(), .category = category, .name = name, .label = label, .value = value,
          .id = id, .kind = Event::Kind::kAsync});
}

void name_thread(std::string_view name) {
  Ring& ring = own_ring();
  std::lock_guard lock(rings().mutex);
  ring.name = name;
}

bool start() {
  Rings& shared = rings();
  std::lock_guard lock(shared.mutex);
  if (shared.tracing) return false;
  shared.tracing = true;
  shared.generation.fetch_add(1, std::memory_order_release);
  active.store(true, std::memory_order_seq_cst);
  return true;
}

std::string stop() {
  active.store(false, std::memory_order_seq_cst);
  // A thread that saw "on" just now finishes its one store: there is nothing to wait on, for writers take no lock.
  std::this_thread::sleep_for(std::chrono::milliseconds(20));
  Rings& shared = rings();
  std::lock_guard lock(shared.mutex);
  const uint64_t generation = shared.generation.load();
  int64_t origin_ns = INT64_MAX;
  const auto each = [&](auto&& visit) {
    for (const auto& ring : shared.all) {
      if (ring->generation.load(std::memory_order_acquire) != generation) continue;
      const uint64_t written = ring->written.load(std::memory_order_acquire);
      const uint64_t kept = std::min(written, kRingEvents);
      for (uint64_t i = written - kept; i < written; ++i) visit(ring->events[i % kRingEvents], ring->number);
    }
  };
  each([&](const Event& event, int) { origin_ns = std::min(origin_ns, event.begin_ns); });
  std::string out = "{\"displayTimeUnit\":\"ms\",\"traceEvents\":[\n";
  fmt::format_to(std::back_inserter(out), "{{\"ph\":\"M\",\"pid\":1,\"name\":\"process_name\",\"args\":{{\"name\":\"spillway {}\"}}}}",
                 ::getpid());
  for (const auto& ring : shared.all) {
    if (ring->generation.load() != generation) continue;
    fmt::format_to(std::back_inserter(out), ",\n{{\"ph\":\"M\",\"pid\":1,\"tid\":{},\"name\":\"thread_name\",\"args\":{{\"name\":",
                   ring->number);
    append_string(out, ring->name.empty() ? "thread" : ring->name);
    out += "}}";
  }
  each([&](const Event& event, int thread) { append_event(out, event, thread, origin_ns); });
  shared.tracing = false;
  return out + "\n]}\n";
}

uint64_t overwritten() {
  Rings& shared = rings();
  std::lock_guard lock(shared.mutex);
  uint64_t lost = 0;
  for (const auto& ring : shared.all) {
    if (ring->generation.load() != shared.generation.load()) continue;
    const uint64_t written = ring->written.load();
    lost += written > kRingEvents ? written - kRingEvents : 0;
  }
  return lost;
}

}  // namespace spillway::trace
