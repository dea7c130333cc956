#include "net/request_parser.h"

#include <algorithm>
#include <boost/asio/buffer.hpp>
#include <boost/beast/http/basic_parser.hpp>
#include <boost/beast/http/error.hpp>

#include "base/check.h"

namespace spillway::net {
namespace {

namespace http = boost::beast::http;
using Code = boost::beast::error_code;
using Text = boost::beast::string_view;

constexpr size_t kFieldsMax = 256;
// Beast asserts that a last chunk's header which was cut once comes again with at least "0\r\n\r\n" in full.
constexpr size_t kChunkHeaderBytesMin = 5;
constexpr uint64_t kBodyReserveMax = 64 << 10;  // a declared length is only a promise

std::string to_string(Text text) { return {text.data(), text.size()}; }

// Splits the target; false when it is none that we serve: "/path?query", "http://host/path?query" or "*".
bool split_target(HttpRequest& request) {
  std::string_view target = request.target;
  const size_t scheme = target.find("://");
  if (scheme != std::string_view::npos && scheme < target.find_first_of("/?")) {
    const size_t path = target.find('/', scheme + 3);
    target = path == std::string_view::npos ? std::string_view("/") : target.substr(path);
  }
  if (!target.starts_with('/') && target != "*") return false;
  const size_t question = std::min(target.find('?'), target.size());
  request.query = target.substr(std::min(question + 1, target.size()));
  auto path = percent_decode(target.substr(0, question), false);
  if (!path || path->find('\0') != std::string::npos) return false;
  request.path = std::move(*path);
  return true;
}

}  // namespace

class RequestParser::Grammar final : public http::basic_parser<true> {
 public:
  HttpRequest request;
  bool line_done = false;  // the request line
  bool header_done = false;
  bool starved = false;  // the last piece ended inside a header or a chunk's header

 private:
  void on_request_impl(http::verb, Text method, Text target, int version, Code&) override {
    request.method = to_string(method);
    request.target = to_string(target);
    request.version_minor = version % 10;
    line_done = true;
  }
  void on_response_impl(int, Text, int, Code&) override {}
  // Trailer fields are dropped: they could otherwise stand in for headers already checked.
  void on_field_impl(http::field, Text name, Text value, Code& ec) override {
    if (header_done) return;
    if (request.headers.size() >= kFieldsMax) ec = http::error::header_limit;
    request.headers.add(to_string(name), to_string(value));
  }
  void on_header_impl(Code&) override { header_done = true; }
  void on_body_init_impl(const boost::optional<uint64_t>& length, Code&) override {
    request.body.reserve(size_t(std::min(length.value_or(0), kBodyReserveMax)));
  }
  size_t on_body_impl(Text bytes, Code&) override {
    request.body.append(bytes.data(), bytes.size());
    return bytes.size();
  }
  void on_chunk_header_impl(uint64_t, Text, Code&) override {}
  size_t on_chunk_body_impl(uint64_t, Text bytes, Code& ec) override { return on_body_impl(bytes, ec); }
  void on_finish_impl(Code&) override {}
};

RequestParser::RequestParser(const RequestLimits& limits) : limits_(limits), grammar_(std::make_unique<Grammar>()) {
  grammar_->eager(true);
  grammar_->header_limit(limits.header_bytes_max);
  grammar_->body_limit(limits.body_bytes_max);
}

RequestParser::~RequestParser() = default;

size_t RequestParser::feed(std::string_view bytes) {
  size_t used = 0;
  // Empty lines before a request line are to be ignored.
  if (!grammar_->got_some()) {
    while (used < bytes.size() && (bytes[used] == '\r' || bytes[used] == '\n')) ++used;
  }
  while (used < bytes.size() && (state_ == State::kHeader || state_ == State::kBody)) {
    Code ec;
    const std::string_view rest = bytes.substr(used);
    if (grammar_->starved && grammar_->header_done && rest.size() < kChunkHeaderBytesMin) break;
    const size_t taken = grammar_->put(boost::asio::const_buffer(rest.data(), rest.size()), ec);
    used += taken;
    grammar_->starved = ec == http::error::need_more;
    if (grammar_->starved) ec = {};
    if (ec == http::error::body_limit) {
      fail(413, "the body is longer than the server takes");
    } else if (ec == http::error::header_limit ||
               (taken == 0 && state_ == State::kHeader && rest.size() >= limits_.header_bytes_max)) {
      const bool in_header = grammar_->line_done || rest.find('\n') != std::string_view::npos;
      fail(in_header ? 431 : 414, in_header ? "the header is too long" : "the request line is too long");
    } else if (ec == http::error::bad_version) {
      fail(505, "expected HTTP/1.0 or HTTP/1.1");
    } else if (ec || (taken == 0 && rest.size() >= limits_.header_bytes_max)) {
      fail(400, "the request is not well-formed HTTP/1.1");
    } else {
      if (state_ == State::kHeader && grammar_->header_done) check_header();
      if (state_ != State::kFailed && grammar_->is_done()) state_ = State::kDone;
      if (taken == 0) break;
    }
  }
  return used;
}

void RequestParser::check_header() {
  HttpRequest& request = grammar_->request;
  size_t hosts = 0;
  for (const auto& [name, value] : request.headers) hosts += equals_ignoring_case(name, "Host");
  state_ = State::kBody;
  if (request.version_minor == 1 ? hosts != 1 : hosts > 1) {
    fail(400, "expected one Host header");
  } else if (request.headers.contains("Transfer-Encoding") &&
             (request.version_minor == 0 || !grammar_->chunked() ||
              !equals_ignoring_case(*request.headers.find("Transfer-Encoding"), "chunked"))) {
    fail(501, "expected no Transfer-Encoding but chunked");
  } else if (!split_target(request)) {
    fail(400, "the request target is not a path");
  }
}

void RequestParser::fail(int status, std::string_view message) {
  state_ = State::kFailed;
  error_status_ = status;
  error_message_ = message;
}

bool RequestParser::expects_continue() const {
  return state_ == State::kBody && grammar_->request.body.empty() && grammar_->request.version_minor == 1 &&
         grammar_->request.headers.has_token("Expect", "100-continue");
}

bool RequestParser::keep_alive() const { return grammar_->keep_alive(); }

uint64_t RequestParser::body_bytes() const { return grammar_->request.body.size(); }

HttpRequest RequestParser::take() {
  SW_CHECK(state_ == State::kDone, "the request is not complete");
  return std::move(grammar_->request);
}

}  // namespace spillway::net
