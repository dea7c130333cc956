// Result<T>: a value or an Error that names what was expected and what was found. Used wherever untrusted input or the
// outside world can fail; a bug of ours is a CHECK (check.h), never an Error.
#pragma once

#include <string>
#include <utility>
#include <variant>

#include "base/check.h"

namespace spillway {

// What kind of failure it is. api/errors.h maps each to an HTTP status, an API body, a gRPC code and a metric label.
enum class ErrorCode {
  kInvalidArgument,    // the caller's input is wrong: a bad field, file or flag
  kNotFound,           // the named thing does not exist
  kUnsupported,        // well-formed, but this build or device cannot do it
  kCorrupt,            // bytes that break their own format
  kUnauthenticated,    // no key or a wrong key
  kResourceExhausted,  // a bound was reached: queue, memory, rate
  kUnavailable,        // not ready, draining, or the other side is down
  kDeadlineExceeded,
  kCancelled,
  kInternal,
};

struct Error {
  ErrorCode code = ErrorCode::kInternal;
  std::string message;

  // Prefixes the message with where it happened: "config.json: ...".
  Error in(const std::string& where) && { return {code, where + ": " + message}; }
};

inline Error invalid(std::string message) { return {ErrorCode::kInvalidArgument, std::move(message)}; }
inline Error corrupt(std::string message) { return {ErrorCode::kCorrupt, std::move(message)}; }
inline Error unsupported(std::string message) { return {ErrorCode::kUnsupported, std::move(message)}; }
inline Error not_found(std::string message) { return {ErrorCode::kNotFound, std::move(message)}; }

template <class T = std::monostate>
class [[nodiscard]] Result {
 public:
  Result(T value) : state_(std::in_place_index<0>, std::move(value)) {}
  Result(Error error) : state_(std::in_place_index<1>, std::move(error)) {}
  Result() requires std::is_same_v<T, std::monostate>
  = default;

  bool ok() const { return state_.index() == 0; }
  explicit operator bool() const { return ok(); }

  T& value() & {
    SW_CHECK(ok(), error_message());
    return std::get<0>(state_);
  }
  const T& value() const& {
    SW_CHECK(ok(), error_message());
    return std::get<0>(state_);
  }
  T&& value() && {
    SW_CHECK(ok(), error_message());
    return std::get<0>(std::move(state_));
  }
  T& operator*() & { return value(); }
  const T& operator*() const& { return value(); }
  T&& operator*() && { return std::move(*this).value(); }
  T* operator->() { return &value(); }
  const T* operator->() const { return &value(); }

  const Error& error() const& {
    SW_CHECK(!ok(), "error() of a Result that holds a value");
    return std::get<1>(state_);
  }
  Error&& error() && {
    SW_CHECK(!ok(), "error() of a Result that holds a value");
    return std::get<1>(std::move(state_));
  }

 private:
  std::string error_message() const { return ok() ? std::string() : std::get<1>(state_).message; }
  std::variant<T, Error> state_;
};

using Status = Result<>;

}  // namespace spillway

#define SW_CONCAT_INNER(a, b) a##b
#define SW_CONCAT(a, b) SW_CONCAT_INNER(a, b)

// SW_TRY(expression): returns its error from the enclosing function.
#define SW_TRY(expression)                                    \
  do {                                                        \
    auto sw_status = (expression);                            \
    if (!sw_status.ok()) return std::move(sw_status).error(); \
  } while (0)

// SW_ASSIGN(auto x, expression): x is the value, or the enclosing function returns the error.
#define SW_ASSIGN(declaration, expression) SW_ASSIGN_INNER(SW_CONCAT(sw_result_, __LINE__), declaration, expression)
#define SW_ASSIGN_INNER(name, declaration, expression) \
  auto name = (expression);                            \
  if (!name.ok()) return std::move(name).error();      \
  declaration = std::move(name).value()
