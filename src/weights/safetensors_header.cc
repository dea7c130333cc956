#include "weights/safetensors_header.h"

#include <fmt/format.h>

#include <algorithm>
#include <boost/json/basic_parser_impl.hpp>
#include <cstring>
#include <unordered_set>
#include <utility>

namespace spillway::weights {
namespace {

namespace json = boost::json;

constexpr size_t kRankMax = tensor::Shape::kRankMax;

// What the header says of one tensor, before any of it is believed.
struct RawEntry {
  std::string name;
  std::string dtype;
  std::vector<int64_t> shape;
  std::vector<int64_t> offsets;
  bool has_dtype = false, has_shape = false, has_offsets = false;
};

// Receives the parser's events: {name: {"dtype": s, "shape": [n], "data_offsets": [n, n]}, "__metadata__": {s: s}}.
class HeaderHandler {
 public:
  static constexpr size_t max_object_size = size_t(-1);
  static constexpr size_t max_array_size = size_t(-1);
  static constexpr size_t max_key_size = 1 << 16;
  static constexpr size_t max_string_size = 1 << 24;

  std::vector<RawEntry> entries;
  std::string problem;

  bool on_document_begin(json::error_code&) { return true; }
  bool on_document_end(json::error_code&) { return true; }

  bool on_object_begin(json::error_code& ec) {
    ++depth_;
    if (depth_ == 1) return true;
    if (depth_ != 2 || list_ != nullptr) return fail(ec, "expected a string, found an object");
    if (!in_metadata_) entries.push_back({.name = key_, .dtype = {}, .shape = {}, .offsets = {}});
    return true;
  }
  bool on_object_end(size_t, json::error_code& ec) {
    if (--depth_ != 1) return true;
    if (!in_metadata_) {
      const RawEntry& entry = entries.back();
      if (!entry.has_dtype || !entry.has_shape || !entry.has_offsets) {
        return fail(ec, fmt::format("tensor '{}': expected dtype, shape and data_offsets", entry.name));
      }
    }
    in_metadata_ = false;
    return true;
  }
  bool on_array_begin(json::error_code& ec) {
    if (depth_ != 2 || in_metadata_ || list_ != nullptr) return fail(ec, "unexpected array");
    RawEntry& entry = entries.back();
    if (key_ == "shape") {
      if (std::exchange(entry.has_shape, true)) return fail(ec, "shape given twice");
      list_ = &entry.shape;
    } else if (key_ == "data_offsets") {
      if (std::exchange(entry.has_offsets, true)) return fail(ec, "data_offsets given twice");
      list_ = &entry.offsets;
    } else {
      return fail(ec, fmt::format("tensor '{}': unexpected key '{}'", entry.name, key_));
    }
    return true;
  }
  bool on_array_end(size_t, json::error_code&) {
    list_ = nullptr;
    return true;
  }

  bool on_key_part(json::string_view part, size_t, json::error_code&) {
    partial_.append(part.data(), part.size());
    return true;
  }
  bool on_key(json::string_view part, size_t, json::error_code& ec) {
    partial_.append(part.data(), part.size());
    key_ = std::exchange(partial_, {});
    if (depth_ == 1) {
      if (!names_.insert(key_).second) return fail(ec, fmt::format("duplicate name '{}'", key_));
      in_metadata_ = key_ == "__metadata__";
    }
    return true;
  }
  bool on_string_part(json::string_view part, size_t, json::error_code&) {
    partial_.append(part.data(), part.size());
    return true;
  }
  bool on_string(json::string_view part, size_t, json::error_code& ec) {
    partial_.append(part.data(), part.size());
    const std::string text = std::exchange(partial_, {});
    if (depth_ == 2 && in_metadata_) return true;
    if (depth_ != 2 || list_ != nullptr || key_ != "dtype")
      return fail(ec, fmt::format("unexpected string '{}'", text));
    RawEntry& entry = entries.back();
    if (std::exchange(entry.has_dtype, true)) return fail(ec, "dtype given twice");
    entry.dtype = text;
    return true;
  }

  bool on_number_part(json::string_view, json::error_code&) { return true; }
  bool on_int64(int64_t value, json::string_view, json::error_code& ec) {
    if (list_ == nullptr) return fail(ec, "unexpected number");
    if (value < 0) return fail(ec, fmt::format("tensor '{}': {} holds {}, below 0", entries.back().name, key_, value));
    if (list_->size() >= kRankMax)
      return fail(ec, fmt::format("tensor '{}': more than {} numbers in {}", entries.back().name, kRankMax, key_));
    list_->push_back(value);
    return true;
  }
  bool on_uint64(uint64_t, json::string_view, json::error_code& ec) { return fail(ec, "a number above 2^63"); }
  bool on_double(double, json::string_view, json::error_code& ec) { return fail(ec, "a number that is no integer"); }
  bool on_bool(bool, json::error_code& ec) { return fail(ec, "unexpected boolean"); }
  bool on_null(json::error_code& ec) { return fail(ec, "unexpected null"); }
  bool on_comment_part(json::string_view, json::error_code&) { return true; }
  bool on_comment(json::string_view, json::error_code&) { return true; }

