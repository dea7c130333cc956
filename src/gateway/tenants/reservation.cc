#include "gateway/tenants.h"

namespace spillway::gateway {

bool Caller::may_use(std::string_view model, std::string_view alias) const {
  if (!alias.empty() && may_use(alias)) return true;
  if (models.empty()) return true;
  for (const std::string& pattern : models) {
    if (pattern == model) return true;
    if (pattern.ends_with('*') && model.starts_with(std::string_view(pattern).substr(0, pattern.size() - 1)))
      return true;
  }
  return false;
}

Reservation& Reservation::operator=(Reservation&& other) noexcept {
  if (this == &other) return *this;
  refund();
  tenants_ = std::exchange(other.tenants_, nullptr);
  key_id_ = std::move(other.key_id_);
  model_ = std::move(other.model_);
  tokens_ = other.tokens_;
  cost_nanodollars_ = other.cost_nanodollars_;
  slot_ = other.slot_;
  shared_ = other.shared_;
  return *this;
}

void Reservation::settle(const TokenUsage& usage, const Price& price) {
  if (Tenants* tenants = std::exchange(tenants_, nullptr)) tenants->settle(*this, usage, price);
}

void Reservation::refund() {
  if (Tenants* tenants = std::exchange(tenants_, nullptr)) tenants->refund(*this);
}

}  // namespace spillway::gateway
