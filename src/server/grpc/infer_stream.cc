#include "server/grpc/infer_stream.h"

#include <deque>
#include <memory>
#include <mutex>
#include <unordered_map>
#include <utility>

#include "server/grpc/infer_call.h"

namespace spillway::server {
namespace {

using inference::ModelInferRequest;
using inference::ModelStreamInferResponse;

// No more is read from a client that has this many inferences or bytes under way: its flow control then holds it back.
constexpr size_t kUnderWayMax = 256;
constexpr size_t kBytesMax = 64 << 20;

class InferStream final : public grpc::ServerBidiReactor<ModelInferRequest, ModelStreamInferResponse> {
 public:
  InferStream(RpcShared& shared, grpc::CallbackServerContext& context)
      : shared_(shared),
        begun_(std::chrono::steady_clock::now()),
        deadline_(deadline_of(context)),
        origin_(origin_of(context)) {
    context.AddInitialMetadata("x-request-id", origin_.id);
  }

  void start() {
    std::lock_guard lock(mutex_);
    read();
  }

  void OnReadDone(bool ok) override {
    std::shared_ptr<Inference> next;
    {
      std::lock_guard lock(mutex_);
      reading_ = false;
      if (!ok) {
        read_all_ = true;
        maybe_finish();
        return;
      }
      next = std::move(incoming_);
      next->number = next_number_++;
      next->bytes = next->request.ByteSizeLong();
      bytes_ += next->bytes;
      under_way_[next->number] = next;
    }
    // The call may be done at once and come back here by ended().
    auto account = std::make_unique<RpcAccount>(shared_.server, origin_, next->number, kStreamInfer, next->bytes);
    next->call = std::make_shared<InferCall>(
        shared_, std::move(account), next->request, *next->response.mutable_infer_response(), deadline_,
        [this, number = next->number](const grpc::Status& status) { ended(number, status); });
    next->call->start();
    bool cancelled;
    {
      std::lock_guard lock(mutex_);
      cancelled = cancelled_;
      read();
    }
    if (cancelled) next->call->cancel();
  }

  void OnWriteDone(bool) override {
    std::lock_guard lock(mutex_);
    writing_ = false;
    bytes_ -= outgoing_.front()->bytes;
    outgoing_.pop_front();
    write();
    maybe_finish();
  }

  void OnCancel() override {
    std::vector<std::shared_ptr<Inference>> all;
    {
      std::lock_guard lock(mutex_);
      cancelled_ = true;
      for (const auto& [number, each] : under_way_) all.push_back(each);
    }
    for (const auto& each : all) {
      if (each->call) each->call->cancel();
    }
  }

  void OnDone() override { delete this; }

 private:
  struct Inference {
    uint64_t number = 0;
    size_t bytes = 0;
    ModelInferRequest request;
    ModelStreamInferResponse response;
    std::shared_ptr<InferCall> call;
  };

  // The functions below are called with mutex_ held.
  void read() {
    const bool full = under_way_.size() + outgoing_.size() >= kUnderWayMax || bytes_ >= kBytesMax;
    if (reading_ || read_all_ || finished_ || full) return;
    reading_ = true;
    incoming_ = std::make_shared<Inference>();
    StartRead(&incoming_->request);
  }

  void write() {
    if (writing_ || outgoing_.empty() || finished_) return;
    writing_ = true;
    StartWrite(&outgoing_.front()->response);
  }

  void maybe_finish() {
    read();
    if (!read_all_ || !under_way_.empty() || !outgoing_.empty() || std::exchange(finished_, true)) return;
    const grpc::Status status = cancelled_ ? grpc::Status::CANCELLED : grpc::Status::OK;
    count_call(kStreamInfer.name, status, begun_);
    Finish(status);
  }

  void ended(uint64_t number, const grpc::Status& status) {
    std::lock_guard lock(mutex_);
    const auto found = under_way_.find(number);
    std::shared_ptr<Inference> inference = std::move(found->second);
    under_way_.erase(found);
    if (!status.ok()) {
      inference->response.Clear();
      inference->response.set_error_message(status.error_message());
      inference->response.mutable_infer_response()->set_id(inference->request.id());
    }
    if (cancelled_) {
      bytes_ -= inference->bytes;
    } else {
      outgoing_.push_back(std::move(inference));
    }
    write();
    maybe_finish();
  }

  RpcShared& shared_;
  const TimePoint begun_;
  const TimePoint deadline_;
  const RequestOrigin origin_;  // of each of its inferences
  std::mutex mutex_;
  std::shared_ptr<Inference> incoming_;
  std::unordered_map<uint64_t, std::shared_ptr<Inference>> under_way_;
  std::deque<std::shared_ptr<Inference>> outgoing_;  // the first is being written
  uint64_t next_number_ = 1;
  size_t bytes_ = 0;  // of the requests under way and those whose answers wait
  bool reading_ = false, writing_ = false, read_all_ = false, cancelled_ = false, finished_ = false;
};

class Rejected final : public grpc::ServerBidiReactor<ModelInferRequest, ModelStreamInferResponse> {
 public:
  explicit Rejected(const grpc::Status& status) { Finish(status); }
  void OnDone() override { delete this; }
};

}  // namespace

grpc::ServerBidiReactor<ModelInferRequest, ModelStreamInferResponse>* start_infer_stream(
    RpcShared& shared, grpc::CallbackServerContext* context) {
  std::optional<RpcEnd> wrong = check_key(shared.server, *context);
  if (!wrong) wrong = check_state(shared.server);
  if (wrong) {
    RpcAccount(shared.server, *context, kStreamInfer, 0).end(*wrong);
    return new Rejected(wrong->status);
  }
  auto* stream = new InferStream(shared, *context);
  stream->start();
  return stream;
}

}  // namespace spillway::server