 private:
  bool fail(json::error_code& ec, std::string what) {
    problem = std::move(what);
    ec = make_error_code(json::error::exception);
    return false;
  }

  int depth_ = 0;
  bool in_metadata_ = false;
  std::string key_;
  std::string partial_;
  std::vector<int64_t>* list_ = nullptr;
  std::unordered_set<std::string> names_;
};

// Bytes of shape x dtype, or an error when the product overflows.
Result<uint64_t> data_bytes(const RawEntry& raw, tensor::DType dtype) {
  uint64_t bytes = uint64_t(tensor::size_of(dtype));
  for (const int64_t extent : raw.shape) {
    if (__builtin_mul_overflow(bytes, uint64_t(extent), &bytes))
      return corrupt(fmt::format("tensor '{}': the shape overflows", raw.name));
  }
  return bytes;
}

Result<HeaderEntry> checked_entry(RawEntry raw, uint64_t data_begin, uint64_t data_bytes_total) {
  auto dtype = tensor::parse_dtype(raw.dtype);
  if (!dtype.ok()) return std::move(dtype).error().in(fmt::format("tensor '{}'", raw.name));
  SW_ASSIGN(const uint64_t bytes, data_bytes(raw, *dtype));
  if (raw.offsets.size() != 2)
    return corrupt(fmt::format("tensor '{}': expected 2 data_offsets, found {}", raw.name, raw.offsets.size()));
  const uint64_t begin = uint64_t(raw.offsets[0]), end = uint64_t(raw.offsets[1]);
  if (end < begin || end > data_bytes_total) {
    return corrupt(fmt::format("tensor '{}': data_offsets [{}, {}] lie outside the {} bytes of data", raw.name, begin,
                               end, data_bytes_total));
  }
  if (end - begin != bytes) {
    return corrupt(
        fmt::format("tensor '{}': expected {} bytes for its shape and type, found {}", raw.name, bytes, end - begin));
  }
  return HeaderEntry{std::move(raw.name), *dtype, tensor::Shape(raw.shape.data(), int(raw.shape.size())),
                     data_begin + begin, data_begin + end};
}

Status check_no_overlap(const std::vector<HeaderEntry>& entries) {
  std::vector<const HeaderEntry*> order;
  for (const HeaderEntry& entry : entries) {
    if (entry.begin != entry.end) order.push_back(&entry);
  }
  std::sort(order.begin(), order.end(), [](const auto* a, const auto* b) { return a->begin < b->begin; });
  for (size_t i = 1; i < order.size(); ++i) {
    if (order[i]->begin < order[i - 1]->end) {
      return corrupt(fmt::format("tensors '{}' and '{}' overlap", order[i - 1]->name, order[i]->name));
    }
  }
  return {};
}

}  // namespace

Result<std::vector<HeaderEntry>> parse_header(std::span<const std::byte> head, uint64_t file_bytes) {
  uint64_t length = 0;
  if (file_bytes < sizeof(length) || head.size() < sizeof(length)) {
    return corrupt(fmt::format("expected at least 8 bytes, found {}", file_bytes));
  }
  std::memcpy(&length, head.data(), sizeof(length));
  if (length > kHeaderBytesMax)
    return corrupt(fmt::format("expected a header of at most {} bytes, found {}", kHeaderBytesMax, length));
  if (length > file_bytes - sizeof(length) || length > head.size() - sizeof(length)) {
    return corrupt(
        fmt::format("the header says {} bytes, the file has {} after its length", length, file_bytes - sizeof(length)));
  }
  json::basic_parser<HeaderHandler> parser{json::parse_options{}};
  const auto* text = reinterpret_cast<const char*>(head.data()) + sizeof(length);
  json::error_code ec;
  size_t used = parser.write_some(false, text, length, ec);
  if (!ec && used < length) {
    // The format pads the header with spaces.
    const auto* rest = std::find_if(text + used, text + length, [](char c) { return c != ' '; });
    if (rest != text + length) return corrupt("bytes after the header's JSON");
  }
  if (ec) {
    const std::string& problem = parser.handler().problem;
    return corrupt(fmt::format("header: {}", problem.empty() ? ec.message() : problem));
  }
  const uint64_t data_begin = sizeof(length) + length;
  std::vector<HeaderEntry> entries;
  entries.reserve(parser.handler().entries.size());
  for (RawEntry& raw : parser.handler().entries) {
    SW_ASSIGN(HeaderEntry entry, checked_entry(std::move(raw), data_begin, file_bytes - data_begin));
    entries.push_back(std::move(entry));
  }
  SW_TRY(check_no_overlap(entries));
  return entries;
}

}  // namespace spillway::weights
