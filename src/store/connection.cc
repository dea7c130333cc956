#include "store/connection.h"

#include <fmt/format.h>

#include <algorithm>

#include "store/curl_library.h"

namespace spillway::store {
namespace {

constexpr int64_t kErrorBodyMax = 16 << 10;
constexpr size_t kHeadersMax = 200;
constexpr const char* kSha256OfNothing = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

struct List {
  const CurlLibrary& curl;
  curl_slist* first = nullptr;
  explicit List(const CurlLibrary& library) : curl(library) {}
  ~List() { curl.slist_free_all(first); }
  void add(const std::string& line) { first = curl.slist_append(first, line.c_str()); }
};

// One request under way.
struct Transfer {
  const CurlLibrary& curl;
  const Get& request;
  CURL* handle;
  Got got;
  int64_t bytes = 0;
};

size_t on_body(char* data, size_t, size_t size, void* context) {
  auto& transfer = *static_cast<Transfer*>(context);
  long status = 0;
  transfer.curl.easy_getinfo(transfer.handle, CURLINFO_RESPONSE_CODE, &status);
  const std::string_view piece(data, size);
  if (status >= 300) {  // an error's text, or a redirect's
    const auto room =
        static_cast<size_t>(std::max<int64_t>(0, kErrorBodyMax - static_cast<int64_t>(transfer.got.body.size())));
    transfer.got.body += piece.substr(0, room);
    return size;
  }
  transfer.bytes += static_cast<int64_t>(size);
  const bool taken = transfer.bytes <= transfer.request.bytes_max &&
                     (transfer.request.sink ? transfer.request.sink(piece) : (transfer.got.body += piece, true));
  if (taken) return size;
  transfer.got.cut = true;
  return size == 0 ? 1 : 0;
}

size_t on_header(char* data, size_t, size_t size, void* context) {
  auto& got = static_cast<Transfer*>(context)->got;
  std::string_view line(data, size);
  if (line.starts_with("HTTP/")) {
    got.headers.clear();
    got.body.clear();
    return size;
  }
  const size_t colon = line.find(':');
  if (colon == line.npos || got.headers.size() >= kHeadersMax) return size;
  std::string name(line.substr(0, colon));
  std::ranges::transform(name, name.begin(), [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  std::string_view value = line.substr(colon + 1);
  while (!value.empty() && (value.front() == ' ' || value.front() == '\t')) value.remove_prefix(1);
  while (!value.empty() && (value.back() == '\r' || value.back() == '\n' || value.back() == ' '))
    value.remove_suffix(1);
  if (name == "x-linked-etag") got.linked_etag = value;
  got.headers[std::move(name)] = value;
  return size;
}

}  // namespace

struct Connection::State {
  CURL* handle = nullptr;
  Credentials credentials;
  double timeout_s = 30;
  ~State() {
    if (handle != nullptr) curl_library().value().easy_cleanup(handle);
  }
};

Connection::Connection(Credentials credentials, double timeout_s) : state_(std::make_unique<State>()) {
  if (curl_library().ok()) {  // else get() says why not
    state_->handle = curl_library()->easy_init();
    SW_CHECK(state_->handle != nullptr, "a handle of libcurl");
  }
  state_->credentials = std::move(credentials);
  state_->timeout_s = timeout_s;
}

Connection::~Connection() = default;
Connection::Connection(Connection&&) noexcept = default;

Result<Got> Connection::get(const Get& request) {
  if (!curl_library().ok()) return curl_library().error();
  const CurlLibrary& curl = curl_library().value();
  CURL* handle = state_->handle;
  curl.easy_reset(handle);
  Transfer transfer{curl, request, handle, {}, 0};
  List headers(curl);
  const Credentials& credentials = state_->credentials;
  if (!request.if_match.empty()) headers.add("If-Match: " + request.if_match);
  curl.easy_setopt(handle, CURLOPT_URL, request.url.c_str());
  curl.easy_setopt(handle, CURLOPT_NOSIGNAL, 1L);
  curl.easy_setopt(handle, CURLOPT_USERAGENT, "spillway");
  curl.easy_setopt(handle, CURLOPT_PROTOCOLS_STR, "http,https");
  curl.easy_setopt(handle, CURLOPT_PATH_AS_IS, 1L);
  curl.easy_setopt(handle, CURLOPT_BUFFERSIZE, 256L << 10);
  curl.easy_setopt(handle, CURLOPT_CONNECTTIMEOUT_MS, static_cast<long>(state_->timeout_s * 1000));
  curl.easy_setopt(handle, CURLOPT_LOW_SPEED_LIMIT, 1L);
  curl.easy_setopt(handle, CURLOPT_LOW_SPEED_TIME, std::max(1L, static_cast<long>(state_->timeout_s)));
  curl.easy_setopt(handle, CURLOPT_WRITEFUNCTION, on_body);
  curl.easy_setopt(handle, CURLOPT_WRITEDATA, &transfer);
  curl.easy_setopt(handle, CURLOPT_HEADERFUNCTION, on_header);
  curl.easy_setopt(handle, CURLOPT_HEADERDATA, &transfer);
  if (request.follow) {
    curl.easy_setopt(handle, CURLOPT_FOLLOWLOCATION, 1L);
    curl.easy_setopt(handle, CURLOPT_MAXREDIRS, 5L);
    // Nobody is led from https to a connection that anyone may change.
    const bool tls = request.url.starts_with("https://");
    curl.easy_setopt(handle, CURLOPT_REDIR_PROTOCOLS_STR, tls ? "https" : "http,https");
  }
  const std::string range = fmt::format("{}-{}", request.first, request.last);
  if (request.first >= 0) curl.easy_setopt(handle, CURLOPT_RANGE, range.c_str());
  if (!credentials.access_key.empty()) {
    curl.easy_setopt(handle, CURLOPT_AWS_SIGV4, fmt::format("aws:amz:{}:s3", credentials.region).c_str());
    curl.easy_setopt(handle, CURLOPT_USERNAME, credentials.access_key.c_str());
    curl.easy_setopt(handle, CURLOPT_PASSWORD, credentials.secret_key.c_str());
    // Stores ask for it; libcurl before 8 does not send it by itself.
    headers.add(std::string("x-amz-content-sha256: ") + kSha256OfNothing);
    if (!credentials.session_token.empty()) headers.add("X-Amz-Security-Token: " + credentials.session_token);
  }
  if (headers.first) curl.easy_setopt(handle, CURLOPT_HTTPHEADER, headers.first);
  const CURLcode code = curl.easy_perform(handle);
  long status = 0;
  curl.easy_getinfo(handle, CURLINFO_RESPONSE_CODE, &status);
  transfer.got.status = static_cast<int>(status);
  if (code == CURLE_OK || transfer.got.cut) return std::move(transfer.got);
  return Error{ErrorCode::kUnavailable, fmt::format("{}: {}", request.url, curl.easy_strerror(code))};
}

}  // namespace spillway::store
