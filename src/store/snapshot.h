// SnapshotCache: models from one location on this machine's disk: a folder a state of the store, complete or not there.
// Programs may share it; one at a time fills it. Files that a new state has in common with an old one are linked, not
// fetched. Blocks; any thread.
#pragma once

#include <string>
#include <vector>

#include "base/result.h"
#include "store/download.h"
#include "store/store.h"

namespace spillway::store {

class SnapshotCache {
 public:
  // name: the location's and the version's own, Location::folder_name().
  SnapshotCache(const std::string& cache_dir, const std::string& name);

  // What tells one state of the files from another.
  static std::string identity_of(const std::vector<Object>& objects);

  // The folder of these files, fetched unless it is there. The state before it is kept, older ones are removed.
  Result<std::string> fetch(Store& store, const std::vector<Object>& objects, const StoreOptions& options,
                            const DownloadProgress& progress);

  // The folder and the identity of the state that was fetched or used last; kNotFound where none is complete.
  struct Kept {
    std::string folder, identity;
  };
  Result<Kept> latest() const;

 private:
  void link_common(const std::vector<Object>& objects, const std::string& into) const;
  void remove_others(const std::string& identity) const;

  std::string base_;
};

}  // namespace spillway::store
