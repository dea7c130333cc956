// Config: a value for every option and where it came from. Sources are laid over one another in order: defaults, file,
// environment, flags. Built at start, then read-only; any thread may read.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "config/options.h"
#include "config/value.h"
#include "config/yaml.h"

namespace spillway::config {

struct Origin {
  enum class Kind { kDefault, kFile, kEnvironment, kFlag } kind = Kind::kDefault;
  std::string where;  // "server.yaml:3:9", "SPILLWAY_NETWORK_PORT", "--port"; empty for a default
};

class Config {
 public:
  Config();  // all defaults

  // Each lays a source over what is there. An error lists every problem, one a line, each with its place.
  Status load_file(const std::string& path);
  Status load_yaml(std::string_view text, const std::string& name);
  // variables: "NAME=value". Only SPILLWAY_ names are read; near misses become warnings.
  Status load_environment(const std::vector<std::string>& variables);
  Status set_flag(size_t option, std::string_view text);

  const std::string& text(Key<Type::kString> key) const { return std::get<std::string>(values_[key.index]); }
  int64_t integer(Key<Type::kInt> key) const { return std::get<int64_t>(values_[key.index]); }
  double number(Key<Type::kFloat> key) const { return std::get<double>(values_[key.index]); }
  bool boolean(Key<Type::kBool> key) const { return std::get<bool>(values_[key.index]); }
  double seconds(Key<Type::kDuration> key) const { return std::get<double>(values_[key.index]); }
  int64_t bytes(Key<Type::kBytes> key) const { return std::get<int64_t>(values_[key.index]); }
  const std::vector<std::string>& strings(Key<Type::kStrings> key) const {
    return std::get<std::vector<std::string>>(values_[key.index]);
  }
  const std::vector<int64_t>& integers(Key<Type::kInts> key) const {
    return std::get<std::vector<int64_t>>(values_[key.index]);
  }

  const Value& value(size_t option) const { return values_[option]; }
  const Origin& origin(size_t option) const { return origins_[option]; }
  template <Type type>
  bool is_explicit(Key<type> key) const {
    return origins_[key.index].kind != Origin::Kind::kDefault;
  }

  // What the file says under a list of maps (kMapLists), for the part of the program that it is for, and the file's
  // name.
  const std::vector<YamlEntry>& map_lists() const { return map_lists_; }
  const std::string& file() const { return file_; }

  // One configuration a model: this one, with each item of the file's list `models` laid over it ("name" is model.name;
  // "engine.kv_cache" and other keys with a section are themselves). Without such a list, this one alone.
  Result<std::vector<Config>> each_model() const;
  bool has_models() const;  // the file has that list

  const std::vector<std::string>& warnings() const { return warnings_; }

 private:
  Status set_item(const YamlEntry& entry, std::string_view key);

  std::vector<Value> values_;
  std::vector<Origin> origins_;
  std::vector<std::string> warnings_;
  std::vector<YamlEntry> map_lists_;
  std::string file_;
};

// The process's environment as load_environment takes it.
std::vector<std::string> process_environment();

// Defaults, then the file if one is named, then the environment. Flags come after, by set_flag.
Result<Config> resolve(const std::string& file, const std::vector<std::string>& environment);

}  // namespace spillway::config
