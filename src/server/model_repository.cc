#include "server/model_repository.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

namespace spillway::server {
namespace {

TimePoint now() { return std::chrono::steady_clock::now(); }

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

// Of a version that neither answers nor can be brought back; empty: there is no such version.
std::string ModelRepository::why_not_ready(const Entry& entry, std::string_view version) {
  std::string reason;
  for (const Version& at : entry.versions) {
    if (!version.empty() && at.candidate.version != version) continue;
    reason = at.reason.empty() ? "it is loading" : at.reason;
  }
  if (entry.versions.empty()) reason = entry.failure;
  return reason.empty() && version.empty() ? "it is loading" : reason;
}

void ModelRepository::acquire_async(std::string_view name, std::string_view version, TimePoint until, Acquired done) {
  Entry* entry = entry_of(name);
  if (entry == nullptr) return done(not_found(fmt::format("there is no model \"{}\"", name)));
  VersionPtr ready;
  std::string reason;
  {
    std::lock_guard lock(mutex_);
    const TimePoint at = now();
    entry->used = at;
    if (const Version* found = newest_ready(*entry, version)) {
      ready = found->loaded;
    } else if ((has_evicted(*entry, version) || entry->returning) && !stopped_) {
      entry->wanted = true;
      entry->work.notify_one();
      until = std::min(until, at + from_seconds(options_.wait_max_s));
      const double left = entry->load_s - (entry->returning ? seconds(at - entry->load_began) : 0);
      if (at + from_seconds(std::max(0.0, left)) <= until) {
        line_.add({entry->source.name, std::string(version), until, std::move(done)});
        return;
      }
      reason = fmt::format("it is being brought back, which takes {:.1f} s", left);
    } else {
      reason = why_not_ready(*entry, version);
    }
  }
  if (ready) return done(std::move(ready));
  if (reason.empty()) {
    return done(not_found(fmt::format("model \"{}\" has no version \"{}\" that is ready", name, version)));
  }
  done(Error{ErrorCode::kUnavailable, fmt::format("model \"{}\" is not ready: {}", name, reason)});
}

Result<VersionPtr> ModelRepository::acquire(std::string_view name, std::string_view version, TimePoint until) {
  std::promise<Result<VersionPtr>> promise;
  acquire_async(name, version, until, [&](Result<VersionPtr> found) { promise.set_value(std::move(found)); });
  return promise.get_future().get();
}

bool ModelRepository::contains(std::string_view name) const { return entry_of(name) != nullptr; }

bool ModelRepository::is_ready(std::string_view name, std::string_view version) const {
  const Entry* entry = entry_of(name);
  std::lock_guard lock(mutex_);
  return entry != nullptr && newest_ready(*entry, version) != nullptr;
}

ModelKind ModelRepository::kind(std::string_view name) const {
  const Entry* entry = entry_of(name);
  std::lock_guard lock(mutex_);
  return entry != nullptr ? entry->kind : ModelKind::kUnknown;
}

double ModelRepository::load_seconds(std::string_view name) const {
  const Entry* entry = entry_of(name);
  std::lock_guard lock(mutex_);
  return entry != nullptr ? entry->load_s : 0;
}

std::vector<VersionPtr> ModelRepository::ready() const {
  std::vector<VersionPtr> all;
  std::lock_guard lock(mutex_);
  for (const auto& entry : entries_) {
    if (const Version* found = newest_ready(*entry, {})) all.push_back(found->loaded);
  }
  return all;
}

std::vector<ListedModel> ModelRepository::listed() const {
  std::vector<ListedModel> all;
  std::lock_guard lock(mutex_);
  for (const auto& entry : entries_) {
    if (entry->removed) continue;
    const auto answers = [](const Version& at) { return at.loaded || at.state == VersionState::kEvicted; };
    const auto newest = std::find_if(entry->versions.rbegin(), entry->versions.rend(), answers);
    const bool returning = entry->returning && !entry->versions.empty();
    if (newest == entry->versions.rend() && !returning) continue;
    const Version& shown = newest != entry->versions.rend() ? *newest : entry->versions.back();
    all.push_back({entry->source.name, entry->source.aliases, entry->kind, shown.candidate.version, shown.created,
                   shown.tokens_max});
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

}  // namespace spillway::server
