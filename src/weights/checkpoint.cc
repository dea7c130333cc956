// A checkpoint folder or file as a WeightSource: maps the shards, checks their headers, knows where each name lies.
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <boost/json/object.hpp>
#include <boost/json/parse.hpp>
#include <boost/json/value.hpp>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <map>
#include <optional>
#include <set>
#include <thread>
#include <unordered_map>

#include "weights/checksum.h"
#include "weights/mapped_file.h"
#include "weights/safetensors_header.h"
#include "weights/weight_source.h"

namespace spillway::weights {
namespace {

namespace json = boost::json;
namespace fs = std::filesystem;

constexpr uintmax_t kIndexBytesMax = 256 << 20;

struct Shard {
  std::string file;
  MappedFile mapping;
  std::vector<HeaderEntry> entries;

  size_t data_begin() const {  // 8 bytes of length and the header, which is that long
    uint64_t header = 0;
    std::memcpy(&header, mapping.bytes().data(), sizeof(header));
    return sizeof(header) + header;
  }
};

// Of 256 places spread over the data. Two trainings of a model differ nearly everywhere, so this tells them apart even
// where an image or archive gave their files the same time.
uint64_t sample(std::span<const std::byte> data) {
  constexpr size_t kPlaces = 256, kBytes = 64;
  if (data.size() <= kPlaces * kBytes) return checksum(data);
  std::array<std::byte, kPlaces * kBytes> taken;
  for (size_t i = 0; i < kPlaces; ++i) {
    const size_t at = size_t(double(data.size() - kBytes) / (kPlaces - 1) * double(i));
    std::memcpy(taken.data() + i * kBytes, data.data() + std::min(at, data.size() - kBytes), kBytes);
  }
  return checksum(taken);
}

Result<Shard> open_shard(const std::string& path) {
  SW_ASSIGN(MappedFile mapping, MappedFile::open(path));
  auto entries = parse_header(mapping.bytes(), mapping.bytes().size());
  if (!entries.ok()) return std::move(entries).error().in(path);
  return Shard{fs::path(path).filename().string(), std::move(mapping), std::move(*entries)};
}

class Checkpoint final : public WeightSource {
 public:
  ~Checkpoint() override { detach(); }

  static Result<std::unique_ptr<WeightSource>> create(std::vector<Shard> shards) {
    auto checkpoint = std::make_unique<Checkpoint>();
    for (const Shard& shard : shards) {
      for (const HeaderEntry& entry : shard.entries) {
        std::byte* data = const_cast<std::byte*>(shard.mapping.bytes().data()) + entry.begin;
        const auto [at, added] =
            checkpoint->tensors_.emplace(entry.name, tensor::TensorView(data, entry.dtype, entry.shape));
        if (!added) return corrupt(fmt::format("tensor '{}' is in two shards", entry.name));
        checkpoint->bytes_total_ += int64_t(entry.end - entry.begin);
      }
    }
    checkpoint->shards_ = std::move(shards);
    return std::unique_ptr<WeightSource>(std::move(checkpoint));
  }

  bool contains(const std::string& name) const override { return tensors_.contains(name); }

  Result<StoredTensor> open(const std::string& name, const tensor::Shape&,
                            std::span<const tensor::DType>) const override {
    const auto at = tensors_.find(name);
    if (at == tensors_.end()) return not_found(fmt::format("tensor '{}' is not in the checkpoint", name));
    return StoredTensor(this, at->second);
  }

  int64_t bytes_total() const override { return bytes_total_; }

  std::string identity() const override {
    std::string text;
    for (const Shard& shard : shards_) {
      const auto bytes = shard.mapping.bytes();
      const auto header = bytes.first(shard.data_begin());
      text += fmt::format("{} {} bytes, changed {} ns, header {:016x}, samples {:016x}\n", shard.file, bytes.size(),
                          shard.mapping.modified_ns(), checksum(header), sample(bytes.subspan(header.size())));
    }
    return text;
  }

  std::optional<uint64_t> locate(const std::byte* byte) const override {
    constexpr int kOffsetBits = 48;
    for (size_t i = 0; i < shards_.size(); ++i) {
      const auto bytes = shards_[i].mapping.bytes();
      if (byte >= bytes.data() && byte < bytes.data() + bytes.size()) {
        return uint64_t(i) << kOffsetBits | uint64_t(byte - bytes.data());
      }
    }
    return {};
  }

  void expect_all() const override {
    for (const Shard& shard : shards_) shard.mapping.prefetch(shard.mapping.bytes());
  }
  void expect_few() const override {
    if (!settled()) return;
    for (const Shard& shard : shards_) {
      shard.mapping.expect_random();
      MappedFile::drop(shard.mapping.bytes());
    }
  }

