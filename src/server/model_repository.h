// ModelRepository: the models of this process, by name and version: loads, reloads, unloads, evicts the idle and brings
// them back, language models and one-shot models alike. Whoever answers a request holds the version that it began with,
// which is freed only when nobody does: a reload or an eviction drops nothing. Each model has a thread on which its
// loads, unloads and releases happen one after another (model_loading.cc); the public functions are for any thread, and
// those that wait for such a thread say so.
// Not its job: how a folder or a store becomes a model (a Source's), what protocols answer.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <deque>
#include <functional>
#include <future>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "base/clock.h"
#include "base/result.h"
#include "server/acquire_line.h"
#include "server/loaded_version.h"

namespace spillway::server {

// Triton's and KServe's words for it; kEvicted is told to them as UNAVAILABLE with its reason.
enum class VersionState { kUnavailable, kLoading, kReady, kUnloading, kEvicted };
std::string_view name_of(VersionState state);  // "UNAVAILABLE", "LOADING", "READY", "UNLOADING"

struct VersionStatus {
  std::string name;
  std::string version;  // empty: no version has been found yet
  VersionState state = VersionState::kUnavailable;
  std::string reason;  // why it is not ready: "unloaded", "idle", or the error of the load
};

// What a model is, known from its first load on.
enum class ModelKind { kUnknown, kLanguage, kOneShot };

// A model that answers now or can be brought back, in its newest version.
struct ListedModel {
  std::string name;
  std::vector<std::string> aliases;
  ModelKind kind = ModelKind::kUnknown;
  std::string version;
  int64_t created = 0;  // Unix seconds
  int tokens_max = 0;   // of an input, or of prompt and output; 0: it takes no tokens
};

class ModelRepository {
 public:
  // Where a version's files are now; what identifies them, so that a reload of the same is none.
  struct Candidate {
    std::string version;
    std::string identity;
  };
  // What a model is made by. Called on the model's thread.
  struct Source {
    std::string name;
    std::vector<std::string> aliases;
    std::function<Result<std::vector<Candidate>>()> scan;  // the versions to serve, oldest first
    std::function<Result<int64_t>(const Candidate&)> bytes_needed;
    std::function<Result<LoadedVersion>(const Candidate&)> load;  // warmed up: ready when it returns
    bool load_at_start = true;
  };
  struct Options {
    int64_t memory_bytes_max = 0;  // of all models together; 0: not accounted
    double idle_timeout_s = 0;     // a model without a request for this long is evicted; 0: never
    double wait_max_s = 30;        // that a request waits for an evicted model to be brought back
    double drain_timeout_s = 30;   // a request that takes longer than this on an unloaded version is told of in the log
    // Called on a model's thread when the set of ready models has changed.
    std::function<void()> changed = nullptr;
  };

  ModelRepository(std::vector<Source> sources, Options options);
  ~ModelRepository();  // waits for loads under way; all versions must have been let go
  ModelRepository(const ModelRepository&) = delete;
  ModelRepository& operator=(const ModelRepository&) = delete;

  // Loads all that loads at the start, side by side; the first error in order of configuration. Blocks.
  Status start();

  // The ready version; an empty version means the newest. Null: not there, or not ready (index() says which).
  // Counts as a use.
  VersionPtr find(std::string_view name, std::string_view version = {}) const;

  // As find; an evicted model is brought back first, for which others that nobody is using give their memory back,
  // the least recently used first. Waits until then or for wait_max_s at most, and for none of it where the last load
  // took longer than is left: the model is brought back all the same, for whoever asks again. Blocks.
  Result<VersionPtr> acquire(std::string_view name, std::string_view version = {}, TimePoint until = TimePoint::max());

  // The same without blocking: done is called once, at once or on another thread.
  using Acquired = AcquireLine::Done;
  void acquire_async(std::string_view name, std::string_view version, TimePoint until, Acquired done);

