// The part of Journey for answers that were asked for before, or are being asked for by others at this moment.
#include "gateway/journey.h"
#include "metrics/metrics.h"

namespace spillway::gateway {
namespace {

metrics::Counter spared_total{
    "spillway_gateway_spared_total", "Requests answered without asking an upstream, by how.", {"how"}};

enum Turn { kWaits, kTold, kGone };

// A request that waits for the answer to an identical one.
struct Waiting {
  std::atomic<int> state{kWaits};
  std::shared_ptr<const CachedResponse> answer;  // set before kTold
};

// What the one that asks calls: with its answer, or with none where it gave up and the waiting one is to ask.
template <class Signal, class Coalescer>
auto telling(std::shared_ptr<Waiting> waiting, Signal signal, Coalescer coalescer, std::string key) {
  return [waiting = std::move(waiting), signal = std::move(signal), coalescer = std::move(coalescer),
          key = std::move(key)](std::shared_ptr<const CachedResponse> answer) {
    const bool leads = answer == nullptr;
    waiting->answer = std::move(answer);
    int expected = kWaits;
    if (waiting->state.compare_exchange_strong(expected, kTold))
      signal->notify();
    else if (leads)
      coalescer->abandon(key);  // whose turn it was has gone: the next one
  };
}

}  // namespace

bool Journey::may_be_spared() const {
  const Surroundings& around = gateway_->around();
  const bool caching = around.cache != nullptr && around.cache->enabled() && !call_.scan.stream;
  return caching || (around.coalescer != nullptr && call_.endpoint == Endpoint::kEmbeddings);
}

// Whether the answer came from the cache or from an identical request under way. False: this request is to ask, and
// where it leads, to share.
asio::awaitable<bool> Journey::answer_from_others() {
  const Surroundings& around = gateway_->around();
  const bool caching = around.cache != nullptr && around.cache->enabled() && !call_.scan.stream;
  const bool coalescing = around.coalescer != nullptr && call_.endpoint == Endpoint::kEmbeddings;
  const auto key = ResponseCache::digest_of(caller_.tenant, call_.request.path, call_.request.body);
  if (!key) co_return false;
  const bool cacheable = caching && around.cache->may_keep(call_.request.path, call_.request.body);
  if (cacheable) {
    shared_key_ = *key;
    auto kept = around.cache->find(shared_key_, std::chrono::steady_clock::now());
    if (kept) co_return co_await send_kept(std::move(kept), "cache");
  }
  if (!coalescing) co_return false;
  shared_key_ = *key;
  const auto waiting = std::make_shared<Waiting>();
  const auto ticket =
      around.coalescer->join(shared_key_, telling(waiting, leaving_->signal, around.coalescer, shared_key_));
  leads_ = ticket.leads;
  if (leads_) co_return false;
  while (waiting->state == kWaits && !left() && std::chrono::steady_clock::now() < call_.deadline) {
    co_await leaving_->signal->wait_until(call_.deadline);
  }
  int expected = kWaits;
  if (waiting->state.compare_exchange_strong(expected, kGone)) {
    around.coalescer->leave(shared_key_, ticket.id);
    set_answered(499, "cancelled");
    if (left()) co_return true;
    api::ApiError error{api::ErrorKind::kDeadline, "The deadline passed.", "", ""};
    co_await send_error(std::move(error));
    co_return true;
  }
  if (waiting->answer) co_return co_await send_kept(waiting->answer, "coalesced");
  leads_ = true;  // who led gave up
  co_return false;
}

asio::awaitable<bool> Journey::send_kept(std::shared_ptr<const CachedResponse> kept, const char* how) {
  spared_total.with({how}).add();
  set_answered(200, "ok");
  net::Headers fields = headers(kept->content_type);
  fields.add("X-Spillway-Answer", how);
  std::string body = kept->body;
  co_await writer_.send(200, std::move(fields), std::move(body));
  co_return true;
}

void Journey::share() {
  if (shared_key_.empty()) return;
  const Surroundings& around = gateway_->around();
  CachedResponse response{attempt_->content_type(), attempt_->out(), attempt_->usage()};
  if (std::exchange(leads_, false)) {
    around.coalescer->complete(shared_key_, std::make_shared<const CachedResponse>(response));
  }
  const bool caching = around.cache != nullptr && around.cache->enabled() &&
                       around.cache->may_keep(call_.request.path, call_.request.body);
  if (caching) around.cache->put(shared_key_, std::move(response), std::chrono::steady_clock::now());
}

}  // namespace spillway::gateway
