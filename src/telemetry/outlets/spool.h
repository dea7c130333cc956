// Spool: a bounded log of records on disk, written ahead of whoever sends them away. Records keep their order. What was
// appended survives the death of the process; a torn end is cut off at the next start. When the bound is reached the
// oldest segment goes; when the disk is full, append fails and nothing that was written before is harmed. One thread
// appends; each reader has a cursor of its own, kept on disk, and its own thread.
//
// A segment is records: size, CRC-32 (of size and payload) and payload. Its file name is its number.
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/clock.h"
#include "base/result.h"

namespace spillway::telemetry {

struct SpoolOptions {
  std::string folder;
  uint64_t bytes_max = 256 << 20;
  uint64_t segment_bytes = 4 << 20;
  enum class Sync { kNever, kInterval, kAlways };
  Sync sync = Sync::kInterval;  // when data is forced to the disk
  Duration sync_interval = std::chrono::seconds(1);
};

class Spool {
 public:
  // Finds what an earlier process left. readers: names of the cursors; segments stay until all have passed them.
  static Result<std::unique_ptr<Spool>> open(SpoolOptions options, std::vector<std::string> readers);
  ~Spool();

  // On an error nothing was appended: kResourceExhausted on a full disk.
  Status append(std::string_view payload);

  struct Place {
    uint64_t segment = 0;
    uint64_t offset = 0;
    friend auto operator<=>(const Place&, const Place&) = default;
  };
  struct Record {
    std::string payload;
    Place next;  // where the record after it begins
  };
  // The record at the reader's cursor; nothing at the end. A damaged one is stepped over and counted.
  Result<std::optional<Record>> peek(const std::string& reader);
  // As many as there are from there on, up to so many bytes, but at least one where there is one.
  Result<std::vector<Record>> peek_some(const std::string& reader, uint64_t bytes_max);
  // Moves the cursor past the record, durably.
  Status advance(const std::string& reader, Place next);

  // Every record there is, from the oldest; cursors stay where they are.
  Status replay(const std::function<void(std::string_view)>& take);

  uint64_t bytes() const;
  uint64_t bytes_dropped() const { return dropped_bytes_; }  // by the bound, unread by some reader
  uint64_t damaged() const { return damaged_; }              // records or ends of segments that could not be read

 private:
  struct Segment {
    uint64_t number = 0;
    uint64_t bytes = 0;
  };

  explicit Spool(SpoolOptions options) : options_(std::move(options)) {}
  Status find_segments();
  Status load_cursors(const std::vector<std::string>& readers);
  Status roll();  // mutex_ is held from here on
  void drop_read();
  void keep_bound();
  void drop_first();
  Status sync_if_due();
  Result<std::optional<Record>> read_from(Place& place);  // moves the place to the record that it gives
  std::string path(uint64_t segment) const;
  Segment* find(uint64_t number);

  const SpoolOptions options_;
  mutable std::mutex mutex_;
  std::deque<Segment> segments_;  // the last is being written
  std::map<std::string, Place> cursors_;
  int file_ = -1;
  int lock_ = -1;  // held while the spool is open: one process a folder
  TimePoint synced_{};
  uint64_t dropped_bytes_ = 0;
  uint64_t damaged_ = 0;
};

// Sets the metrics of a spool: what it holds, "points" or "spans".
void publish(const Spool& spool, std::string_view what);

}  // namespace spillway::telemetry