  bool contains(std::string_view name) const;                            // configured, loaded or not
  bool is_ready(std::string_view name, std::string_view version) const;  // counts as no use
  ModelKind kind(std::string_view name) const;
  double load_seconds(std::string_view name) const;  // that the last load took; 0: there was none
  std::vector<VersionPtr> ready() const;             // the newest of each model, in order of configuration
  std::vector<VersionStatus> index() const;          // every known version
  std::vector<ListedModel> listed() const;           // ready or evicted, in order of configuration

  // Loads, or loads anew when what the source holds has changed; requests meanwhile are answered by the old version,
  // which stays when the load fails. Blocks.
  Status load(std::string_view name);
  // From now on no request finds it; those under way end as they would. Blocks for a load under way alone.
  Status unload(std::string_view name);

  // Another list of models. New ones are loaded, those that are no longer in it unloaded; of the others those named in
  // `anew` are loaded anew by their new source, as load() does. The first error; what loads takes effect all the same.
  // Blocks.
  Status take_over(std::vector<Source> sources, const std::vector<std::string>& anew);

  // Every engine refuses new requests; false when some have not ended at the deadline.
  bool drain(TimePoint deadline);

  int64_t memory_used() const;  // accounted for

 private:
  struct Version {
    Candidate candidate;
    VersionState state = VersionState::kUnavailable;
    std::string reason;
    VersionPtr loaded;
    int64_t created = 0;  // of the last load
    int tokens_max = 0;
    const std::string& number() const { return candidate.version; }
  };
  struct Retired {
    VersionPtr version;
    TimePoint since;
    bool told = false;
  };
  struct Entry {
    Source source;
    std::vector<Version> versions;  // oldest first
    std::vector<Retired> retired;   // unloaded, and perhaps still held
    bool removed = false;           // no longer configured: nobody finds it
    std::string failure;            // of the last scan
    int64_t reserved = 0;           // bytes of a load under way
    ModelKind kind = ModelKind::kUnknown;
    mutable TimePoint used;
    bool wanted = false;     // evicted, and to be brought back
    TimePoint next_try;      // of bringing it back
    bool returning = false;  // being brought back now
    TimePoint load_began;
    double load_s = 0;  // of the last load
    std::deque<std::function<void()>> jobs;
    std::condition_variable work;
    std::thread thread;
  };

  // Any thread.
  Entry* entry_of(std::string_view name) const;
  Entry& add_entry(Source source);
  std::future<Status> take_source(Source source, bool anew);
  static const Version* newest_ready(const Entry& entry, std::string_view version);
  static bool has_evicted(const Entry& entry, std::string_view version);
  static std::string why_not_ready(const Entry& entry, std::string_view version);
  std::future<Status> post(Entry& entry, std::function<Status()> work);
  int64_t used_with_lock() const;
  int64_t evictable(const Entry& but) const;
  static bool idle(const Entry& entry);

  // The entry's thread.
  void run(Entry& entry);
  TimePoint next_look(const Entry& entry) const;
  void look(Entry& entry, std::unique_lock<std::mutex>& lock);
  Status load_now(Entry& entry);
  Status load_version(Entry& entry, const Candidate& candidate);
  Result<VersionPtr> load_reserved(Entry& entry, const Candidate& candidate, Status room);
  Result<std::vector<VersionPtr>> bring_back(Entry& entry);
  void answer_waiting(Entry& entry);
  void take_released(Entry& entry, std::vector<VersionPtr>& gone) const;
  bool take_idle(Entry& entry, std::vector<VersionPtr>& gone) const;
  Status unload_now(Entry& entry);
  Status reserve(Entry& entry, const Candidate& candidate);
  bool evict_idlest(const Entry& but, std::vector<VersionPtr>& evicted);
  void changed() const;

  const Options options_;
  std::vector<std::unique_ptr<Entry>> entries_;  // only ever grows; under mutex_, as what is in it
  mutable std::mutex mutex_;
  bool stopped_ = false;
  AcquireLine line_;  // last: what it still has is told before the rest goes
};

}  // namespace spillway::server
