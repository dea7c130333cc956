// The console's files, embedded from web/console/ at build time. Constant data.
#pragma once

#include <span>
#include <string_view>

namespace spillway::server {

struct Asset {
  std::string_view name;  // "app.js"
  const char* content_type;
  std::string_view bytes;
};

std::span<const Asset> console_assets();
const Asset* find_asset(std::string_view name);  // null: none

}  // namespace spillway::server
