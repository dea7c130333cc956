#include "metrics/timeline.h"

#include <algorithm>
#include <bit>
#include <chrono>
#include <functional>
#include <utility>

namespace spillway::metrics {
namespace {

constexpr size_t kTokenMomentsMax = 96;  // more are thinned to every second one
constexpr size_t kMomentsMax = 256;
constexpr size_t kNoteBytesMax = 120;
constexpr std::chrono::milliseconds kRefusedEvery(50);

// Of a power of two of them.
size_t bucket_of(std::string_view id, const std::vector<uint64_t>& buckets) {
  return std::hash<std::string_view>()(id) & (buckets.size() - 1);
}

}  // namespace

const char* name_of(Moment::Kind kind) {
  static constexpr std::array kNames = {"received", "queued",    "refused",  "started", "prefill",
                                        "tokens",   "preempted", "finished", "attempt", "first_byte",
                                        "failed",   "resumed",   "answered"};
  return kNames[static_cast<size_t>(kind)];
}

Timeline::Timeline(std::string id, std::string route, TimePoint received, std::string trace_id)
    : id_(std::move(id)), route_(std::move(route)), received_(received), trace_id_(std::move(trace_id)) {
  moments_.reserve(6);  // of a request that is passed on; others grow
}

void Timeline::add(Moment::Kind kind, TimePoint at, int64_t a, int64_t b, std::string_view note) {
  std::lock_guard lock(mutex_);
  if (kind == Moment::Kind::kAnswered) ended_ = true;
  if (kind == Moment::Kind::kTokens) {
    if (token_moments_++ % token_stride_ != 0) return;
    const auto is_token = [](const Moment& moment) { return moment.kind == Moment::Kind::kTokens; };
    if (std::ranges::count_if(moments_, is_token) >= std::ptrdiff_t(kTokenMomentsMax)) {
      bool keep = false;
      std::erase_if(moments_, [&](const Moment& moment) { return is_token(moment) && !(keep = !keep); });
      token_stride_ *= 2;
    }
  } else if (moments_.size() >= kMomentsMax && kind != Moment::Kind::kAnswered && kind != Moment::Kind::kFinished) {
    ++dropped_;
    return;
  }
  moments_.push_back({at, kind, a, b, std::string(note.substr(0, kNoteBytesMax))});
}

void Timeline::answers_as(std::string_view id) {
  std::lock_guard lock(mutex_);
  answer_id_ = id;
}

void Timeline::set_model(std::string_view model) {
  std::lock_guard lock(mutex_);
  model_ = model.substr(0, kNoteBytesMax);
}

bool Timeline::is_named(std::string_view id) const {
  if (id == id_) return true;
  std::lock_guard lock(mutex_);
  return !answer_id_.empty() && id == answer_id_;
}

bool Timeline::ended() const {
  std::lock_guard lock(mutex_);
  return ended_;
}

Timeline::Snapshot Timeline::snapshot() const {
  std::lock_guard lock(mutex_);
  return {model_, answer_id_, ended_, dropped_, moments_};
}

Timelines::Timelines(size_t capacity) : ring_(capacity), newest_(std::bit_ceil(capacity)) {}

std::shared_ptr<Timeline> Timelines::begin(std::string id, std::string route, TimePoint received,
                                           std::string trace_id) {
  auto timeline = std::make_shared<Timeline>(std::move(id), std::move(route), received, std::move(trace_id));
  std::shared_ptr<Timeline> oldest = timeline;  // leaves the ring; freed after the lock
  const size_t bucket = bucket_of(timeline->id(), newest_);
  std::lock_guard lock(mutex_);
  Place& place = at(++last_);
  std::swap(place.timeline, oldest);
  place.older = std::exchange(newest_[bucket], last_);
  return timeline;
}

bool Timelines::has_place_for_refused(TimePoint now) {
  Duration::rep from = refused_from_.load(std::memory_order_relaxed);
  const Duration::rep at = now.time_since_epoch().count();
  return at >= from && refused_from_.compare_exchange_strong(from, at + Duration(kRefusedEvery).count());
}

std::shared_ptr<Timeline> Timelines::find(std::string_view id) const {
  if (auto timeline = with_id(id)) return timeline;
  for (auto& timeline : recent(ring_.size())) {
    if (timeline->is_named(id)) return timeline;
  }
  return nullptr;
}

std::shared_ptr<Timeline> Timelines::with_id(std::string_view id) const {
  const size_t bucket = bucket_of(id, newest_);
  std::lock_guard lock(mutex_);
  for (uint64_t number = newest_[bucket]; is_kept(number); number = at(number).older) {
    if (at(number).timeline->id() == id) return at(number).timeline;
  }
  return nullptr;
}

std::vector<std::shared_ptr<Timeline>> Timelines::recent(size_t count) const {
  std::vector<std::shared_ptr<Timeline>> out;
  std::lock_guard lock(mutex_);
  const uint64_t kept = std::min<uint64_t>({last_, ring_.size(), count});
  out.reserve(kept);
  for (uint64_t i = 0; i < kept; ++i) out.push_back(at(last_ - i).timeline);
  return out;
}

uint64_t Timelines::begun() const {
  std::lock_guard lock(mutex_);
  return last_;
}

}  // namespace spillway::metrics
