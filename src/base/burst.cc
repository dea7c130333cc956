#include "base/burst.h"

#include <utility>

namespace spillway {
namespace {

thread_local Burst* outermost = nullptr;

}  // namespace

Burst::Burst() {
  if (outermost == nullptr) outermost = this;
}

Burst::~Burst() {
  if (outermost != this) return;
  outermost = nullptr;  // what a listener does is no longer part of it
  for (const auto& listener : listeners_) listener->end_of_burst();
}

Burst* Burst::current() { return outermost; }

}  // namespace spillway
