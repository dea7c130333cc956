#include "gateway/translate/documents.h"

#include <fmt/format.h>

#include "api/common.h"
#include "api/encode.h"

namespace spillway::gateway {
namespace {

constexpr std::string_view kPdf = "application/pdf";

json::object text_part(std::string_view title, std::string_view text) {
  std::string whole(title);
  if (!whole.empty()) whole += "\n\n";
  return {{"type", "text"}, {"text", whole.append(text)}};
}

}  // namespace

Result<json::array> parts_of_document(const json::object& block) {
  const json::object* source = object_of(block, "source");
  if (source == nullptr) return invalid("document: expected a source, found none");
  const std::string_view type = text_of(*source, "type"), title = text_of(block, "title");
  json::array parts;
  if (type == "text") {
    parts.push_back(text_part(title, text_of(*source, "data")));
  } else if (type == "base64") {
    json::object file{{"filename", title.empty() ? std::string_view("document.pdf") : title}};
    file["file_data"] = fmt::format("data:{};base64,{}", text_of(*source, "media_type"), text_of(*source, "data"));
    parts.push_back({{"type", "file"}, {"file", std::move(file)}});
  } else if (const json::array* content = array_of(*source, "content"); type == "content" && content != nullptr) {
    for (const json::value& value : *content) {
      const json::object* piece = value.if_object();
      if (piece == nullptr || text_of(*piece, "type") != "text")
        return invalid("a document of other content than text cannot be said in OpenAI's dialect");
      parts.push_back(text_part(parts.empty() ? title : std::string_view(), text_of(*piece, "text")));
    }
  } else if (type == "content") {
    parts.push_back(text_part(title, text_of(*source, "content")));
  } else {
    return invalid(fmt::format("a document by \"{}\" cannot be said in OpenAI's dialect", type.substr(0, 32)));
  }
  return parts;
}

Result<json::object> document_of_file(const json::object& part) {
  const json::object* file = object_of(part, "file");
  std::string_view data = file == nullptr ? std::string_view() : text_of(*file, "file_data");
  if (data.empty()) return invalid("a file without file_data cannot be said in Anthropic's dialect");
  std::string_view media = kPdf;  // as OpenAI takes data without a head
  if (data.starts_with("data:")) {
    const size_t comma = data.find(',');
    const std::string_view head = data.substr(5, comma == data.npos ? 0 : comma - 5);
    if (!head.ends_with(";base64")) return invalid("file_data: expected data:TYPE;base64,DATA, found another form");
    media = head.substr(0, head.find(';'));
    data = data.substr(comma + 1);
  }
  json::object source;
  if (media == kPdf) {
    source = {{"type", "base64"}, {"media_type", media}, {"data", data}};
  } else if (media.starts_with("text/")) {
    const auto text = api::decode_base64(data);
    if (!text) return invalid("file_data: expected base64, found something else");
    source = {{"type", "text"}, {"media_type", "text/plain"}, {"data", api::utf8_lossy(*text)}};
  } else {
    return invalid(fmt::format("a file of type \"{}\" cannot be said in Anthropic's dialect", media.substr(0, 64)));
  }
  json::object block{{"type", "document"}, {"source", std::move(source)}};
  copy_member(*file, "filename", block, "title");
  return block;
}

}  // namespace spillway::gateway
