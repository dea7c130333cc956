// The one table of failures: each kind with its HTTP status, OpenAI/DeepSeek body, Anthropic body, gRPC code and metric
// label. Plain values, any thread. Not its job: writing responses, choosing Retry-After.
#pragma once

#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <variant>

#include "base/check.h"
#include "base/result.h"

namespace spillway::api {

enum class ErrorKind {
  kInvalidFormat,        // 400: not JSON, a missing or mistyped field, a broken message contract
  kAuthentication,       // 401
  kInsufficientBalance,  // 402
  kPermission,           // 403
  kNotFound,             // 404: unknown model or path
  kMethodNotAllowed,     // 405
  kRequestTimeout,       // 408: the client was too slow to send its request
  kPayloadTooLarge,      // 413
  kInvalidParameters,    // 422: well-formed, but a value is out of range
  kRateLimit,            // 429
  kCancelled,            // 499: the client left
  kServerError,          // 500
  kUnsupported,          // 400: well-formed, but this build or model cannot do it (not 5xx: clients would retry)
  kOverloaded,           // 503: the queue is full, draining, not ready
  kDeadline,             // 504: the request's deadline passed
};

struct ErrorRow {
  ErrorKind kind;
  int http_status;
  const char* type;            // OpenAI/DeepSeek error.type
  const char* code;            // OpenAI/DeepSeek error.code
  const char* anthropic_type;  // Anthropic error.type
  int grpc_code;               // grpc::StatusCode
  const char* label;           // metric label "outcome"
  const char* tei_type;        // Text Embeddings Inference's error_type
};

const ErrorRow& error_row(ErrorKind kind);
std::span<const ErrorRow> error_rows();
ErrorKind error_kind(ErrorCode code);

// A failure as a client sees it. param names the field ("messages[2].content"); empty when there is none. code replaces
// the table's code when set ("model_not_found", "context_length_exceeded").
struct ApiError {
  ErrorKind kind = ErrorKind::kServerError;
  std::string message;
  std::string param;
  std::string code;

  int http_status() const { return error_row(kind).http_status; }
};

ApiError to_api_error(const Error& error);
Error to_error(const ApiError& error);

std::string openai_error_body(const ApiError& error);     // {"error":{"message","type","param","code"}}
std::string anthropic_error_body(const ApiError& error);  // {"type":"error","error":{"type","message"}}
std::string tei_error_body(const ApiError& error);        // {"error","error_type"}
std::string plain_error_body(const ApiError& error);      // {"error"}: KServe's, Triton's and TensorFlow Serving's

// A parsed value or the ApiError to answer with.
template <class T>
class [[nodiscard]] Parsed {
 public:
  Parsed(T value) : state_(std::in_place_index<0>, std::move(value)) {}
  Parsed(ApiError error) : state_(std::in_place_index<1>, std::move(error)) {}

  bool ok() const { return state_.index() == 0; }
  explicit operator bool() const { return ok(); }

  T& value() & {
    SW_CHECK(ok(), message());
    return std::get<0>(state_);
  }
  const T& value() const& {
    SW_CHECK(ok(), message());
    return std::get<0>(state_);
  }
  T&& value() && {
    SW_CHECK(ok(), message());
    return std::get<0>(std::move(state_));
  }
  T& operator*() & { return value(); }
  const T& operator*() const& { return value(); }
  T&& operator*() && { return std::move(*this).value(); }
  T* operator->() { return &value(); }
  const T* operator->() const { return &value(); }

  const ApiError& error() const {
    SW_CHECK(!ok(), "error() of a value");
    return std::get<1>(state_);
  }

 private:
  std::string message() const { return ok() ? std::string() : std::get<1>(state_).message; }
  std::variant<T, ApiError> state_;
};

}  // namespace spillway::api
