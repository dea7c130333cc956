// Names for requests, so that a client's report, our log and the upstream's can be brought together.
#pragma once

#include <string>
#include <string_view>

namespace spillway::net {

// The client's own where it is 1 to 128 of letters, digits and "-_.:"; else 32 random hexadecimal digits.
std::string request_id(std::string_view given);

}  // namespace spillway::net
