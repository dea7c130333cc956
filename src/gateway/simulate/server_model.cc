#include "gateway/simulate/server_model.h"

#include <algorithm>

namespace spillway::gateway {
namespace {

constexpr double kNothing = 1e-6;  // tokens that rounding may leave; more than a clock tick of any speed

}  // namespace

bool ServerModel::submit(size_t request, const TraceRequest& facts) {
  const bool slot_free = static_cast<int>(running_.size()) < description_.info.concurrency_max && waiting_.empty();
  if (!slot_free && static_cast<int>(waiting_.size()) >= description_.queue_max) return false;
  const Job job{request,
                facts.priority,
                static_cast<double>(facts.prompt_tokens),
                static_cast<double>(facts.output_tokens),
                facts.prefix_id,
                facts.prefix_tokens,
                0};
  const auto place =
      std::find_if(waiting_.begin(), waiting_.end(), [&](const Job& other) { return other.priority < job.priority; });
  waiting_.insert(place, job);
  start_waiting();
  return true;
}

void ServerModel::start_waiting() {
  while (!waiting_.empty() && static_cast<int>(running_.size()) < description_.info.concurrency_max) {
    Job job = waiting_.front();
    waiting_.pop_front();
    if (in_cache(job.prefix_id)) job.cached_tokens = job.prefix_tokens;
    // The last token of a prompt is always computed: its logits are what the answer begins with.
    job.prompt_left = std::max(1.0, job.prompt_left - static_cast<double>(job.cached_tokens));
    running_.push_back(job);
  }
}

ServerModel::Job* ServerModel::prefilling() {
  const auto found = std::find_if(running_.begin(), running_.end(), [](const Job& job) { return job.prompt_left > 0; });
  return found == running_.end() ? nullptr : &*found;
}

int ServerModel::decoding() const {
  return static_cast<int>(
      std::count_if(running_.begin(), running_.end(), [](const Job& job) { return job.prompt_left <= 0; }));
}

double ServerModel::decode_rate() const {
  const int streams = decoding();
  if (streams == 0) return 0;
  const bool shared = streams < static_cast<int>(running_.size());
  return description_.decode_rate(streams) * (shared ? description_.decode_while_prefilling : 1);
}

std::optional<double> ServerModel::next_in() const {
  if (running_.empty()) return std::nullopt;
  std::optional<double> next;
  const auto sooner = [&](double seconds) { next = next ? std::min(*next, seconds) : seconds; };
  const double rate = decode_rate();
  bool prompt_seen = false;
  for (const Job& job : running_) {
    if (job.prompt_left <= 0) {
      sooner(job.output_left / rate);
    } else if (!prompt_seen) {
      prompt_seen = true;
      sooner(job.prompt_left / description_.prefill_tokens_per_s);
    }
  }
  return next;
}

void ServerModel::advance(double dt, std::vector<Progress>& progress) {
  const double decoded = decode_rate() * dt;
  Job* prompt = prefilling();
  for (Job& job : running_) {
    if (job.prompt_left <= 0) job.output_left -= decoded;
  }
  if (prompt != nullptr) {
    prompt->prompt_left -= description_.prefill_tokens_per_s * dt;
    if (prompt->prompt_left <= kNothing) {
      prompt->prompt_left = 0;
      prompt->output_left -= 1;  // a prefill gives the first token
      keep(prompt->prefix_id, prompt->prefix_tokens);
      progress.push_back({prompt->request, Progress::kFirstToken, prompt->cached_tokens});
    }
  }
  std::erase_if(running_, [&](const Job& job) {
    if (job.prompt_left > 0 || job.output_left > kNothing) return false;
    progress.push_back({job.request, Progress::kDone, job.cached_tokens});
    return true;
  });
  start_waiting();
}

void ServerModel::crash(std::vector<size_t>& lost) {
  for (const Job& job : running_) lost.push_back(job.request);
  for (const Job& job : waiting_) lost.push_back(job.request);
  running_.clear();
  waiting_.clear();
  cache_.clear();
  cached_.clear();
  cache_used_ = 0;
}

bool ServerModel::withdraw(size_t request) {
  return std::erase_if(waiting_, [&](const Job& job) { return job.request == request; }) > 0;
}

LoadReport ServerModel::report(TimePoint now) const {
  LoadReport report;
  report.at = now;
  report.running = static_cast<int>(running_.size());
  report.waiting = static_cast<int>(waiting_.size());
  double tokens = 0, output = 0;
  for (const Job& job : running_) {
    tokens += job.prompt_left;
    output += job.output_left;
  }
  for (const Job& job : waiting_) tokens += job.prompt_left;
  report.waiting_tokens = static_cast<int64_t>(tokens);
  report.predicted_wait_s = tokens / description_.prefill_tokens_per_s;
  if (report.running >= description_.info.concurrency_max) {
    // A slot frees each time one of them ends; they end evenly spread over the mean of what is left.
    const double mean_left = output / report.running / description_.decode_rate(report.running);
    report.predicted_wait_s = std::max(report.predicted_wait_s, mean_left * (report.waiting + 1) / report.running);
  }
  return report;
}

bool ServerModel::in_cache(int64_t prefix_id) {
  const auto found = cached_.find(prefix_id);
  if (found == cached_.end()) return false;
  cache_.splice(cache_.begin(), cache_, found->second);
  return true;
}

void ServerModel::keep(int64_t prefix_id, int64_t tokens) {
  if (prefix_id < 0 || tokens <= 0 || tokens > description_.cache_tokens || in_cache(prefix_id)) return;
  while (cache_used_ + tokens > description_.cache_tokens) {
    cache_used_ -= cache_.back().second;
    cached_.erase(cache_.back().first);
    cache_.pop_back();
  }
  cache_.emplace_front(prefix_id, tokens);
  cached_[prefix_id] = cache_.begin();
  cache_used_ += tokens;
}

}  // namespace spillway::gateway
