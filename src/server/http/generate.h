// Runs a planned generation for an exchange: admission, streaming with keep-alive comments, whole answers, disconnects,
// deadlines. What the bytes look like is the Reply's business. On the connection's thread.
#pragma once

#include <boost/asio/awaitable.hpp>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "server/completion.h"
#include "server/http/exchange.h"

namespace spillway::server {

// How one endpoint words a generation. The out parameters are bytes of the stream to append to.
class Reply {
 public:
  virtual ~Reply() = default;
  virtual bool streams() const = 0;
  virtual void update(const ChoiceUpdate& update, const Completion& completion, std::string& out) = 0;
  virtual void end(const Completion& completion, std::string& out) = 0;
  virtual void keep_alive(std::string& out) = 0;
  virtual void fail(const api::ApiError& error, std::string& out) = 0;  // in a stream that has begun; its last words
  virtual std::string whole(const Completion& completion, std::vector<CollectedChoice> choices) = 0;
};

// What chat and completions word alike.
class OpenAiReply : public Reply {
 public:
  void keep_alive(std::string& out) override;
  void fail(const api::ApiError& error, std::string& out) override;
};

// Why no generation may begin now, before the request is even parsed; nothing when one may.
std::optional<Refused> refused_now(Server& server);

// Answers with the refusal and counts it.
asio::awaitable<void> refuse(Exchange& exchange, Refused refused);

struct PlanJob {
  std::function<api::Parsed<Plan>()> make;  // owns what it needs
  std::optional<int64_t> deadline_ms;       // of the body
  bool constrained = false;                 // a grammar is to be compiled, which may take long
};

// Makes the plan (aside, when it may take long) and runs it.
asio::awaitable<void> generate(Exchange& exchange, std::shared_ptr<ServedModel> model, PlanJob job, Reply& reply);

// Or, where name is empty, that none was named.
api::ApiError model_not_found(std::string_view name);

}  // namespace spillway::server
