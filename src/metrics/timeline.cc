#include "metrics/timeline.h"

#include <algorithm>
#include <utility>

namespace spillway::metrics {
namespace {

constexpr size_t kTokenMomentsMax = 96;  // more are thinned to every second one
constexpr size_t kMomentsMax = 256;
constexpr size_t kNoteBytesMax = 120;

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

std::shared_ptr<Timeline> Timelines::begin(std::string id, std::string route, TimePoint received,
                                           std::string trace_id) {
  auto timeline = std::make_shared<Timeline>(std::move(id), std::move(route), received, std::move(trace_id));
  std::shared_ptr<Timeline> oldest = timeline;  // leaves the ring; freed after the lock
  std::lock_guard lock(mutex_);
  std::swap(ring_[next_++ % ring_.size()], oldest);
  if (oldest) {
    const auto found = by_id_.find(oldest->id());
    if (found != by_id_.end() && found->second == oldest) by_id_.erase(found);
  }
  by_id_.erase(timeline->id());  // its key is a view of the older one's
  by_id_.emplace(timeline->id(), timeline);
  return timeline;
}

std::shared_ptr<Timeline> Timelines::find(std::string_view id) const {
  if (auto timeline = with_id(id)) return timeline;
  for (auto& timeline : recent(ring_.size())) {
    if (timeline->is_named(id)) return timeline;
  }
  return nullptr;
}

std::shared_ptr<Timeline> Timelines::with_id(std::string_view id) const {
  std::lock_guard lock(mutex_);
  const auto found = by_id_.find(id);
  return found == by_id_.end() ? nullptr : found->second;
}

std::vector<std::shared_ptr<Timeline>> Timelines::recent(size_t count) const {
  std::vector<std::shared_ptr<Timeline>> out;
  std::lock_guard lock(mutex_);
  const uint64_t kept = std::min<uint64_t>({next_, ring_.size(), count});
  out.reserve(kept);
  for (uint64_t i = 1; i <= kept; ++i) out.push_back(ring_[(next_ - i) % ring_.size()]);
  return out;
}

uint64_t Timelines::begun() const {
  std::lock_guard lock(mutex_);
  return next_;
}

}  // namespace spillway::metrics
