#include "config/yaml.h"

#include <fmt/format.h>
#include <yaml-cpp/eventhandler.h>
#include <yaml-cpp/exceptions.h>
#include <yaml-cpp/parser.h>

#include <map>
#include <sstream>

#include "config/options.h"

namespace spillway::config {
namespace {

constexpr size_t kSizeMax = 1 << 20;
constexpr size_t kDepthMax = 8;
constexpr size_t kKeySizeMax = 200;

// Leaves the parser from inside a callback; caught in parse_yaml.
struct Refused {
  std::string message;
};

[[noreturn]] void refuse(const YAML::Mark& mark, std::string_view message) {
  throw Refused{fmt::format("{}:{}: {}", mark.line + 1, mark.column + 1, message)};
}

class Flattener : public YAML::EventHandler {
 public:
  std::vector<YamlEntry> take() && { return std::move(entries_); }

  void OnDocumentStart(const YAML::Mark&) override {}
  void OnDocumentEnd() override {}
  void OnAlias(const YAML::Mark& mark, YAML::anchor_t) override {
    refuse(mark, "expected a value, found an alias (*name)");
  }

  void OnNull(const YAML::Mark& mark, YAML::anchor_t anchor) override { scalar(mark, anchor, "", false); }

  void OnScalar(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
                const std::string& value) override {
    if (!tag.empty() && tag != "?" && tag != "!")
      refuse(mark, "expected a plain value, found the tag " + tag.substr(0, 40));
    scalar(mark, anchor, value, tag == "!");
  }

  void OnSequenceStart(const YAML::Mark& mark, const std::string&, YAML::anchor_t anchor,
                       YAML::EmitterStyle::value) override {
    refuse_anchor(mark, anchor);
    if (maps_.empty()) refuse(mark, "expected a map of sections, found a list");
    if (in_list_)
      refuse(mark, between_items() ? "expected a map in the list, found a list"
                                   : "expected a plain value in the list, found a list");
    if (!key_pending_) refuse(mark, "expected a key, found a list");
    add(YamlEntry::Kind::kList);
    in_list_ = true;
  }

  void OnSequenceEnd() override {
    if (between_items()) in_maps_ = false;
    in_list_ = false;
    key_pending_ = false;
  }

  void OnMapStart(const YAML::Mark& mark, const std::string&, YAML::anchor_t anchor,
                  YAML::EmitterStyle::value) override {
    refuse_anchor(mark, anchor);
    if (in_list_ && begin_item(mark)) return;
    if (!maps_.empty() && !key_pending_) refuse(mark, "expected a key, found a map");
    if (maps_.size() >= kDepthMax) refuse(mark, fmt::format("expected at most {} nested maps", kDepthMax));
    if (!maps_.empty()) add(YamlEntry::Kind::kMap);
    maps_.push_back(maps_.empty() ? "" : path(key_) + ".");
    key_pending_ = false;
  }

  void OnMapEnd() override {
    maps_.pop_back();
    key_pending_ = false;
    if (in_maps_ && maps_.size() == item_depth_) in_list_ = true;  // back between the items
  }

 private:
  bool between_items() const { return in_maps_ && in_list_ && maps_.size() == item_depth_; }

  // A map in a list is one of the lists of maps: its members are named "gateway.upstreams[0].name".
  bool begin_item(const YAML::Mark& mark) {
    if (in_maps_ && !between_items()) refuse(mark, "expected a plain value in the list, found a map");
    if (!in_maps_) {
      const std::string& list = entries_.back().key;
      if (!is_map_list(list) || !entries_.back().items.empty()) {
        refuse(mark, "expected a plain value in the list, found a map");
      }
      in_maps_ = true;
      list_key_ = list;
      item_ = 0;
      item_depth_ = maps_.size();
    }
    in_list_ = false;
    maps_.push_back(fmt::format("{}[{}].", list_key_, item_++));
    entries_.push_back(
        {YamlEntry::Kind::kMap, maps_.back().substr(0, maps_.back().size() - 1), {}, mark.line + 1, mark.column + 1});
    key_pending_ = false;
    return true;
  }

  void refuse_anchor(const YAML::Mark& mark, YAML::anchor_t anchor) {
    if (anchor != 0) refuse(mark, "expected a value, found an anchor (&name)");
  }

  std::string path(const YamlScalar& key) const { return maps_.back() + key.text; }

  void scalar(const YAML::Mark& mark, YAML::anchor_t anchor, const std::string& text, bool quoted) {
    refuse_anchor(mark, anchor);
    YamlScalar value{text, quoted, mark.line + 1, mark.column + 1};
    if (maps_.empty()) {
      if (!text.empty() || quoted) refuse(mark, "expected a map of sections, found a single value");
    } else if (between_items()) {
      refuse(mark, "expected a map in the list, found a plain value");
    } else if (in_list_) {
      entries_.back().items.push_back(std::move(value));
    } else if (key_pending_) {
      add(YamlEntry::Kind::kScalar);
      entries_.back().items.push_back(std::move(value));
      key_pending_ = false;
    } else {
      if (text.empty() || text.size() > kKeySizeMax) refuse(mark, "expected a key, found none or one that is too long");
      key_ = std::move(value);
      key_pending_ = true;
    }
  }

  void add(YamlEntry::Kind kind) {
    const std::string key = path(key_);
    const auto [first, is_new] = lines_.emplace(key, key_.line);
    if (!is_new) {
      throw Refused{
          fmt::format("{}:{}: {} is given twice, first in line {}", key_.line, key_.column, key, first->second)};
    }
    entries_.push_back({kind, key, {}, key_.line, key_.column});
  }

  std::vector<YamlEntry> entries_;
  std::map<std::string, int> lines_;
  std::vector<std::string> maps_;  // the path of each open map, with its dot
  YamlScalar key_;                 // whose value comes next
  bool key_pending_ = false;
  bool in_list_ = false;
  bool in_maps_ = false;  // in a list of maps, whose key is list_key_
  std::string list_key_;
  size_t item_ = 0;
  size_t item_depth_ = 0;  // open maps around the list
};

}  // namespace

Result<std::vector<YamlEntry>> parse_yaml(std::string_view text) {
  if (text.size() > kSizeMax)
    return invalid(fmt::format("1:1: expected at most {} bytes, found {}", kSizeMax, text.size()));
  try {
    std::istringstream in{std::string(text)};
    YAML::Parser parser(in);
    Flattener flattener;
    if (parser.HandleNextDocument(flattener)) {
      Flattener second;
      if (parser.HandleNextDocument(second)) return invalid("1:1: expected one YAML document, found several");
    }
    return std::move(flattener).take();
  } catch (const Refused& refused) {
    return invalid(refused.message);
  } catch (const YAML::Exception& error) {
    return invalid(fmt::format("{}:{}: not YAML: {}", error.mark.line + 1, error.mark.column + 1, error.msg));
  }
}

}  // namespace spillway::config
