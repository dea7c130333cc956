// Burst: a stretch of work on one thread that tells many others something. While one lives, what would wake another
// thread for each single event may ask to do so once, at the burst's end. Lives on the stack of its thread.
#pragma once

#include <memory>
#include <vector>

namespace spillway {

class Burst {
 public:
  class Listener {
   public:
    virtual ~Listener() = default;
    virtual void end_of_burst() = 0;
  };

  Burst();
  ~Burst();
  Burst(const Burst&) = delete;
  Burst& operator=(const Burst&) = delete;

  // The outermost of this thread, or null.
  static Burst* current();

  // Called once for each time that it is added.
  void at_end(std::shared_ptr<Listener> listener) { listeners_.push_back(std::move(listener)); }

 private:
  std::vector<std::shared_ptr<Listener>> listeners_;
};

}  // namespace spillway
