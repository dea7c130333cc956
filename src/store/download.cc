#include "store/download.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <memory>
#include <mutex>
#include <optional>
#include <set>
#include <thread>

#include "base/clock.h"
#include "base/log.h"
#include "store/digest.h"

namespace spillway::store {
namespace {

namespace fs = std::filesystem;

class Descriptor {
 public:
  explicit Descriptor(int fd) : fd_(fd) {}
  ~Descriptor() {
    if (fd_ >= 0) ::close(fd_);
  }
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  operator int() const { return fd_; }

 private:
  int fd_;
};

Error of_errno(const std::string& path) { return {ErrorCode::kResourceExhausted, path + ": " + std::strerror(errno)}; }

// One object on its way: NAME.part holds its bytes, NAME.journal says which object it is and the parts that are there.
class Partial {
 public:
  Partial(const Object& object, const std::string& folder, int64_t part_bytes)
      : object_(object),
        path_(folder + "/" + object.name),
        part_bytes_(object.ranges ? part_bytes : std::max<int64_t>(1, object.size)),
        parts_((object.size + part_bytes_ - 1) / part_bytes_) {}

  const Object& object() const { return object_; }
  int64_t first_of(int64_t part) const { return part * part_bytes_; }
  int64_t size_of(int64_t part) const { return std::min(part_bytes_, object_.size - first_of(part)); }

  // Takes over what is there; the parts that are not.
  Result<std::vector<int64_t>> open() {
    std::error_code error;
    fs::create_directories(fs::path(path_).parent_path(), error);
    std::set<int64_t> there = read_journal();
    if (there.empty()) SW_TRY(begin_anew());
    bytes_.emplace(::open(part_path().c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644));
    if (*bytes_ < 0 || ::ftruncate(*bytes_, object_.size) != 0) return of_errno(part_path());
    journal_.emplace(::open(journal_path().c_str(), O_WRONLY | O_APPEND | O_CLOEXEC));
    if (*journal_ < 0) return of_errno(journal_path());
    std::vector<int64_t> missing;
    for (int64_t part = 0; part < parts_; ++part) {
      if (!there.contains(part)) missing.push_back(part);
    }
    left_ = static_cast<int64_t>(missing.size());
    resumed_ = left_ < parts_;
    return missing;
  }

  Status write(std::string_view piece, int64_t at) const {
    while (!piece.empty()) {
      const ssize_t written = ::pwrite(*bytes_, piece.data(), piece.size(), at);
      if (written < 0 && errno == EINTR) continue;
      if (written <= 0) return of_errno(part_path());
      piece.remove_prefix(static_cast<size_t>(written));
      at += written;
    }
    return {};
  }

  // True when it was the last.
  Result<bool> finish_part(int64_t part) {
    const std::string line = fmt::format("{}\n", part);
    if (::write(*journal_, line.data(), line.size()) != static_cast<ssize_t>(line.size()))
      return of_errno(journal_path());
    return --left_ == 0;
  }

  bool complete() const { return left_ == 0; }

  // Checks the bytes and gives the file its name. kCorrupt, and nothing is left, where they are wrong.
  Status finish() {
    SW_ASSIGN(const Verdict verdict, check_etag(part_path(), object_.size, object_.etag));
    if (verdict == Verdict::kWrong) {
      discard();
      return corrupt(fmt::format("{}: expected the checksum {}, found bytes of another{}", object_.name, object_.etag,
                                 resumed_ ? " (parts of it were of an earlier run)" : ""));
    }
    if (::fsync(*bytes_) != 0) return of_errno(part_path());
    bytes_.reset();
    journal_.reset();
    if (::rename(part_path().c_str(), path_.c_str()) != 0) return of_errno(path_);
    ::unlink(journal_path().c_str());
    return {};
  }

  bool resumed() const { return resumed_; }

 private:
  std::string part_path() const { return path_ + ".part"; }
  std::string journal_path() const { return path_ + ".journal"; }
  std::string head() const { return fmt::format("spillway 1 {} {} {}", object_.size, part_bytes_, object_.etag); }

  std::set<int64_t> read_journal() const {
    std::set<int64_t> there;
    std::ifstream in(journal_path());
    std::string line;
    std::error_code error;
    if (!std::getline(in, line) || line != head() ||
        static_cast<int64_t>(fs::file_size(part_path(), error)) != object_.size || error)
      return {};
    while (std::getline(in, line) && !in.eof()) {  // a line without its end was cut off
      int64_t part = -1;
      const auto [end, failed] = std::from_chars(line.data(), line.data() + line.size(), part);
      if (failed != std::errc() || end != line.data() + line.size() || part < 0 || part >= parts_) return {};
      there.insert(part);
    }
    return there;
  }

  Status begin_anew() const {
    ::unlink(part_path().c_str());
    std::ofstream out(journal_path(), std::ios::trunc);
    out << head() << "\n";
    out.flush();
    return out ? Status() : Status(of_errno(journal_path()));
  }

  void discard() {
    bytes_.reset();
    journal_.reset();
    ::unlink(part_path().c_str());
    ::unlink(journal_path().c_str());
  }

