// SchemaCompiler: the walk over one schema document that json_schema.h offers as a function. Lives as long as that
// call.
#pragma once

#include <boost/json/object.hpp>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "text/json_schema.h"

namespace spillway::text {

bool has_type(const boost::json::value& value, const std::string& type);

class SchemaCompiler {
 public:
  SchemaCompiler(const boost::json::value& document, JsonRules& json)
      : document_(document), json_(json), rules_(json.rules()) {}

  Result<Element> compile(const boost::json::value& schema, const std::string& path);

 private:
  using Object = boost::json::object;
  static constexpr int kDepthMax = 64;

  Result<Element> compile_object_schema(const Object& schema, const std::string& path);
  Result<Element> compile_reference(const Object& schema, const std::string& path);
  Result<Element> compile_choices(const Object& schema, const std::string& key, const std::string& path);
  Status check_exclusive(const boost::json::array& branches, const std::string& path);
  Result<Element> compile_all_of(const Object& schema, const std::string& path);
  Result<Element> compile_values(const Object& schema, const std::string& path);
  Result<std::vector<std::string>> types_of(const Object& schema, const std::string& path) const;
  Result<Element> compile_type(const std::string& type, const Object& schema, const std::string& path);

  Result<Element> compile_object(const Object& schema, const std::string& path);
  Result<Element> compile_members(const Object& schema, const std::string& path);
  Result<Element> other_members(const Object& schema, const std::string& path);
  Result<Element> other_key(const Object& properties, const std::string& path);
  Element key_beyond(const std::vector<std::string_view>& names, size_t depth);
  Result<Element> compile_array(const Object& schema, const std::string& path);
  Result<Element> compile_string(const Object& schema, const std::string& path);

  Result<Element> compile_not(const Object& schema, const std::string& path);
  Result<Element> compile_other_than(const std::string& type, const Object& schema, const boost::json::array& values,
                                     const std::string& path);
  Result<Element> compile_conditional(const Object& schema, const std::string& path);
  Result<Element> compile_multiples(const Object& schema, const NumberBounds& bounds, const std::string& path);
  Element digits_of_multiples(int step, int digits);
  Result<Element> compile_unique_items(const Object& schema, const std::string& path);
  Result<Element> compile_pattern_members(const Object& schema, const std::string& path);

  std::optional<Object> flattened(const boost::json::value& schema) const;
  bool excludes(const boost::json::value& written, const boost::json::value& accepted, int depth);
  bool every_branch(const Object& schema, const char* key,
                    const std::function<bool(const boost::json::value&)>& holds) const;
  bool arrays_exclude(const Object& written, const Object& accepted, int depth);
  bool objects_exclude(const Object& written, const Object& accepted, int depth);

  Result<const boost::json::value*> resolve(const std::string& pointer, const std::string& path) const;
  static Result<int> count_of(const Object& schema, std::string_view key, int fallback, const std::string& path);

  const boost::json::value& document_;
  JsonRules& json_;
  GrammarRules& rules_;
  std::map<std::string, Element> references_;  // by pointer
  int depth_ = 0;
  int exclusion_steps_ = 0;
};

}  // namespace spillway::text
