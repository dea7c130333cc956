#include "server/model_repository.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "base/log.h"
#include "metrics/metrics.h"

namespace spillway::server {
namespace {

using std::chrono::milliseconds;

constexpr milliseconds kReleaseCheck{20};  // whether anybody still holds an unloaded version

metrics::Gauge ready_gauge("spillway_models_ready", "1 for a version that answers.", {"model", "version"});
metrics::Counter loads("spillway_model_loads_total", "Loads by outcome.", {"model", "outcome"});
metrics::Counter evictions("spillway_model_evictions_total", "Idle versions whose memory was given back.", {"model"});

TimePoint now() { return std::chrono::steady_clock::now(); }

// Nobody but the repository holds it.
bool is_free(const VersionPtr& version) {
  return version.use_count() == 1 && (!version->language || version->language.use_count() == 1) &&
         (!version->one_shot || version->one_shot.use_count() == 1);
}

}  // namespace

std::string_view name_of(VersionState state) {
  switch (state) {
    case VersionState::kLoading:
      return "LOADING";
    case VersionState::kReady:
      return "READY";
    case VersionState::kUnloading:
      return "UNLOADING";
    case VersionState::kUnavailable:
    case VersionState::kEvicted:
      break;
  }
  return "UNAVAILABLE";
}

ModelRepository::ModelRepository(std::vector<Source> sources, Options options) : options_(std::move(options)) {
  for (Source& source : sources) add_entry(std::move(source));
}

ModelRepository::Entry& ModelRepository::add_entry(Source source) {
  auto added = std::make_unique<Entry>();
  Entry& entry = *added;
  entry.source = std::move(source);
  entry.thread = std::thread([this, &entry] { run(entry); });
  std::lock_guard lock(mutex_);
  entries_.push_back(std::move(added));
  return entry;
}

ModelRepository::~ModelRepository() {
  {
    std::lock_guard lock(mutex_);
    stopped_ = true;
    for (auto& entry : entries_) entry->work.notify_one();
  }
  for (auto& entry : entries_) entry->thread.join();
}

// ---- any thread ----

ModelRepository::Entry* ModelRepository::entry_of(std::string_view name) const {
  std::lock_guard lock(mutex_);
  for (const auto& entry : entries_) {
    if (!entry->removed && entry->source.name == name) return entry.get();
  }
  for (const auto& entry : entries_) {
    if (entry->removed) continue;
    if (std::ranges::find(entry->source.aliases, name) != entry->source.aliases.end()) return entry.get();
  }
  return nullptr;
}

const ModelRepository::Version* ModelRepository::newest_ready(const Entry& entry, std::string_view version) {
  for (auto at = entry.versions.rbegin(); at != entry.versions.rend(); ++at) {
    if (at->loaded && (version.empty() || at->candidate.version == version)) return &*at;
  }
  return nullptr;
}

bool ModelRepository::has_evicted(const Entry& entry, std::string_view version) {
  return std::ranges::any_of(entry.versions, [&](const Version& at) {
    return at.state == VersionState::kEvicted && (version.empty() || at.candidate.version == version);
  });
}

VersionPtr ModelRepository::find(std::string_view name, std::string_view version) const {
  const Entry* entry = entry_of(name);
  if (entry == nullptr) return nullptr;
  std::lock_guard lock(mutex_);
  const Version* found = newest_ready(*entry, version);
  entry->used = now();
  return found ? found->loaded : nullptr;
}

void ModelRepository::acquire_async(std::string_view name, std::string_view version, Acquired done) {
  Entry* entry = entry_of(name);
  if (entry == nullptr) return done(not_found(fmt::format("there is no model \"{}\"", name)));
  if (VersionPtr found = find(name, version)) return done(std::move(found));
  std::string reason;
  {
    std::lock_guard lock(mutex_);
    if (has_evicted(*entry, version) && !stopped_) {
      entry->jobs.push_back(
          [this, entry, name = std::string(name), version = std::string(version), done = std::move(done)] {
            const Status back = bring_back(*entry);
            VersionPtr found = find(name, version);
            if (found) return done(std::move(found));
            done(back.ok() ? Error{ErrorCode::kUnavailable, fmt::format("model \"{}\" has been unloaded", name)}
                           : back.error());
          });
      entry->work.notify_one();
      return;
    }
    for (const Version& at : entry->versions) {
      if (version.empty() || at.candidate.version == version) reason = at.reason;
    }
    if (entry->versions.empty()) reason = entry->failure;
  }
  if (!version.empty() && reason.empty()) {
    return done(not_found(fmt::format("model \"{}\" has no version \"{}\" that is ready", name, version)));
  }
  done(Error{ErrorCode::kUnavailable,
             fmt::format("model \"{}\" is not ready{}", name, reason.empty() ? ": it is loading" : ": " + reason)});
}

Result<VersionPtr> ModelRepository::acquire(std::string_view name, std::string_view version) {
  std::promise<Result<VersionPtr>> promise;
  acquire_async(name, version, [&](Result<VersionPtr> found) { promise.set_value(std::move(found)); });
  return promise.get_future().get();
}

bool ModelRepository::contains(std::string_view name) const { return entry_of(name) != nullptr; }

std::vector<VersionPtr> ModelRepository::ready() const {
  std::vector<VersionPtr> all;
  std::lock_guard lock(mutex_);
  for (const auto& entry : entries_) {
    if (const Version* found = newest_ready(*entry, {})) all.push_back(found->loaded);
  }
  return all;
}

std::vector<VersionStatus> ModelRepository::index() const {
  std::vector<VersionStatus> all;
  std::lock_guard lock(mutex_);
  for (const auto& entry : entries_) {
    if (entry->removed && entry->versions.empty()) continue;
    const std::string& name = entry->source.name;
    for (const Version& at : entry->versions) all.push_back({name, at.candidate.version, at.state, at.reason});
    if (entry->versions.empty()) {
      all.push_back({name, "", VersionState::kUnavailable, entry->failure.empty() ? "not loaded" : entry->failure});
    }
  }
  return all;
}

std::future<Status> ModelRepository::post(Entry& entry, std::function<Status()> work) {
  auto promise = std::make_shared<std::promise<Status>>();
  std::future<Status> done = promise->get_future();
  std::lock_guard lock(mutex_);
  if (stopped_) {
    promise->set_value(Error{ErrorCode::kCancelled, "the models are being unloaded"});
    return done;
  }
  entry.jobs.push_back([promise, work = std::move(work)] { promise->set_value(work()); });
  entry.work.notify_one();
  return done;
}

Status ModelRepository::start() {
  std::vector<std::future<Status>> all;
  for (auto& entry : entries_) {
    if (entry->source.load_at_start) all.push_back(post(*entry, [this, &entry = *entry] { return load_now(entry); }));
  }
  Status first;
  for (auto& one : all) {
    if (Status status = one.get(); !status.ok() && first.ok()) first = std::move(status);
  }
  return first;
}

Status ModelRepository::load(std::string_view name) {
  Entry* entry = entry_of(name);
  if (entry == nullptr) return not_found(fmt::format("there is no model \"{}\"", name));
  return post(*entry, [this, entry] { return load_now(*entry); }).get();
}

Status ModelRepository::unload(std::string_view name) {
  Entry* entry = entry_of(name);
  if (entry == nullptr) return not_found(fmt::format("there is no model \"{}\"", name));
  return post(*entry, [this, entry] { return unload_now(*entry); }).get();
}

// The entry of that name gets the source and loads by it, where it is new or has changed.
std::future<Status> ModelRepository::take_source(Source source, bool anew) {
  Entry* entry = nullptr;
  {
    std::lock_guard lock(mutex_);
    for (const auto& one : entries_) {
      if (one->source.name == source.name) entry = one.get();
    }
  }
  const bool load = source.load_at_start;
  if (entry == nullptr) {
    entry = &add_entry(std::move(source));
    return load ? post(*entry, [this, entry] { return load_now(*entry); }) : post(*entry, [] { return Status(); });
  }
  return post(*entry, [this, entry, anew, load, source = std::move(source)]() mutable {
    bool back = false;
    {
      std::lock_guard lock(mutex_);
      back = std::exchange(entry->removed, false);
      entry->source = std::move(source);
      if (anew || back) {
        for (Version& at : entry->versions) at.candidate.identity.clear();  // as if its files had changed
      }
    }
    return load && (anew || back) ? load_now(*entry) : Status();
  });
}

Status ModelRepository::take_over(std::vector<Source> sources, const std::vector<std::string>& anew) {
  std::vector<std::future<Status>> all;
  std::vector<Entry*> gone;
  {
    std::lock_guard lock(mutex_);
    for (const auto& entry : entries_) {
      const auto same = [&](const Source& source) { return source.name == entry->source.name; };
      if (std::ranges::none_of(sources, same) && !std::exchange(entry->removed, true)) gone.push_back(entry.get());
    }
  }
  for (Source& source : sources) {
    const bool changed = std::ranges::find(anew, source.name) != anew.end();
    all.push_back(take_source(std::move(source), changed));
  }
  for (Entry* entry : gone) {
    all.push_back(post(*entry, [this, entry] {
      const Status status = unload_now(*entry);
      std::lock_guard lock(mutex_);
      if (entry->removed) entry->versions.clear();
      return status;
    }));
  }
  Status first;
  for (auto& one : all) {
    if (Status status = one.get(); !status.ok() && first.ok()) first = std::move(status);
  }
  return first;
}

bool ModelRepository::drain(TimePoint deadline) {
  std::vector<VersionPtr> all;
  {
    std::lock_guard lock(mutex_);
    for (const auto& entry : entries_) {
      for (const Version& at : entry->versions) {
        if (at.loaded) all.push_back(at.loaded);
      }
      for (const Retired& retired : entry->retired) all.push_back(retired.version);
    }
  }
  bool clean = true;
  for (const VersionPtr& version : all) {
    if (version->language) clean &= version->language->engine().drain(deadline);
    if (version->one_shot) clean &= version->one_shot->engine().drain(deadline);
  }
  return clean;
}

int64_t ModelRepository::used_with_lock() const {
  int64_t used = 0;
  for (const auto& entry : entries_) {
    used += entry->reserved;
    for (const Version& at : entry->versions) used += at.loaded ? at.loaded->bytes : 0;
    for (const Retired& retired : entry->retired) used += retired.version->bytes;
  }
  return used;
}

int64_t ModelRepository::memory_used() const {
  std::lock_guard lock(mutex_);
  return used_with_lock();
}

// ---- the entry's thread ----

TimePoint ModelRepository::next_look(const Entry& entry) const {
  if (!entry.retired.empty()) return now() + kReleaseCheck;
  if (options_.idle_timeout_s <= 0 || newest_ready(entry, {}) == nullptr) return TimePoint::max();
  return std::max(entry.used + from_seconds(options_.idle_timeout_s), now() + kReleaseCheck);
}

void ModelRepository::run(Entry& entry) {
  std::unique_lock lock(mutex_);
  while (true) {
    const auto ready = [&] { return stopped_ || !entry.jobs.empty(); };
    const TimePoint next = next_look(entry);
    if (next == TimePoint::max())
      entry.work.wait(lock, ready);
    else
      entry.work.wait_until(lock, next, ready);
    while (!entry.jobs.empty()) {
      auto job = std::move(entry.jobs.front());
      entry.jobs.pop_front();
      lock.unlock();
      job();
      job = nullptr;
      lock.lock();
    }
    look(entry, lock);
    if (stopped_) break;
  }
  // What is left goes here, and not on a thread of what it holds.
  std::vector<VersionPtr> last;
  for (Version& at : entry.versions) last.push_back(std::move(at.loaded));
  for (Retired& retired : entry.retired) last.push_back(std::move(retired.version));
  entry.versions.clear();
  entry.retired.clear();
  lock.unlock();
}

// Frees what nobody holds any more; evicts an idle model.
void ModelRepository::look(Entry& entry, std::unique_lock<std::mutex>& lock) {
  std::vector<VersionPtr> gone;
  bool evicted = false;
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
  const bool idle = options_.idle_timeout_s > 0 && seconds(now() - entry.used) >= options_.idle_timeout_s;
  for (Version& at : entry.versions) {
    if (!idle || !at.loaded || !is_free(at.loaded)) continue;
    gone.push_back(std::move(at.loaded));
    at.loaded = nullptr;
    at.state = VersionState::kEvicted;
    at.reason = "idle";
    evicted = true;
    evictions.with({entry.source.name}).add();
    SW_INFO("{} version {}: evicted, it had no request for {:.0f} s", entry.source.name, at.candidate.version,
            options_.idle_timeout_s);
  }
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
  const auto find_version = [&] {
    return std::ranges::find_if(entry.versions,
                                [&](const Version& at) { return at.candidate.version == candidate.version; });
  };
  {
    std::lock_guard lock(mutex_);
    auto at = find_version();
    if (at == entry.versions.end()) at = entry.versions.insert(at, Version{candidate, {}, "", nullptr});
    if (!at->loaded) at->state = VersionState::kLoading;
    at->reason.clear();
  }
  Status status = reserve(entry, candidate);
  Result<LoadedVersion> loaded = status.ok() ? entry.source.load(candidate) : std::move(status).error();
  loads.with({entry.source.name, loaded.ok() ? "ok" : "failed"}).add();
  {
    std::lock_guard lock(mutex_);
    entry.reserved = 0;
    entry.used = now();
    auto at = find_version();
    if (!loaded.ok()) {
      at->reason = loaded.error().message;
      if (!at->loaded) at->state = VersionState::kUnavailable;
      Error error = loaded.error();
      return std::move(error).in(fmt::format("{} version {}", entry.source.name, candidate.version));
    }
    loaded->name = entry.source.name;
    loaded->version = candidate.version;
    if (at->loaded) entry.retired.push_back({std::move(at->loaded), now()});
    at->loaded = std::make_shared<const LoadedVersion>(std::move(loaded).value());
    at->candidate = candidate;
    at->state = VersionState::kReady;
  }
  changed();
  return {};
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

Status ModelRepository::bring_back(Entry& entry) {
  std::vector<Candidate> evicted;
  {
    std::lock_guard lock(mutex_);
    for (const Version& at : entry.versions) {
      if (at.state == VersionState::kEvicted) evicted.push_back(at.candidate);
    }
  }
  for (const Candidate& candidate : evicted) {
    Status loaded = load_version(entry, candidate);
    if (loaded.ok()) continue;
    std::lock_guard lock(mutex_);
    // A later request may find room.
    for (Version& at : entry.versions) {
      if (at.candidate.version == candidate.version && !at.loaded) at.state = VersionState::kEvicted;
    }
    return loaded;
  }
  return {};
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
