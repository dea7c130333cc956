// Documents between the dialects: Anthropic's blocks of type document, OpenAI's parts of type file. A PDF passes as it
// is, text becomes text. Pure; any thread.
#pragma once

#include "gateway/translate/json_parts.h"

namespace spillway::gateway {

// Parts of a chat message for a document block: a file, or its text.
Result<json::array> parts_of_document(const json::object& block);

// A document block for a file part.
Result<json::object> document_of_file(const json::object& part);

}  // namespace spillway::gateway
