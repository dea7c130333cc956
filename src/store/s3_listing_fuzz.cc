// Listings are a store's bytes: any text gives a listing or an error.
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "store/location.h"
#include "store/s3_listing.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  const auto listing = spillway::store::parse_s3_listing(text);
  if (listing.ok()) {
    for (const auto& object : listing->objects) (void)spillway::store::is_safe_name(object.key);
  }
  (void)spillway::store::s3_error_text(text);
  (void)spillway::store::parse_location(text);
  return 0;
}
