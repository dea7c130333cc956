#include "kernels/pack_store.h"

#include <fmt/format.h>

#include <utility>

namespace spillway::kernels {
namespace {

thread_local PackStore* current_store = nullptr;

}  // namespace

PackScope::PackScope(PackStore* store) : before_(std::exchange(current_store, store)) {}
PackScope::~PackScope() { current_store = before_; }
PackStore* PackScope::current() { return current_store; }

std::string PackRequest::name() const {
  return fmt::format("{}x{} precision {} format {} of {:016x}", n, k, int(precision), int(format), of);
}

}  // namespace spillway::kernels
