// A ledger over a store in memory or in a temporary file, with clocks moved by hand.
#pragma once

#include <gtest/gtest.h>
#include <unistd.h>

#include <atomic>
#include <filesystem>
#include <future>
#include <string>

#include "gateway/tenants/ledger.h"
#include "gateway/tenants/sqlite_store.h"

namespace spillway::gateway {

struct TemporaryFolder {
  std::filesystem::path path;
  TemporaryFolder() {
    static std::atomic<int> count{0};
    path = std::filesystem::temp_directory_path() /
           ("spillway-tenants-" + std::to_string(::getpid()) + "-" + std::to_string(count++));
    std::filesystem::create_directories(path);
  }
  ~TemporaryFolder() {
    std::error_code ignored;
    std::filesystem::remove_all(path, ignored);
  }
  std::string file(const char* name) const { return (path / name).string(); }
};

struct LedgerFixture {
  TemporaryFolder folder;
  std::shared_ptr<SimulatedClock> clock = std::make_shared<SimulatedClock>();
  std::shared_ptr<std::atomic<int64_t>> unix_s = std::make_shared<std::atomic<int64_t>>(1'764'000'000);
  std::unique_ptr<TenantLedger> ledger;

  LedgerFixture() {
    clock->advance(std::chrono::hours(1));
    open();
  }

  LedgerOptions options() const {
    LedgerOptions options;
    options.clock = clock;
    options.unix_s = [now = unix_s] { return now->load(); };
    options.flush_interval = std::chrono::milliseconds(5);
    return options;
  }

  void open() {
    ledger.reset();
    auto store = open_sqlite_store(folder.file("tenants.db"));
    ASSERT_TRUE(store.ok()) << store.error().message;
    auto opened = TenantLedger::open(std::move(*store), nullptr, options());
    ASSERT_TRUE(opened.ok()) << opened.error().message;
    ledger = std::move(*opened);
  }

  TenantLedger::Created create(KeyRecord record) { return ledger->create(std::move(record), "test").value(); }
};

inline Admission reserve(Tenants& tenants, const Caller& caller, int64_t prompt, int64_t output, Price price = {},
                         const std::string& model = "m") {
  std::promise<Admission> promise;
  tenants.reserve(caller, {model, prompt, output, price, {}},
                  [&](Admission admission) { promise.set_value(std::move(admission)); });
  return promise.get_future().get();
}

}  // namespace spillway::gateway
