// Journal: the requests that feedback can find, kept on disk over restarts. Written by one thread at even intervals,
// read once at the start. The file is a spool that nobody drains; its bound forgets the oldest.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "telemetry/outcomes/request_store.h"
#include "telemetry/outlets/spool.h"

namespace spillway::telemetry {

// Requests and the groups of outcomes that their numbers stand for, here alone: names of five parts each.
struct JournalPage {
  std::vector<std::vector<std::string>> groups;
  std::vector<Remembered> requests;
};

std::string encode_page(const JournalPage& page);
Result<JournalPage> decode_page(std::string_view bytes);

inline constexpr size_t kGroupParts = 5;

class Journal {
 public:
  static Result<std::unique_ptr<Journal>> open(const std::string& folder, uint64_t bytes_max);

  Status append(const JournalPage& page);
  // A page that cannot be read is left out.
  Status replay(const std::function<void(const JournalPage&)>& take);

 private:
  explicit Journal(std::unique_ptr<Spool> spool) : spool_(std::move(spool)) {}
  const std::unique_ptr<Spool> spool_;
};

}  // namespace spillway::telemetry
