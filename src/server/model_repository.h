// ModelRepository: the models of this process, by name and version: loads, reloads, unloads, evicts the idle and brings
// them back. Whoever answers a request holds the version it began with, which is drained and freed only when nobody
// does: a reload drops nothing. Loading, draining and freeing happen on the repository's own thread, one at a time; the
// other functions are for any thread and never wait for a load, but acquire().
// Not its job: how a folder or a store becomes a model (the Loader's), what protocols answer.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "base/clock.h"
#include "base/result.h"
#include "server/served_model.h"
#include "server/served_one_shot.h"

namespace spillway::server {

// One loaded version: a language model or a one-shot model.
struct LoadedVersion {
  std::string name;
  std::string version;
  std::shared_ptr<ServedModel> language;
  std::shared_ptr<ServedOneShot> one_shot;
  int64_t bytes = 0;  // of memory that it was accounted for
};
using VersionPtr = std::shared_ptr<const LoadedVersion>;

// Triton's and KServe's words for it; kEvicted is told to them as UNAVAILABLE with its reason.
enum class VersionState { kUnavailable, kLoading, kReady, kUnloading, kEvicted };
std::string_view name_of(VersionState state);  // "UNAVAILABLE", "LOADING", "READY", "UNLOADING"

struct VersionStatus {
  std::string name;
  std::string version;  // empty: no version has been found yet
  VersionState state = VersionState::kUnavailable;
  std::string reason;  // why it is not ready: "unloaded", "idle", or the error of the load
};

class ModelRepository {
 public:
  // Where a version's files are now; what identifies them, so that a reload of the same is none.
  struct Candidate {
    std::string version;
    std::string identity;
  };
  // What a model is made by. Called on the repository's thread.
  struct Source {
    std::string name;
    std::vector<std::string> aliases;
    std::function<Result<std::vector<Candidate>>()> scan;  // the versions to serve, oldest first
    std::function<Result<int64_t>(const Candidate&)> bytes_needed;
    std::function<Result<LoadedVersion>(const Candidate&)> load;  // warmed up: ready when it returns
    bool load_at_start = true;
  };
  struct Options {
    std::function<int64_t()> memory_free;  // for models now, in bytes; none: not accounted
    double idle_timeout_s = 0;             // a model without a request for this long is evicted; 0: never
    double drain_timeout_s = 30;           // an old version's requests get this long to end
    // Called on the repository's thread when the set of ready models has changed.
    std::function<void()> changed;
  };

  ModelRepository(std::vector<Source> sources, Options options);
  ~ModelRepository();  // waits for a load under way
  ModelRepository(const ModelRepository&) = delete;
  ModelRepository& operator=(const ModelRepository&) = delete;

  // Loads all that loads at the start, in order; the first error ends it.
  Status start();

  // The ready version; an empty version means the newest. Null: not there, or not ready (index() says which).
  // Counts as a use.
  VersionPtr find(std::string_view name, std::string_view version = {}) const;

  // As find; an evicted model is brought back first, which may take as long as a load. Blocks.
  Result<VersionPtr> acquire(std::string_view name, std::string_view version = {});

  // The same without blocking: done is called once, at once or on the repository's thread.
  using Acquired = std::function<void(Result<VersionPtr>)>;
  void acquire_async(std::string_view name, std::string_view version, Acquired done);

  bool contains(std::string_view name) const;  // configured, loaded or not
  std::vector<VersionPtr> ready() const;       // the newest of each model, in order of configuration
  std::vector<VersionStatus> index() const;    // every known version

  // Loads, or loads anew when what the source holds has changed; requests meanwhile are answered by the old version,
  // which stays when the load fails. Blocks.
  Status load(std::string_view name);
  // No new requests; blocks until those under way have ended or drain_timeout_s has passed.
  Status unload(std::string_view name);

  // Unloads everything, or returns false at the deadline.
  bool drain(TimePoint deadline);

 private:
  struct Version {
    Candidate candidate;
    VersionState state = VersionState::kUnavailable;
    std::string reason;
    VersionPtr loaded;
  };
  struct Entry {
    Source source;
    std::vector<Version> versions;  // oldest first
    bool wanted = false;            // loaded, or evicted and to come back
    std::string failure;            // of a scan
    mutable TimePoint used;
  };
  struct Job {
    std::function<void()> work;
  };

  void run();
  void post(std::function<void()> work);
  Status run_and_wait(std::function<Status()> work);
  TimePoint next_idle_check() const;  // mutex_ is held

  // On the repository's thread.
  Status load_now(Entry& entry);
  Status load_version(Entry& entry, const Candidate& candidate, bool bring_back);
  Status make_room(const Entry& entry, int64_t bytes);
  Status unload_now(Entry& entry, VersionState into, const std::string& reason);
  void retire(VersionPtr version);
  void reap(bool wait);
  void evict_idle();
  void announce();

  Entry* entry_of(std::string_view name) const;
  static const Version* ready_version(const Entry& entry, std::string_view version);

  Options options_;
  std::vector<std::unique_ptr<Entry>> entries_;  // the list never changes; what is in it is under mutex_
  mutable std::mutex mutex_;
  std::condition_variable work_;
  std::deque<Job> jobs_;
  bool stopped_ = false;
  struct Retired {
    VersionPtr version;
    TimePoint deadline;
  };
  std::vector<Retired> retired_;  // the repository's thread alone
  std::thread thread_;
};

}  // namespace spillway::server
