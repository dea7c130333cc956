// The part of the repository that runs on the models' threads: loading, unloading, evicting, bringing back.
#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "base/log.h"
#include "metrics/metrics.h"
#include "server/model_repository.h"

namespace spillway::server {
namespace {

using std::chrono::milliseconds;

constexpr milliseconds kReleaseCheck{20};  // whether anybody still holds a version
constexpr double kIdleLooks = 8;           // at a model in the time after which it is idle

metrics::Gauge ready_gauge("spillway_models_ready", "1 for a version that answers.", {"model", "version"});
metrics::Counter loads("spillway_model_loads_total", "Loads by outcome.", {"model", "outcome"});
metrics::Counter evictions("spillway_model_evictions_total", "Idle versions whose memory was given back.", {"model"});
metrics::Counter returns("spillway_model_returns_total", "Evicted models that were brought back for a request.",
                         {"model"});
metrics::Histogram return_seconds("spillway_model_return_seconds", "Time that bringing an evicted model back took.",
                                  metrics::exponential_bounds(0.005, 2, 14), {"model"});

TimePoint now() { return std::chrono::steady_clock::now(); }

// Nobody but the repository holds it.
bool is_free(const VersionPtr& version) {
  return version.use_count() == 1 && (!version->language || version->language.use_count() == 1) &&
         (!version->one_shot || version->one_shot.use_count() == 1);
}

}  // namespace

TimePoint ModelRepository::next_look(const Entry& entry) const {
  if (entry.wanted) return entry.next_try;
  if (!entry.retired.empty()) return now() + kReleaseCheck;
  if (options_.idle_timeout_s <= 0 || newest_ready(entry, {}) == nullptr) return TimePoint::max();
  // Requests under way are seen by looking now and then; the idle time begins when none is.
  const Duration often = from_seconds(options_.idle_timeout_s / kIdleLooks);
  const TimePoint idle_at = entry.used + from_seconds(options_.idle_timeout_s);
  return std::max(std::min(idle_at, now() + often), now() + kReleaseCheck);
}

void ModelRepository::run(Entry& entry) {
  std::unique_lock lock(mutex_);
  while (true) {
    const auto due = [&] { return stopped_ || !entry.jobs.empty() || (entry.wanted && entry.next_try <= now()); };
    const TimePoint next = next_look(entry);
    if (next == TimePoint::max())
      entry.work.wait(lock, due);
    else
      entry.work.wait_until(lock, next, due);
    while (!entry.jobs.empty()) {
      auto job = std::move(entry.jobs.front());
      entry.jobs.pop_front();
      lock.unlock();
      job();
      job = nullptr;
      lock.lock();
    }
    if (stopped_) break;
    if (entry.wanted && entry.next_try <= now()) {
      lock.unlock();
      answer_waiting(entry);
      lock.lock();
    }
    look(entry, lock);
  }
  // What is left goes here, and not on a thread of what it holds.
  std::vector<VersionPtr> last;
  for (Version& at : entry.versions) last.push_back(std::move(at.loaded));
  for (Retired& retired : entry.retired) last.push_back(std::move(retired.version));
  entry.versions.clear();
  entry.retired.clear();
  lock.unlock();
}

// Takes the unloaded versions that nobody holds any more. mutex_ is held.
void ModelRepository::take_released(Entry& entry, std::vector<VersionPtr>& gone) const {
  std::erase_if(entry.retired, [&](Retired& retired) {
    const double held_s = seconds(now() - retired.since);
    if (!retired.told && held_s > options_.drain_timeout_s) {
      retired.told = true;
      SW_WARN("{} version {}: unloaded {:.0f} s ago, and requests still use it", retired.version->name,
              retired.version->version, held_s);
    }
    if (!is_free(retired.version)) return false;
    gone.push_back(std::move(retired.version));
    return true;
  });
}

// Takes the versions of a model that has had no request for as long as idle_timeout_s. mutex_ is held.
bool ModelRepository::take_idle(Entry& entry, std::vector<VersionPtr>& gone) const {
  if (options_.idle_timeout_s <= 0) return false;
  if (!idle(entry)) entry.used = now();
  if (seconds(now() - entry.used) < options_.idle_timeout_s) return false;
  bool evicted = false;
  for (Version& at : entry.versions) {
    if (!at.loaded) continue;
    gone.push_back(std::move(at.loaded));
    at.loaded = nullptr;
    at.state = VersionState::kEvicted;
    at.reason = "idle";
    evicted = true;
    evictions.with({entry.source.name}).add();
    SW_INFO("{} version {}: evicted, it had no request for {:.0f} s", entry.source.name, at.candidate.version,
            options_.idle_timeout_s);
  }
  return evicted;
}

// Frees what nobody holds any more; evicts an idle model.
void ModelRepository::look(Entry& entry, std::unique_lock<std::mutex>& lock) {
  std::vector<VersionPtr> gone;
  take_released(entry, gone);
  const bool evicted = take_idle(entry, gone);
  if (gone.empty()) return;
  lock.unlock();
  gone.clear();
  if (evicted) changed();
  lock.lock();
}

void ModelRepository::changed() const {
  for (const VersionStatus& at : index()) {
    if (!at.version.empty()) ready_gauge.with({at.name, at.version}).set(at.state == VersionState::kReady);
  }
  if (options_.changed) options_.changed();
}

// What evicting all that nobody is using would give. mutex_ is held.
int64_t ModelRepository::evictable(const Entry& but) const {
  int64_t bytes = 0;
  for (const auto& entry : entries_) {
    if (entry.get() == &but || !idle(*entry)) continue;
    for (const Version& at : entry->versions) bytes += at.loaded ? at.loaded->bytes : 0;
  }
  return bytes;
}

// Loaded, and nobody is using it. mutex_ is held.
bool ModelRepository::idle(const Entry& entry) {
  return newest_ready(entry, {}) != nullptr &&
         std::ranges::all_of(entry.versions, [](const Version& at) { return !at.loaded || is_free(at.loaded); });
}

// The least recently used model that nobody is using gives its memory back. mutex_ is held.
bool ModelRepository::evict_idlest(const Entry& but, std::vector<VersionPtr>& evicted) {
  Entry* idlest = nullptr;
  for (const auto& entry : entries_) {
    if (entry.get() == &but || !idle(*entry)) continue;
    if (idlest == nullptr || entry->used < idlest->used) idlest = entry.get();
  }
  if (idlest == nullptr) return false;
  for (Version& at : idlest->versions) {
    if (!at.loaded) continue;
    evicted.push_back(std::move(at.loaded));
    at.loaded = nullptr;
    at.state = VersionState::kEvicted;
    at.reason = "evicted to make room for " + but.source.name;
  }
  evictions.with({idlest->source.name}).add();
  SW_INFO("{}: evicted to make room for {}", idlest->source.name, but.source.name);
  return true;
}

Status ModelRepository::reserve(Entry& entry, const Candidate& candidate) {
  SW_ASSIGN(const int64_t bytes, entry.source.bytes_needed(candidate));
  std::vector<VersionPtr> evicted;
  std::unique_lock lock(mutex_);
  if (options_.memory_bytes_max > 0) {
    // Nothing is evicted in vain.
    const bool possible = used_with_lock() - evictable(entry) + bytes <= options_.memory_bytes_max;
    while (possible && used_with_lock() + bytes > options_.memory_bytes_max && evict_idlest(entry, evicted)) continue;
    if (const int64_t used = used_with_lock(); used + bytes > options_.memory_bytes_max) {
      return Error{
          ErrorCode::kResourceExhausted,
          fmt::format("it needs {:.1f} MiB; {:.1f} of {:.1f} MiB for models are in use", double(bytes) / (1 << 20),
                      double(used) / (1 << 20), double(options_.memory_bytes_max) / (1 << 20))};
    }
  }
  entry.reserved = bytes;
  lock.unlock();
  if (!evicted.empty()) changed();
  return {};
}

Status ModelRepository::load_version(Entry& entry, const Candidate& candidate) {
  {
    std::lock_guard lock(mutex_);
    auto at = std::ranges::find(entry.versions, candidate.version, &Version::number);
    if (at == entry.versions.end()) at = entry.versions.insert(at, Version{candidate, {}, "", nullptr});
    if (!at->loaded) at->state = VersionState::kLoading;
    at->reason.clear();
  }
  const auto loaded = load_reserved(entry, candidate, reserve(entry, candidate));
  return loaded.ok() ? Status() : Status(loaded.error());
}

// room: what reserve() said.
Result<VersionPtr> ModelRepository::load_reserved(Entry& entry, const Candidate& candidate, Status room) {
  const TimePoint began = now();
  VersionPtr version;
  Result<LoadedVersion> loaded = room.ok() ? entry.source.load(candidate) : std::move(room).error();
  loads.with({entry.source.name, loaded.ok() ? "ok" : "failed"}).add();
  {
    std::lock_guard lock(mutex_);
    entry.reserved = 0;
    entry.used = now();
    auto at = std::ranges::find(entry.versions, candidate.version, &Version::number);
    if (!loaded.ok()) {
      at->reason = loaded.error().message;
      if (!at->loaded) at->state = VersionState::kUnavailable;
      Error error = loaded.error();
      return std::move(error).in(fmt::format("{} version {}", entry.source.name, candidate.version));
    }
    loaded->name = entry.source.name;
    loaded->version = candidate.version;
    if (at->loaded) entry.retired.push_back({std::move(at->loaded), now()});
    at->loaded = version = std::make_shared<const LoadedVersion>(std::move(loaded).value());
    at->candidate = candidate;
    at->state = VersionState::kReady;
    at->created = at->loaded->created();
    at->tokens_max = at->loaded->tokens_max();
    entry.kind = at->loaded->language ? ModelKind::kLanguage : ModelKind::kOneShot;
    entry.load_s = seconds(now() - began);
  }
  changed();
  return version;
}

Status ModelRepository::load_now(Entry& entry) {
  Result<std::vector<Candidate>> found = entry.source.scan();
  if (found.ok() && found->empty()) found = not_found("expected at least one version, found none");
  if (!found.ok()) {
    std::lock_guard lock(mutex_);
    entry.failure = found.error().message;
    Error error = found.error();
    return std::move(error).in(entry.source.name);
  }
  Status first;
  for (const Candidate& candidate : *found) {
    {
      std::lock_guard lock(mutex_);
      const auto same = std::ranges::any_of(entry.versions, [&](const Version& at) {
        return at.loaded && at.candidate.version == candidate.version && at.candidate.identity == candidate.identity;
      });
      if (same) continue;
    }
    if (Status status = load_version(entry, candidate); !status.ok() && first.ok()) first = std::move(status);
  }
  if (!first.ok()) return first;  // what answered before still does
  bool removed = false;
  {
    std::lock_guard lock(mutex_);
    entry.failure.clear();
    std::erase_if(entry.versions, [&](Version& at) {
      const bool kept =
          std::ranges::any_of(*found, [&](const Candidate& one) { return one.version == at.candidate.version; });
      if (!kept && at.loaded) entry.retired.push_back({std::move(at.loaded), now()});
      removed |= !kept;
      return !kept;
    });
    std::ranges::sort(entry.versions, {}, [&](const Version& at) {
      return std::ranges::find(*found, at.candidate.version, &Candidate::version) - found->begin();
    });
  }
  if (removed) changed();
  return {};
}

// What it loaded is held by the caller, lest it be evicted for another before anybody has had it.
Result<std::vector<VersionPtr>> ModelRepository::bring_back(Entry& entry) {
  std::vector<Candidate> evicted;
  std::vector<VersionPtr> held;
  {
    std::lock_guard lock(mutex_);
    for (const Version& at : entry.versions) {
      if (at.state == VersionState::kEvicted) evicted.push_back(at.candidate);
    }
  }
  for (const Candidate& candidate : evicted) {
    Status room = reserve(entry, candidate);
    const auto set_state = [&](VersionState state, std::string reason) {
      std::lock_guard lock(mutex_);
      const auto at = std::ranges::find(entry.versions, candidate.version, &Version::number);
      if (at->loaded) return;
      at->state = state;
      at->reason = std::move(reason);
    };
    if (!room.ok() && room.error().code == ErrorCode::kResourceExhausted) {
      set_state(VersionState::kEvicted, room.error().message);
      return room.error();
    }
    set_state(VersionState::kLoading, "");
    auto loaded = load_reserved(entry, candidate, std::move(room));
    if (!loaded.ok()) {
      set_state(VersionState::kEvicted, loaded.error().message);  // a later request may find it well again
      return std::move(loaded).error();
    }
    held.push_back(std::move(loaded).value());
  }
  return held;
}

// Brings the model back for those in line, who hear of it; without room for it they wait on for others to end.
void ModelRepository::answer_waiting(Entry& entry) {
  const std::string& name = entry.source.name;
  const TimePoint began = now();
  {
    std::lock_guard lock(mutex_);
    entry.wanted = false;
    entry.returning = has_evicted(entry, {});
    entry.load_began = began;
  }
  const auto back = bring_back(entry);
  bool returned = false;
  {
    std::lock_guard lock(mutex_);
    returned = std::exchange(entry.returning, false) && back.ok();
    if (!back.ok() && back.error().code == ErrorCode::kResourceExhausted && line_.waits(name)) {
      entry.wanted = true;
      entry.next_try = now() + kReleaseCheck;
      line_.explain(name, back.error().message);
      return;
    }
  }
  if (returned) {
    returns.with({name}).add();
    return_seconds.with({name}).observe(seconds(now() - began));
  }
  if (!back.ok()) SW_WARN("{}: not brought back: {}", name, back.error().message);
  for (AcquireLine::Waiter& waiter : line_.take(name)) {
    if (VersionPtr found = find(name, waiter.version)) {
      waiter.done(std::move(found));
      continue;
    }
    {
      // There was nothing to bring back, and since then it has been evicted.
      std::lock_guard lock(mutex_);
      if (back.ok() && has_evicted(entry, waiter.version)) {
        line_.add(std::move(waiter));
        entry.wanted = true;
        continue;
      }
    }
    const std::string& why = back.ok() ? "it has been unloaded" : back.error().message;
    waiter.done(Error{ErrorCode::kUnavailable, fmt::format("model \"{}\" is not ready: {}", name, why)});
  }
}

Status ModelRepository::unload_now(Entry& entry) {
  {
    std::lock_guard lock(mutex_);
    for (Version& at : entry.versions) {
      if (at.loaded) entry.retired.push_back({std::move(at.loaded), now()});
      at.loaded = nullptr;
      at.state = VersionState::kUnavailable;
      at.reason = "unloaded";
    }
  }
  changed();
  return {};
}

}  // namespace spillway::server
