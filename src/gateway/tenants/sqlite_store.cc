#include "gateway/tenants/sqlite_store.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <openssl/rand.h>
#include <sqlite3.h>
#include <unistd.h>

#include <array>
#include <cstring>
#include <mutex>

#include "gateway/tenants/model_list.h"

namespace spillway::gateway {
namespace {

constexpr const char* kSchema = R"(
PRAGMA journal_mode = WAL;
PRAGMA synchronous = FULL;
PRAGMA busy_timeout = 5000;
CREATE TABLE IF NOT EXISTS meta (name TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS keys (
  id TEXT PRIMARY KEY, digest BLOB NOT NULL UNIQUE, name TEXT NOT NULL, tenant TEXT NOT NULL, models TEXT NOT NULL,
  requests_per_minute INTEGER NOT NULL, tokens_per_minute INTEGER NOT NULL, budget_nanodollars INTEGER NOT NULL,
  budget_period TEXT NOT NULL, priority INTEGER NOT NULL, created INTEGER NOT NULL, expires INTEGER NOT NULL,
  revoked INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS usage (
  key_id TEXT NOT NULL, day INTEGER NOT NULL, model TEXT NOT NULL, requests INTEGER NOT NULL,
  prompt_tokens INTEGER NOT NULL, cached_tokens INTEGER NOT NULL, output_tokens INTEGER NOT NULL,
  nanodollars INTEGER NOT NULL, PRIMARY KEY (key_id, day, model)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS audit (
  seq INTEGER PRIMARY KEY AUTOINCREMENT, at INTEGER NOT NULL, actor TEXT NOT NULL, action TEXT NOT NULL,
  subject TEXT NOT NULL, detail TEXT NOT NULL);
CREATE TRIGGER IF NOT EXISTS audit_keeps BEFORE DELETE ON audit BEGIN SELECT RAISE(ABORT, 'the audit log only grows'); END;
CREATE TRIGGER IF NOT EXISTS audit_stays BEFORE UPDATE ON audit BEGIN SELECT RAISE(ABORT, 'the audit log only grows'); END;
)";

class SqliteStore;

// A prepared statement for one use: bound in order, stepped, finalised.
class Statement {
 public:
  Statement(sqlite3* database, const char* sql) : database_(database) {
    code_ = sqlite3_prepare_v2(database, sql, -1, &statement_, nullptr);
  }
  ~Statement() { sqlite3_finalize(statement_); }
  Statement(const Statement&) = delete;
  Statement& operator=(const Statement&) = delete;

  Statement& bind(int64_t value) { return bound(sqlite3_bind_int64(statement_, ++count_, value)); }
  Statement& bind(std::string_view text) {
    return bound(sqlite3_bind_text(statement_, ++count_, text.data(), static_cast<int>(text.size()), SQLITE_TRANSIENT));
  }
  Statement& bind_bytes(const void* bytes, size_t size) {
    return bound(sqlite3_bind_blob(statement_, ++count_, bytes, static_cast<int>(size), SQLITE_TRANSIENT));
  }

  // True: a row is there; false: done.
  Result<bool> step() {
    if (code_ == SQLITE_OK)
      code_ = sqlite3_step(statement_);
    else
      return failure();
    if (code_ == SQLITE_ROW) {
      code_ = SQLITE_OK;
      return true;
    }
    if (code_ == SQLITE_DONE) return false;
    return failure();
  }
  Status run() {
    SW_ASSIGN(const bool row, step());
    (void)row;
    return {};
  }

  int64_t integer(int column) const { return sqlite3_column_int64(statement_, column); }
  std::string text(int column) const {
    const auto* bytes = static_cast<const char*>(sqlite3_column_blob(statement_, column));
    return bytes == nullptr ? std::string()
                            : std::string(bytes, static_cast<size_t>(sqlite3_column_bytes(statement_, column)));
  }

 private:
  Statement& bound(int code) {
    if (code_ == SQLITE_OK) code_ = code;
    return *this;
  }
  Error failure() const {
    return {ErrorCode::kUnavailable, fmt::format("tenant store: {}", sqlite3_errmsg(database_))};
  }

  sqlite3* database_;
  sqlite3_stmt* statement_ = nullptr;
  int code_ = SQLITE_OK;
  int count_ = 0;
};

class SqliteStore final : public TenantStore {
 public:
  explicit SqliteStore(sqlite3* database) : database_(database) {}
  ~SqliteStore() override { sqlite3_close(database_); }

  Status execute(const char* sql) {
    char* message = nullptr;
    if (sqlite3_exec(database_, sql, nullptr, nullptr, &message) == SQLITE_OK) return {};
    Error error{ErrorCode::kUnavailable, fmt::format("tenant store: {}", message != nullptr ? message : "failed")};
    sqlite3_free(message);
    return error;
  }

  // Begins, runs the work, commits; rolls back when the work or the commit fails.
  Status transaction(auto&& work) {
    std::lock_guard lock(mutex_);
    SW_TRY(execute("BEGIN IMMEDIATE"));
    Status done = work();
    if (done.ok()) done = execute("COMMIT");
    if (!done.ok()) (void)execute("ROLLBACK").ok();
    return done;
  }

  Result<std::string> salt() override {
    std::array<unsigned char, 32> fresh;
    if (RAND_bytes(fresh.data(), fresh.size()) != 1)
      return Error{ErrorCode::kInternal, "no randomness from the system"};
    std::lock_guard lock(mutex_);
    SW_TRY(Statement(database_, "INSERT OR IGNORE INTO meta VALUES ('salt', ?)")
               .bind_bytes(fresh.data(), fresh.size())
               .run());
    Statement read(database_, "SELECT value FROM meta WHERE name = 'salt'");
    SW_ASSIGN(const bool found, read.step());
    SW_CHECK(found, "the salt that was just written is gone");
    return read.text(0);
  }

  Result<std::vector<KeyRecord>> keys() override {
    std::lock_guard lock(mutex_);
    Statement read(
        database_,
        "SELECT id, digest, name, tenant, models, requests_per_minute, tokens_per_minute, budget_nanodollars, "
        "budget_period, priority, created, expires, revoked FROM keys ORDER BY created, id");
    std::vector<KeyRecord> keys;
    for (;;) {
      SW_ASSIGN(const bool row, read.step());
      if (!row) return keys;
      KeyRecord& key = keys.emplace_back();
      key.id = read.text(0);
      const std::string digest = read.text(1);
      if (digest.size() != key.digest.size())
        return corrupt(fmt::format("tenant store: key {}: expected a digest of {} bytes, found {}", key.id,
                                   key.digest.size(), digest.size()));
      std::memcpy(key.digest.data(), digest.data(), digest.size());
      key.name = read.text(2);
      key.tenant = read.text(3);
      key.models = split_models(read.text(4));
      key.requests_per_minute = read.integer(5);
      key.tokens_per_minute = read.integer(6);
      key.budget_nanodollars = read.integer(7);
      SW_ASSIGN(key.budget_period, parse_period(read.text(8)));
      key.priority = static_cast<int>(read.integer(9));
      key.created_unix_s = read.integer(10);
      key.expires_unix_s = read.integer(11);
      key.revoked = read.integer(12) != 0;
    }
  }

  Status put_key(const KeyRecord& key, const AuditEntry& entry) override {
    return transaction([&]() -> Status {
      SW_TRY(Statement(database_, "INSERT OR REPLACE INTO keys VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?)")
                 .bind(key.id)
                 .bind_bytes(key.digest.data(), key.digest.size())
                 .bind(key.name)
                 .bind(key.tenant)
                 .bind(join_models(key.models))
                 .bind(key.requests_per_minute)
                 .bind(key.tokens_per_minute)
                 .bind(key.budget_nanodollars)
                 .bind(period_name(key.budget_period))
                 .bind(int64_t{key.priority})
                 .bind(key.created_unix_s)
                 .bind(key.expires_unix_s)
                 .bind(int64_t{key.revoked})
                 .run());
      return Statement(database_, "INSERT INTO audit (at, actor, action, subject, detail) VALUES (?,?,?,?,?)")
          .bind(entry.at_unix_s)
          .bind(entry.actor)
          .bind(entry.action)
          .bind(entry.subject)
          .bind(entry.detail)
          .run();
    });
  }

  Status add_usage(const UsageTable& usage) override {
    return transaction([&]() -> Status {
      for (const auto& [of, sum] : usage) {
        SW_TRY(Statement(
                   database_,
                   "INSERT INTO usage VALUES (?,?,?,?,?,?,?,?) ON CONFLICT DO UPDATE SET "
                   "requests = requests + excluded.requests, prompt_tokens = prompt_tokens + excluded.prompt_tokens, "
                   "cached_tokens = cached_tokens + excluded.cached_tokens, "
                   "output_tokens = output_tokens + excluded.output_tokens, "
                   "nanodollars = nanodollars + excluded.nanodollars")
                   .bind(of.key_id)
                   .bind(of.day)
                   .bind(of.model)
                   .bind(sum.requests)
                   .bind(sum.prompt_tokens)
                   .bind(sum.cached_tokens)
                   .bind(sum.output_tokens)
                   .bind(sum.nanodollars)
                   .run());
      }
      return {};
    });
  }

  Result<UsageTable> usage(const std::string& key_id, int64_t first_day) override {
    std::lock_guard lock(mutex_);
    Statement read(database_,
                   "SELECT key_id, day, model, requests, prompt_tokens, cached_tokens, output_tokens, nanodollars "
                   "FROM usage WHERE (?1 = '' OR key_id = ?1) AND day >= ?2");
    read.bind(key_id).bind(first_day);
    UsageTable usage;
    for (;;) {
      SW_ASSIGN(const bool row, read.step());
      if (!row) return usage;
      usage[{read.text(0), read.integer(1), read.text(2)}] = {read.integer(3), read.integer(4), read.integer(5),
                                                              read.integer(6), read.integer(7)};
    }
  }

  Result<std::vector<AuditEntry>> audit(int limit) override {
    std::lock_guard lock(mutex_);
    Statement read(database_, "SELECT at, actor, action, subject, detail FROM audit ORDER BY seq DESC LIMIT ?");
    read.bind(int64_t{limit});
    std::vector<AuditEntry> entries;
    for (;;) {
      SW_ASSIGN(const bool row, read.step());
      if (!row) return entries;
      entries.push_back({read.integer(0), read.text(1), read.text(2), read.text(3), read.text(4)});
    }
  }

  Result<int64_t> version() override {
    std::lock_guard lock(mutex_);
    Statement read(database_, "SELECT coalesce(max(seq), 0) FROM audit");
    SW_ASSIGN(const bool row, read.step());
    return row ? read.integer(0) : 0;
  }

 private:
  sqlite3* database_;
  std::mutex mutex_;  // the writer thread and administration
};

}  // namespace

Result<std::unique_ptr<TenantStore>> open_sqlite_store(const std::string& path) {
  // Made here, so that nobody else may read it from the first moment on; SQLite gives its log files the same mode.
  const int file = ::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
  if (file < 0) return invalid(fmt::format("{}: expected a writable database: {}", path, std::strerror(errno)));
  ::close(file);
  sqlite3* database = nullptr;
  if (sqlite3_open_v2(path.c_str(), &database, SQLITE_OPEN_READWRITE | SQLITE_OPEN_FULLMUTEX, nullptr) != SQLITE_OK) {
    const std::string message = database == nullptr ? "out of memory" : sqlite3_errmsg(database);
    sqlite3_close(database);
    return invalid(fmt::format("{}: expected a database: {}", path, message));
  }
  auto store = std::make_unique<SqliteStore>(database);
  auto made = store->execute(kSchema);
  if (!made.ok()) return std::move(made).error().in(path);
  return std::unique_ptr<TenantStore>(std::move(store));
}

}  // namespace spillway::gateway
