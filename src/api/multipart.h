// multipart/form-data: the body of a form with files. Views into the body; pure functions, any thread.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "api/errors.h"

namespace spillway::api {

struct FormPart {
  std::string name;
  bool is_file = false;  // it came with a file name
  std::string_view body;
};

bool is_multipart(std::string_view content_type);
Parsed<std::vector<FormPart>> parse_multipart(std::string_view content_type, std::string_view body);

}  // namespace spillway::api
