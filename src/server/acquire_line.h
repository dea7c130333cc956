// AcquireLine: the requests that wait for an evicted model of a repository to be brought back, each until a time of its
// own, at which it hears that the model was not back. Owned by the repository; any thread. Each request hears once:
// from whoever takes it out of the line, or from the line's own thread at its time. Not its job: bringing models back.
#pragma once

#include <condition_variable>
#include <functional>
#include <map>
#include <mutex>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "base/clock.h"
#include "base/result.h"
#include "server/loaded_version.h"

namespace spillway::server {

class AcquireLine {
 public:
  using Done = std::function<void(Result<VersionPtr>)>;
  struct Waiter {
    std::string model;
    std::string version;  // empty: the newest
    TimePoint until;
    Done done;
  };

  AcquireLine();
  ~AcquireLine();  // those still in line hear that the models are being unloaded
  AcquireLine(const AcquireLine&) = delete;
  AcquireLine& operator=(const AcquireLine&) = delete;

  void add(Waiter waiter);
  bool waits(std::string_view model) const;
  // All that wait for the model leave the line; the caller tells them.
  std::vector<Waiter> take(std::string_view model);
  // What those hear whose time comes before the model does.
  void explain(std::string_view model, std::string why);

 private:
  void run();

  mutable std::mutex mutex_;
  std::condition_variable news_;
  std::vector<Waiter> waiters_;
  std::map<std::string, std::string, std::less<>> why_;  // by model
  bool stopped_ = false;
  std::thread thread_;
};

}  // namespace spillway::server
