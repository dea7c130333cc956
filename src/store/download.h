// Downloading objects of a store into a folder: ranges side by side, each written where it belongs; a journal beside
// each file tells which are there, so that a download that was cut off, or killed, goes on where it was. A file gets
// its name only once it is whole and its checksum right. Blocks; one download a folder at a time (the caller's lock).
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "base/result.h"
#include "store/store.h"

namespace spillway::store {

using DownloadProgress = std::function<void(int64_t bytes_done, int64_t bytes_total)>;

// What is in the folder under its name and of its size is taken to be there. progress may be called from any thread,
// one at a time.
Status download(Store& store, const std::vector<Object>& objects, const std::string& folder,
                const StoreOptions& options, const DownloadProgress& progress);

}  // namespace spillway::store