  const Object object_;
  const std::string path_;
  const int64_t part_bytes_;
  const int64_t parts_;
  std::optional<Descriptor> bytes_, journal_;
  std::atomic<int64_t> left_ = 0;
  bool resumed_ = false;
};

struct Task {
  Partial* file;
  int64_t part;
};

class Download {
 public:
  Download(Store& store, const StoreOptions& options, const DownloadProgress& progress, int64_t total)
      : store_(store), options_(options), progress_(progress), total_(total) {}

  void already(int64_t bytes) { tell(bytes); }

  Status run(std::vector<Task> tasks) {
    tasks_ = std::move(tasks);
    const size_t count =
        std::min<size_t>(static_cast<size_t>(options_.connections), std::max<size_t>(1, tasks_.size()));
    std::vector<std::thread> workers;
    for (size_t i = 0; i < count; ++i) workers.emplace_back([this] { work(); });
    for (auto& worker : workers) worker.join();
    return std::move(failure_);
  }

 private:
  void work() {
    Connection connection(options_.credentials, options_.timeout_s);
    while (!failed_) {
      const size_t index = next_.fetch_add(1);
      if (index >= tasks_.size()) return;
      Task& task = tasks_[index];
      Status status = fetch(connection, task);
      if (status.ok()) {
        auto last = task.file->finish_part(task.part);
        status = !last.ok() ? Status(last.error()) : *last ? task.file->finish() : Status();
      }
      if (status.ok()) {
        tell(task.file->size_of(task.part));
      } else {
        std::lock_guard lock(mutex_);
        if (failure_.ok()) failure_ = std::move(status);
        failed_ = true;
      }
    }
  }

  Status fetch(Connection& connection, const Task& task) {
    const Object& object = task.file->object();
    const int64_t first = task.file->first_of(task.part), size = task.file->size_of(task.part);
    Status status;
    for (int attempt = 0; attempt < options_.attempts && !failed_; ++attempt) {
      if (attempt > 0) pause(attempt, status.error().message);
      int64_t at = first;
      Status written;
      status = store_.read(connection, object, first, size, [&](std::string_view piece) {
        written = task.file->write(piece, at);
        at += static_cast<int64_t>(piece.size());
        return written.ok() && !failed_;
      });
      if (!written.ok()) return written;
      if (status.ok() || status.error().code != ErrorCode::kUnavailable) return status;
    }
    return status;
  }

  void pause(int attempt, const std::string& reason) const {
    const double pause_s = std::min(5.0, 0.1 * (1 << std::min(attempt, 10)));
    SW_WARN("{}; asking again in {:.1f} s", reason, pause_s);
    const TimePoint end = std::chrono::steady_clock::now() + from_seconds(pause_s);
    while (!failed_ && std::chrono::steady_clock::now() < end)
      std::this_thread::sleep_for(std::chrono::milliseconds(20));
  }

  void tell(int64_t bytes) {
    std::lock_guard lock(mutex_);
    done_ += bytes;
    if (progress_) progress_(done_, total_);
  }

  Store& store_;
  const StoreOptions& options_;
  const DownloadProgress& progress_;
  const int64_t total_;
  std::vector<Task> tasks_;
  std::atomic<size_t> next_ = 0;
  std::atomic<bool> failed_ = false;
  std::mutex mutex_;
  int64_t done_ = 0;
  Status failure_;
};

Status download_once(Store& store, const std::vector<Object>& objects, const std::string& folder,
                     const StoreOptions& options, const DownloadProgress& progress, bool& resumed) {
  int64_t total = 0;
  for (const Object& object : objects) total += object.size;
  Download download(store, options, progress, total);
  std::vector<std::unique_ptr<Partial>> files;
  std::vector<Task> tasks;
  for (const Object& object : objects) {
    std::error_code error;
    const auto size = fs::file_size(fs::path(folder) / object.name, error);
    if (!error && static_cast<int64_t>(size) == object.size) {
      download.already(object.size);
      continue;
    }
    files.push_back(std::make_unique<Partial>(object, folder, options.part_bytes));
    SW_ASSIGN(const auto missing, files.back()->open());
    resumed |= files.back()->resumed();
    int64_t left = 0;
    for (const int64_t part : missing) {
      tasks.push_back({files.back().get(), part});
      left += files.back()->size_of(part);
    }
    download.already(object.size - left);
    if (missing.empty()) SW_TRY(files.back()->finish());
  }
  return download.run(std::move(tasks));
}

}  // namespace

Status download(Store& store, const std::vector<Object>& objects, const std::string& folder,
                const StoreOptions& options, const DownloadProgress& progress) {
  bool resumed = false;
  Status status = download_once(store, objects, folder, options, progress, resumed);
  if (status.ok() || status.error().code != ErrorCode::kCorrupt) return status;
  // What an earlier run left may be what is wrong (a machine that lost power), and a store may have erred once.
  SW_WARN("{}; fetching it anew", status.error().message);
  return download_once(store, objects, folder, options, progress, resumed);
}

}  // namespace spillway::store