  std::vector<std::string> names() const override {
    std::vector<std::string> names;
    for (const auto& [name, view] : tensors_) names.push_back(name);
    std::sort(names.begin(), names.end());
    return names;
  }

 private:
  void release(const tensor::TensorView& view) const override {
    if (!taken(view.data)) MappedFile::drop({view.data, view.bytes()});
  }

  std::vector<Shard> shards_;
  std::unordered_map<std::string, tensor::TensorView> tensors_;
  int64_t bytes_total_ = 0;
};

Result<std::string> read_text(const std::string& path) {
  std::error_code error;
  const uintmax_t size = fs::file_size(path, error);
  if (error) return not_found(fmt::format("{}: {}", path, error.message()));
  if (size > kIndexBytesMax)
    return invalid(fmt::format("{}: expected at most {} bytes, found {}", path, kIndexBytesMax, size));
  std::ifstream in(path, std::ios::binary);
  std::string text(std::istreambuf_iterator<char>(in), {});
  if (!in) return invalid(fmt::format("{}: cannot be read", path));
  return text;
}

// name -> shard file, as model.safetensors.index.json says.
Result<std::map<std::string, std::string>> read_index(const std::string& path) {
  SW_ASSIGN(const std::string text, read_text(path));
  json::error_code ec;
  const json::value root = json::parse(text, ec);
  if (ec) return corrupt(fmt::format("{}: {}", path, ec.message()));
  const json::object* object = root.if_object();
  const json::value* map = object == nullptr ? nullptr : object->if_contains("weight_map");
  if (map == nullptr || !map->is_object())
    return corrupt(fmt::format("{}: expected an object with 'weight_map'", path));
  std::map<std::string, std::string> index;
  for (const auto& [name, file] : map->as_object()) {
    if (!file.is_string())
      return corrupt(fmt::format("{}: weight_map: expected a file name for '{}'", path, std::string(name)));
    const std::string shard(file.as_string());
    // A shard lies beside its index; a path would read elsewhere.
    if (shard.empty() || fs::path(shard).filename().string() != shard) {
      return corrupt(fmt::format("{}: weight_map: expected a plain file name, found '{}'", path, shard));
    }
    index.emplace(std::string(name), shard);
  }
  return index;
}

Result<std::vector<Shard>> open_shards(const std::vector<std::string>& paths) {
  std::vector<std::optional<Result<Shard>>> opened(paths.size());
  const size_t threads = std::min<size_t>({paths.size(), 8, std::max(1u, std::thread::hardware_concurrency())});
  std::vector<std::thread> workers;
  for (size_t t = 0; t < threads; ++t) {
    workers.emplace_back([&, t] {
      for (size_t i = t; i < paths.size(); i += threads) opened[i] = open_shard(paths[i]);
    });
  }
  for (std::thread& worker : workers) worker.join();
  std::vector<Shard> shards;
  for (auto& result : opened) {
    SW_ASSIGN(Shard shard, std::move(*result));
    shards.push_back(std::move(shard));
  }
  return shards;
}

Result<std::unique_ptr<WeightSource>> open_indexed(const std::string& folder, const std::string& index_path) {
  SW_ASSIGN(const auto index, read_index(index_path));
  std::set<std::string> files;
  for (const auto& [name, file] : index) files.insert(file);
  std::vector<std::string> paths;
  for (const std::string& file : files) paths.push_back((fs::path(folder) / file).string());
  SW_ASSIGN(std::vector<Shard> shards, open_shards(paths));
  SW_ASSIGN(auto source, Checkpoint::create(std::move(shards)));
  for (const auto& [name, file] : index) {
    if (!source->contains(name))
      return corrupt(fmt::format("{}: '{}' is in no shard (expected in {})", index_path, name, file));
  }
  return source;
}

}  // namespace

Result<std::unique_ptr<WeightSource>> open_safetensors(const std::string& path) {
  SW_ASSIGN(Shard shard, open_shard(path));
  std::vector<Shard> shards;
  shards.push_back(std::move(shard));
  return Checkpoint::create(std::move(shards));
}

Result<std::unique_ptr<WeightSource>> open_checkpoint(const std::string& folder) {
  const std::string index = (fs::path(folder) / "model.safetensors.index.json").string();
  if (fs::exists(index)) return open_indexed(folder, index);
  const std::string single = (fs::path(folder) / "model.safetensors").string();
  if (fs::exists(single)) return open_safetensors(single);
  return not_found(
      fmt::format("{}: expected model.safetensors or model.safetensors.index.json, found neither", folder));
}

}  // namespace spillway::weights
