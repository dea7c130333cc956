// AdminApi: the administration of virtual keys, as a function from request to response:
//   POST   /admin/v1/keys        creates a key; its text is in this answer and never again
//   GET    /admin/v1/keys        all keys;     GET /admin/v1/keys/ID one
//   PATCH  /admin/v1/keys/ID     changes limits, models, budget, priority, expiry, name
//   DELETE /admin/v1/keys/ID     revokes
//   GET    /admin/v1/usage       by key, day and model (?key=ID&from=YYYY-MM-DD)
//   GET    /admin/v1/budgets     what is spent and left of each key that has a budget
//   GET    /admin/v1/audit       the newest entries first (?limit=N)
// All behind the admin key, "Authorization: Bearer KEY". handle() may block on the store: never call it on an I/O
// thread.
#pragma once

#include <map>
#include <string>
#include <string_view>

#include "gateway/tenants/ledger.h"

namespace spillway::gateway {

struct AdminRequest {
  std::string method;
  std::string path;  // with the /admin/v1
  std::map<std::string, std::string> query;
  std::string authorization;
  std::string body;
  std::string peer;  // for the audit log
};

struct AdminResponse {
  int status = 200;
  std::string body;  // JSON
};

class AdminApi {
 public:
  // The ledger must outlive it. An empty admin key lets nobody in.
  AdminApi(TenantLedger& ledger, std::string_view admin_key);

  AdminResponse handle(const AdminRequest& request);

 private:
  AdminResponse keys(const AdminRequest& request);
  AdminResponse key(const AdminRequest& request, const std::string& id);
  AdminResponse create(const AdminRequest& request);
  AdminResponse usage(const AdminRequest& request);
  AdminResponse budgets();
  AdminResponse audit(const AdminRequest& request);
  bool authorized(std::string_view authorization) const;

  TenantLedger& ledger_;
  const bool open_;
  const KeyDigest admin_digest_;
};

}  // namespace spillway::gateway
