#include "kernels/pack_store.h"

#include <fmt/format.h>

#include <utility>

namespace spillway::kernels {
namespace {

thread_local PackStore* current_store = nullptr;
thread_local PackLater* current_later = nullptr;

}  // namespace

PackScope::PackScope(PackStore* store, PackLater* later)
    : store_before_(std::exchange(current_store, store)), later_before_(std::exchange(current_later, later)) {}
PackScope::~PackScope() {
  current_store = store_before_;
  current_later = later_before_;
}
PackStore* PackScope::store() { return current_store; }
PackLater* PackScope::later() { return current_later; }

std::string PackRequest::name() const {
  return fmt::format("{} {}x{} precision {} format {} of {:016x}", place, n, k, int(precision), int(format), of);
}

}  // namespace spillway::kernels
