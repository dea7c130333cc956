#include "api/errors.h"

#include <boost/json/object.hpp>
#include <boost/json/serialize.hpp>

namespace spillway::api {

namespace {

// grpc::StatusCode by number, so that this table needs no gRPC.
enum Grpc {
  kCancelledCode = 1,
  kInvalid = 3,
  kDeadlineCode = 4,
  kNotFoundCode = 5,
  kDenied = 7,
  kExhausted = 8,
  kPrecondition = 9,
  kUnimplemented = 12,
  kInternalCode = 13,
  kUnavailableCode = 14,
  kUnauthenticatedCode = 16
};

// In the order of ErrorKind. Bodies of 400, 401, 402, 422 as DeepSeek writes them; the others as OpenAI does.
constexpr ErrorRow kRows[] = {
    {ErrorKind::kInvalidFormat, 400, "invalid_request_error", "invalid_request_error", "invalid_request_error",
     kInvalid, "invalid_format", "Validation"},
    {ErrorKind::kAuthentication, 401, "authentication_error", "invalid_request_error", "authentication_error",
     kUnauthenticatedCode, "authentication", "Unauthorized"},
    {ErrorKind::kInsufficientBalance, 402, "unknown_error", "invalid_request_error", "billing_error", kPrecondition,
     "insufficient_balance", "Unauthorized"},
    {ErrorKind::kPermission, 403, "permission_error", "permission_denied", "permission_error", kDenied, "permission",
     "Unauthorized"},
    {ErrorKind::kNotFound, 404, "invalid_request_error", "not_found", "not_found_error", kNotFoundCode, "not_found",
     "NotFound"},
    {ErrorKind::kMethodNotAllowed, 405, "invalid_request_error", "method_not_allowed", "invalid_request_error",
     kUnimplemented, "method_not_allowed", "Validation"},
    {ErrorKind::kRequestTimeout, 408, "timeout_error", "request_timeout", "timeout_error", kDeadlineCode,
     "request_timeout", "Validation"},
    {ErrorKind::kPayloadTooLarge, 413, "invalid_request_error", "request_too_large", "request_too_large", kExhausted,
     "payload_too_large", "Validation"},
    {ErrorKind::kInvalidParameters, 422, "invalid_request_error", "invalid_request_error", "invalid_request_error",
     kInvalid, "invalid_parameters", "Validation"},
    {ErrorKind::kRateLimit, 429, "rate_limit_error", "rate_limit_exceeded", "rate_limit_error", kExhausted,
     "rate_limit", "Overloaded"},
    {ErrorKind::kCancelled, 499, "cancelled", "cancelled", "api_error", kCancelledCode, "cancelled", "Backend"},
    {ErrorKind::kServerError, 500, "server_error", "internal_error", "api_error", kInternalCode, "server_error",
     "Backend"},
    {ErrorKind::kUnsupported, 400, "invalid_request_error", "unsupported", "invalid_request_error", kUnimplemented,
     "unsupported", "Backend"},
    {ErrorKind::kOverloaded, 503, "service_unavailable_error", "overloaded", "overloaded_error", kUnavailableCode,
     "overloaded", "Unhealthy"},
    {ErrorKind::kDeadline, 504, "timeout_error", "deadline_exceeded", "timeout_error", kDeadlineCode, "deadline",
     "Overloaded"},
};

}  // namespace

const ErrorRow& error_row(ErrorKind kind) {
  const ErrorRow& row = kRows[size_t(kind)];
  SW_CHECK(row.kind == kind, "the error table is out of order");
  return row;
}

std::span<const ErrorRow> error_rows() { return kRows; }

ErrorKind error_kind(ErrorCode code) {
  switch (code) {
    case ErrorCode::kInvalidArgument:
      return ErrorKind::kInvalidFormat;
    case ErrorCode::kNotFound:
      return ErrorKind::kNotFound;
    case ErrorCode::kUnsupported:
      return ErrorKind::kUnsupported;
    case ErrorCode::kUnauthenticated:
      return ErrorKind::kAuthentication;
    case ErrorCode::kResourceExhausted:
      return ErrorKind::kRateLimit;
    case ErrorCode::kUnavailable:
      return ErrorKind::kOverloaded;
    case ErrorCode::kDeadlineExceeded:
      return ErrorKind::kDeadline;
    case ErrorCode::kCancelled:
      return ErrorKind::kCancelled;
    case ErrorCode::kCorrupt:
    case ErrorCode::kInternal:
      break;
  }
  return ErrorKind::kServerError;
}

ApiError to_api_error(const Error& error) { return {error_kind(error.code), error.message, "", ""}; }

Error to_error(const ApiError& error) {
  ErrorCode code = ErrorCode::kInternal;
  switch (error.kind) {
    case ErrorKind::kAuthentication:
    case ErrorKind::kPermission:
      code = ErrorCode::kUnauthenticated;
      break;
    case ErrorKind::kNotFound:
      code = ErrorCode::kNotFound;
      break;
    case ErrorKind::kRateLimit:
    case ErrorKind::kInsufficientBalance:
      code = ErrorCode::kResourceExhausted;
      break;
    case ErrorKind::kOverloaded:
      code = ErrorCode::kUnavailable;
      break;
    case ErrorKind::kRequestTimeout:
    case ErrorKind::kDeadline:
      code = ErrorCode::kDeadlineExceeded;
      break;
    case ErrorKind::kCancelled:
      code = ErrorCode::kCancelled;
      break;
    case ErrorKind::kUnsupported:
      code = ErrorCode::kUnsupported;
      break;
    case ErrorKind::kServerError:
      break;
    default:
      code = ErrorCode::kInvalidArgument;
  }
  return {code, error.param.empty() ? error.message : error.param + ": " + error.message};
}

std::string openai_error_body(const ApiError& error) {
  const ErrorRow& row = error_row(error.kind);
  boost::json::object body;
  body["message"] = error.message;
  body["type"] = row.type;
  body["param"] = error.param.empty() ? boost::json::value(nullptr) : boost::json::value(error.param);
  body["code"] = error.code.empty() ? std::string(row.code) : error.code;
  return boost::json::serialize(boost::json::object{{"error", std::move(body)}});
}

std::string anthropic_error_body(const ApiError& error) {
  const boost::json::object body{{"type", error_row(error.kind).anthropic_type}, {"message", error.message}};
  return boost::json::serialize(boost::json::object{{"type", "error"}, {"error", body}});
}

std::string tei_error_body(const ApiError& error) {
  return boost::json::serialize(
      boost::json::object{{"error", error.message}, {"error_type", error_row(error.kind).tei_type}});
}

std::string plain_error_body(const ApiError& error) {
  return boost::json::serialize(boost::json::object{{"error", error.message}});
}

}  // namespace spillway::api
