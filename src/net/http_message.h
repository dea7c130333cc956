// HTTP messages as plain values, the vocabulary of client and server. No I/O.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace spillway::metrics {
class Timeline;
}

namespace spillway::net {

// Header fields in order; names compare without case.
class Headers {
 public:
  using Field = std::pair<std::string, std::string>;

  Headers() = default;
  Headers(std::initializer_list<Field> fields) : fields_(fields) {}

  // of("Content-Type", "text/plain", "X-A", "1"): for use inside co_await, where GCC 12 refuses an initializer list.
  template <class... Text>
  static Headers of(Text&&... names_and_values) {
    Headers headers;
    headers.add_all(std::forward<Text>(names_and_values)...);
    return headers;
  }

  void add(std::string name, std::string value) {
    if (fields_.capacity() == 0) fields_.reserve(kFieldsUsual);
    fields_.emplace_back(std::move(name), std::move(value));
  }
  void set(std::string_view name, std::string value);                 // replaces all of that name
  std::optional<std::string_view> find(std::string_view name) const;  // the first of that name
  std::string_view value_or(std::string_view name, std::string_view fallback) const;
  bool contains(std::string_view name) const { return find(name).has_value(); }
  // Whether the comma-separated value of any such field holds the token: has_token("Connection", "close").
  bool has_token(std::string_view name, std::string_view token) const;
  size_t erase(std::string_view name);
  size_t size() const { return fields_.size(); }
  auto begin() const { return fields_.begin(); }
  auto end() const { return fields_.end(); }

 private:
  static constexpr size_t kFieldsUsual = 8;

  void add_all() {}
  template <class Name, class Value, class... Rest>
  void add_all(Name&& name, Value&& value, Rest&&... rest) {
    add(std::string(std::forward<Name>(name)), std::string(std::forward<Value>(value)));
    add_all(std::forward<Rest>(rest)...);
  }

  std::vector<Field> fields_;
};

bool equals_ignoring_case(std::string_view a, std::string_view b);

struct HttpRequest {
  std::string method;
  std::string target;  // as sent
  std::string path;    // percent-decoded, without the query
  std::string query;   // as sent, without '?'
  int version_minor = 1;
  Headers headers;
  std::string body;
  std::string peer;                             // "address:port"
  std::string id;                               // the client's X-Request-Id where it is short and plain, else random
  std::shared_ptr<metrics::Timeline> timeline;  // what happens to it is written there; null: nowhere

  // The first such parameter of the query, decoded.
  std::optional<std::string> query_parameter(std::string_view name) const;
};

std::string_view status_reason(int status);

// "%41+b" with plus_is_space -> "A b"; nothing when an escape is broken.
std::optional<std::string> percent_decode(std::string_view text, bool plus_is_space);

}  // namespace spillway::net
