// The embedded store: one SQLite file in WAL mode. Keys and audit entries are synced before put_key returns; a crash of
// the process loses nothing that was committed, a power cut at most the last usage flushes. The audit table refuses
// updates and deletions.
#pragma once

#include <memory>
#include <string>

#include "gateway/tenants/store.h"

namespace spillway::gateway {

// Creates the file (mode 0600) where there is none.
Result<std::unique_ptr<TenantStore>> open_sqlite_store(const std::string& path);

}  // namespace spillway::gateway
