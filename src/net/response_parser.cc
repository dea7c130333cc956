#include "net/response_parser.h"

#include <boost/asio/buffer.hpp>
#include <boost/beast/http/basic_parser.hpp>
#include <boost/beast/http/error.hpp>

namespace spillway::net {
namespace {

namespace http = boost::beast::http;
using Code = boost::beast::error_code;
using Text = boost::beast::string_view;

constexpr uint32_t kHeaderBytesMax = 64 << 10;
constexpr size_t kFieldsMax = 256;
// Beast asserts that a last chunk's header which was cut once comes again with at least "0\r\n\r\n" in full.
constexpr size_t kChunkHeaderBytesMin = 5;

}  // namespace

class ResponseParser::Grammar final : public http::basic_parser<false> {
 public:
  int status = 0;
  Headers headers;
  std::string body;
  bool header_done = false;
  bool starved = false;  // the last piece ended inside a header or a chunk's header

 private:
  void on_request_impl(http::verb, Text, Text, int, Code&) override {}
  void on_response_impl(int code, Text, int, Code&) override { status = code; }
  void on_field_impl(http::field, Text name, Text value, Code& ec) override {
    if (header_done) return;
    if (headers.size() >= kFieldsMax) ec = http::error::header_limit;
    headers.add({name.data(), name.size()}, {value.data(), value.size()});
  }
  void on_header_impl(Code&) override { header_done = true; }
  void on_body_init_impl(const boost::optional<uint64_t>&, Code&) override {}
  size_t on_body_impl(Text bytes, Code&) override {
    body.append(bytes.data(), bytes.size());
    return bytes.size();
  }
  void on_chunk_header_impl(uint64_t, Text, Code&) override {}
  size_t on_chunk_body_impl(uint64_t, Text bytes, Code& ec) override { return on_body_impl(bytes, ec); }
  void on_finish_impl(Code&) override {}
};

ResponseParser::ResponseParser(bool head_only, uint64_t body_bytes_max) : grammar_(std::make_unique<Grammar>()) {
  grammar_->eager(true);
  grammar_->skip(head_only);
  grammar_->header_limit(kHeaderBytesMax);
  grammar_->body_limit(body_bytes_max);
}

ResponseParser::ResponseParser(ResponseParser&&) noexcept = default;
ResponseParser& ResponseParser::operator=(ResponseParser&&) noexcept = default;
ResponseParser::~ResponseParser() = default;

Result<size_t> ResponseParser::feed(std::string_view bytes) {
  size_t used = 0;
  while (used < bytes.size() && !grammar_->is_done()) {
    Code ec;
    const std::string_view rest = bytes.substr(used);
    if (grammar_->starved && grammar_->header_done && rest.size() < kChunkHeaderBytesMin) break;
    const size_t taken = grammar_->put(boost::asio::const_buffer(rest.data(), rest.size()), ec);
    used += taken;
    grammar_->starved = ec == http::error::need_more;
    if (grammar_->starved) ec = {};
    if (ec == http::error::body_limit) return Error{ErrorCode::kResourceExhausted, "the response is too long"};
    if (ec) return corrupt("expected an HTTP/1.1 response, found bytes that are none (" + ec.message() + ")");
    if (taken == 0) {
      if (rest.size() >= kHeaderBytesMax) return corrupt("expected an HTTP response, found an endless header");
      break;
    }
  }
  return used;
}

Status ResponseParser::end_of_stream() {
  if (grammar_->is_done()) return {};
  Code ec;
  if (grammar_->header_done) grammar_->put_eof(ec);
  if (!grammar_->header_done || ec) {
    return Error{ErrorCode::kUnavailable, grammar_->header_done ? "the server closed in the middle of its response"
                                                                : "the server closed without a response"};
  }
  return {};
}

bool ResponseParser::header_done() const { return grammar_->header_done; }
bool ResponseParser::done() const { return grammar_->is_done(); }
bool ResponseParser::keep_alive() const { return grammar_->keep_alive(); }
int ResponseParser::status() const { return grammar_->status; }
Headers& ResponseParser::headers() { return grammar_->headers; }
std::string& ResponseParser::body() { return grammar_->body; }

}  // namespace spillway::net
