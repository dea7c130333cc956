#include "gateway/attempt.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>

#include "gateway/cached_prefixes.h"
#include "gateway/json_cursor.h"

namespace spillway::gateway {
namespace {

constexpr size_t kRefusalBytesMax = 256 << 10;
constexpr Duration kRefusalPatience = std::chrono::seconds(5);
constexpr Duration kTidyPatience = std::chrono::milliseconds(200);
constexpr size_t kHeldBytesMax = 4 << 20;

TimePoint now() { return std::chrono::steady_clock::now(); }

std::optional<Duration> retry_after(const net::Headers& headers) {
  const auto text = headers.find("Retry-After");
  if (!text) return std::nullopt;
  double value = 0;
  const auto [end, error] = std::from_chars(text->data(), text->data() + text->size(), value);
  if (error != std::errc() || !(value >= 0) || value > 1e6) return std::nullopt;
  return from_seconds(value);
}

Step failed(Outcome outcome, const char* reason, std::string message, bool again = false) {
  Step step;
  step.kind = Step::Kind::kFailed;
  step.outcome = outcome;
  step.reason = reason;
  step.message = std::move(message);
  step.again = again;
  return step;
}

bool contains(std::string_view text, std::string_view part) { return text.find(part) != std::string_view::npos; }

// In the words of OpenAI, vLLM, SGLang, llama.cpp and Anthropic.
bool tells_of_context(std::string_view code, std::string_view message) {
  return contains(code, "context_length") || contains(code, "context_size") || contains(message, "context length") ||
         contains(message, "context window") || contains(message, "context size") ||
         contains(message, "prompt is too long");
}

}  // namespace

Attempt::Attempt(std::shared_ptr<Lane> lane, std::shared_ptr<Upstream> upstream, Upstream::Ticket ticket,
                 std::shared_ptr<const Call> call, net::Handler local, uint64_t answer_bytes_max,
                 std::shared_ptr<const Resume> resume)
    : lane_(std::move(lane)),
      upstream_(std::move(upstream)),
      ticket_(ticket),
      held_call_(std::move(call)),
      call_(*held_call_),
      local_(std::move(local)),
      answer_bytes_max_(answer_bytes_max),
      resume_(std::move(resume)),
      protocol_(upstream_protocol(call_.endpoint, upstream_->options().kind)),
      span_(random_span_id()),
      began_at_(std::chrono::system_clock::now()),
      began_(now()) {
  if (resume_) told_ = *resume_;
  if (resume_ && !resumes_exactly()) continuation_.emplace(resume_, protocol_);
  if (protocol_ == call_.protocol) return;
  translator_ = protocol_ == Protocol::kOpenAi ? chat_stream_to_messages()
                                               : messages_stream_to_chat(call_.scan.include_usage, told_.id);
}

Attempt::~Attempt() { conclude(Outcome::kAbandoned); }

void Attempt::conclude(Outcome outcome, std::optional<Duration> rest) {
  if (std::exchange(concluded_, true)) return;
  upstream_->finished(ticket_, now(), outcome, rest);
  if (outcome == Outcome::kAnswered && call_.scan.stream && has_usage_) {
    upstream_->decoded(now(), usage_.output_tokens, now() - first_token_at_);
  }
}

void Attempt::cancel() {
  cancelled_ = true;
  if (source_) source_->cancel();
}

std::string Attempt::content_type() const {
  if (translator_) return "application/json";
  return std::string(source_->headers().value_or("Content-Type", "application/json"));
}

bool Attempt::resumes_exactly() const {
  const UpstreamKind kind = upstream_->options().kind;
  return resume_ != nullptr && resume_->exact && (kind == UpstreamKind::kSpillway || kind == UpstreamKind::kLocal);
}

// What the body says more than the client's: where to go on from.
std::vector<Splice> Attempt::changes() {
  std::vector<Splice> more;
  const bool silent = upstream_->options().kind == UpstreamKind::kOpenAi && !translator_;  // the others tell it unasked
  if (silent && upstream_->options().stream_usage && call_.generates()) {
    if (auto usage = asking_for_usage(call_.request.body, call_.scan)) {
      more.push_back(std::move(*usage));
      usage_asked_ = true;
    }
  }
  if (resumes_exactly()) {
    more.push_back(member(call_.scan, kResumeMember, resume_->json()));
  } else if (continues_prefix() && !continuation_->prefix().empty()) {
    const UpstreamKind kind = upstream_->options().kind;
    const bool openai = protocol_ == Protocol::kOpenAi;
    std::string message = R"(,{"role":"assistant","content":")";
    message.append(continuation_->prefix())
        .append(openai && kind != UpstreamKind::kOpenAi ? "\",\"prefix\":true}" : "\"}");
    more.push_back({{call_.scan.messages.begin + call_.scan.messages.size - 1, 0}, std::move(message)});
    if (kind == UpstreamKind::kOpenAi) {  // as vLLM and SGLang take it
      more.push_back(member(call_.scan, "continue_final_message", "true"));
      more.push_back(member(call_.scan, "add_generation_prompt", "false"));
    }
  }
  return more;
}

Step Attempt::open() {
  const UpstreamOptions& upstream = upstream_->options();
  OutgoingRequest request;
  request.path = upstream_path(call_.endpoint, upstream.kind);
  if (continues_prefix() && protocol_ == Protocol::kOpenAi && upstream.kind != UpstreamKind::kOpenAi) {
    request.path = "/beta/chat/completions";
  }
  request.headers = upstream_headers(call_, upstream, upstream_->key(ticket_), span_, now());
  const bool spillway = upstream.kind == UpstreamKind::kSpillway || upstream.kind == UpstreamKind::kLocal;
  if (upstream.kind == UpstreamKind::kSpillway && !call_.features.prefix_blocks.empty()) {
    request.headers.add(std::string(kPrefixHeader),
                        prefix_header(call_.features.prefix_blocks, call_.features.tokens_per_block));
  }
  if (spillway && call_.scan.stream && call_.endpoint == Endpoint::kChat && call_.scan.n == 1) {
    request.headers.add(std::string(kResumeHeader), "1");
  }
  const std::string_view model = upstream_->model_name(call_.features.model);
  auto body = upstream_body(call_, upstream.kind, model, changes(), body_);
  tokens_renamed_ = call_.scan.max_tokens && protocol_ == Protocol::kOpenAi && upstream_->completion_tokens(model);
  if (body.ok() && tokens_renamed_) body = with_completion_tokens(*body, body_);
  if (!body.ok()) {
    conclude(Outcome::kAbandoned);  // it was not asked, so that says nothing of it
    return failed(Outcome::kClientError, "untranslatable", body.error().message);
  }
  request.body = *body;
  if (upstream.kind == UpstreamKind::kLocal) {
    source_ = local_source(lane_, local_, std::move(request));
  } else {
    net::TlsContext tls;
    if (upstream.base.tls) {
      auto made = upstream_->tls();
      if (!made.ok()) return failed(Outcome::kFailed, "tls", made.error().message);
      tls = std::move(made).value();
    }
    source_ = remote_source(lane_, upstream_, std::move(tls), std::move(request), answer_bytes_max_);
  }
  if (cancelled_) source_->cancel();
  return {};
}

asio::awaitable<Step> Attempt::begin(TimePoint first_token_deadline) {
  Step opened = open();
  if (opened.kind != Step::Kind::kGood) co_return opened;
  const TimePoint connect_deadline = std::min(call_.deadline, now() + upstream_->options().connect_timeout);
  Status head = co_await source_->open(connect_deadline, first_token_deadline);
  if (!head.ok()) co_return failure_of(head.error(), false);
  if (source_->status() != 200) co_return co_await read_refusal();
  const bool events = contains(source_->headers().value_or("Content-Type", ""), "event-stream");
  if (call_.scan.stream && events) co_return co_await read_stream(first_token_deadline, true);
  // A stream that was asked for and did not come is an error told as JSON, or no sense at all.
  const TimePoint whole_by =
      call_.scan.stream ? first_token_deadline : std::min(call_.deadline, began_ + upstream_->options().answer_timeout);
  co_return co_await read_whole(whole_by);
}

asio::awaitable<Step> Attempt::more() {
  out_.clear();
  return read_stream(call_.deadline, false);
}

asio::awaitable<Step> Attempt::read_stream(TimePoint deadline, bool until_progress) {
  const Duration patience = upstream_->options().token_timeout;
  TimePoint until = until_progress ? deadline : std::min(deadline, now() + patience);
  while (!finished_) {
    auto piece = co_await source_->read(until);
    if (!piece.ok()) co_return failure_of(piece.error(), progressed_);
    if (piece->empty()) {
      const bool whole = end_of_stream();
      if (whole) co_return Step();
      co_return failed(Outcome::kFailed, progressed_ ? "cut" : "blank",
                       progressed_ ? "the stream ended before its end" : "the stream ended without an answer",
                       !progressed_);
    }
    const int64_t had = text_bytes_;
    Step taken = take_events(*piece);
    if (taken.kind != Step::Kind::kGood) co_return taken;
    if (!finished_ && too_slow()) co_return failed(Outcome::kFailed, "slow", "the stream comes too slowly");
    if (splitter_.too_long() || out_.size() + unmarked_.size() > kHeldBytesMax) {
      co_return failed(Outcome::kFailed, "garbage", "an event that is too long");
    }
    if (finished_ || (!out_.empty() && (!until_progress || progressed_))) co_return Step();
    if (!until_progress && text_bytes_ > had) until = std::min(deadline, now() + patience);
  }
  co_return Step();
}

// A stream that is alive and gets nowhere: below tokens_per_s_min over a whole token_timeout, at four bytes a token.
bool Attempt::too_slow() {
  const double least = upstream_->options().tokens_per_s_min;
  if (least <= 0 || !progressed_ || finish_seen_) return false;
  const TimePoint at = now();
  if (pace_from_ == TimePoint()) {
    pace_from_ = at;
    pace_bytes_ = text_bytes_;
  }
  const Duration span = at - pace_from_;
  if (span < upstream_->options().token_timeout) return false;
  const double pace = double(text_bytes_ - pace_bytes_) / 4 / seconds(span);
  pace_from_ = at;
  pace_bytes_ = text_bytes_;
  return pace < least;
}

Step Attempt::take_events(std::string_view bytes) {
  splitter_.feed(bytes);
  RawEvent event;
  AnswerFacts facts;
  while (!finished_) {
    if (!continuation_ && pattern_.match(splitter_.front(), event, facts)) {
      splitter_.take(event.bytes.size());
    } else if (!splitter_.next(event)) {
      break;
    } else if (event.comment) {
      take_marker(event.comment_text);
      continue;
    } else {
      facts = facts_of_event(protocol_, event);
      pattern_.learn(event, facts);
    }
    if (auto step = take(event, facts)) return *step;
  }
  return {};
}

// One event: nothing when the stream goes on.
std::optional<Step> Attempt::take(const RawEvent& event, AnswerFacts& facts) {
  if (facts.error) {
    Step step = refusal(200, event.data);
    if (step.kind == Step::Kind::kForClient) step = failed(Outcome::kFailed, "error_event", std::move(step.message));
    return step;
  }
  if (!facts.sound) return failed(Outcome::kFailed, "garbage", "an event that is not what it should be");
  if (facts.finish_reason == "insufficient_system_resource" && !progressed_) {
    return failed(Outcome::kBusy, "busy", "the upstream ran out of resources");
  }
  if (facts.has_usage) {
    usage_ = facts.usage;
    has_usage_ = true;
  }
  if (facts.usage_only && usage_asked_) return std::nullopt;
  if (facts.progress) progress();
  text_bytes_ += facts.text_bytes;
  finish_seen_ |= !facts.finish_reason.empty();
  if (!facts.finish_reason.empty()) finish_reason_ = facts.finish_reason;
  if (model_.empty()) model_ = facts.model;
  if (facts.done && !progressed_ && !finish_seen_) {
    return failed(Outcome::kFailed, "blank", "the stream ended without an answer", true);
  }
  if (facts.progress || facts.done || finish_seen_) progressed_ = true;
  // A resumed stream begins anew with an event that the client has had.
  if (resume_ && !continuation_ && !facts.progress && !facts.has_usage && !facts.done && facts.finish_reason.empty())
    return std::nullopt;
  const std::optional<RawEvent> news = continuation_ ? continuation_->edit(event, facts) : event;
  if (!news) return std::nullopt;
  note_told(facts);
  std::string& out = marked_ ? unmarked_ : out_;
  if (!translator_) {
    out.append(news->bytes);
  } else if (const Status told = translator_->event(*news, out); !told.ok()) {
    return failed(Outcome::kFailed, "garbage", told.error().message);
  }
  if (facts.done || finish_seen_) {  // what is complete needs no marker
    out_.append(unmarked_);
    unmarked_.clear();
  }
  finished_ = facts.done;
  return std::nullopt;
}

// What the client knows by now, should somebody else have to go on.
void Attempt::note_told(const AnswerFacts& facts) {
  told_.content.append(facts.content);
  told_.reasoning.append(facts.reasoning);
  told_.any |= facts.progress;
  told_.tool_call |= facts.tool_call;
  if (!resume_ && told_.id.empty()) told_.id = facts.id;
  if (facts.type == "content_block_start") {
    told_.block = facts.index;
    told_.block_open = true;
  } else if (facts.type == "content_block_stop") {
    told_.block_open = false;
  } else if (translator_ && call_.protocol == Protocol::kAnthropic && !told_.content.empty()) {
    told_.block = told_.reasoning.empty() ? 0 : 1;  // as the translator numbers them
    told_.block_open = true;
  }
}

void Attempt::take_marker(std::string_view text) {
  if (!told_.take_marker(text)) return;
  marked_ = true;
  out_.append(unmarked_);
  unmarked_.clear();
}

void Attempt::progress() {
  if (progressed_) return;
  progressed_ = true;
  first_token_at_ = now();
  first_token_after_ = first_token_at_ - began_;
  const bool telling = call_.scan.stream || !call_.generates();
  if (!call_.costs()) return;  // it says nothing of how fast the model is
  upstream_->first_token(ticket_, first_token_at_, telling ? std::optional(first_token_after_) : std::nullopt);
}

// The upstream closed. An answer that had its finish reason is whole: only the last word is added.
bool Attempt::end_of_stream() {
  if (!finish_seen_ || !splitter_.unfinished().empty()) return false;
  if (translator_)
    translator_->finish(out_);
  else
    out_.append(protocol_ == Protocol::kOpenAi ? "data: [DONE]\n\n"
                                               : "event: message_stop\ndata: {\"type\":\"message_stop\"}\n\n");
  finished_ = true;
  return true;
}

asio::awaitable<Step> Attempt::read_whole(TimePoint deadline) {
  out_.clear();
  bool began = false;
  for (;;) {
    auto piece =
        co_await source_->read(began ? std::min(deadline, now() + upstream_->options().token_timeout) : deadline);
    if (!piece.ok()) {
      const bool late_in_body = began && piece.error().code == ErrorCode::kDeadlineExceeded;
      if (late_in_body) co_return failed(Outcome::kFailed, "stalled", "the answer stopped in its middle");
      co_return failure_of(piece.error(), began);
    }
    if (piece->empty()) break;
    // Empty lines keep a waiting connection alive; they are no progress and not part of the answer.
    const size_t from = began ? 0 : std::min(piece->find_first_not_of("\r\n \t"), piece->size());
    if (from == piece->size()) continue;
    if (!began) {
      began = true;
      // Once it has begun, a body comes at once; one that drips is given a while for its size.
      deadline = std::min(deadline, now() + upstream_->options().first_token_timeout);
    }
    out_.append(piece->substr(from));
  }
  if (out_.empty()) co_return failed(Outcome::kFailed, "blank", "an empty body", true);
  const AnswerFacts facts = facts_of_body(protocol_, out_);
  if (facts.error) {
    Step step = refusal(200, out_);
    if (step.kind == Step::Kind::kForClient) step = failed(Outcome::kFailed, "error_body", std::move(step.message));
    co_return step;
  }
  if (!facts.sound || call_.scan.stream)
    co_return failed(Outcome::kFailed, "garbage", "a body that is not what it should be");
  const bool filtered = facts.finish_reason == "content_filter";
  if (!facts.progress && facts.finish_reason.empty())
    co_return failed(Outcome::kFailed, "blank", "an answer without any text", true);
  if (facts.finish_reason == "insufficient_system_resource" && !filtered) {
    co_return failed(Outcome::kBusy, "busy", "the upstream ran out of resources");
  }
  usage_ = facts.usage;
  has_usage_ = facts.has_usage;
  text_bytes_ = facts.text_bytes;
  finish_reason_ = facts.finish_reason;
  model_ = facts.model;
  progress();
  finished_ = true;
  if (translator_) {
    auto body = protocol_ == Protocol::kOpenAi ? chat_answer_to_messages(out_) : messages_answer_to_chat(out_);
    if (!body.ok()) co_return failed(Outcome::kFailed, "garbage", body.error().message);
    out_ = std::move(body).value();
  }
  co_return Step();
}

asio::awaitable<Step> Attempt::read_refusal() {
  std::string body;
  const TimePoint deadline = std::min(call_.deadline, now() + kRefusalPatience);
  while (body.size() < kRefusalBytesMax) {
    auto piece = co_await source_->read(deadline);
    if (!piece.ok() || piece->empty()) break;
    body.append(*piece);
  }
  Step step = refusal(source_->status(), body);
  if (step.kind != Step::Kind::kForClient) co_return step;
  if (!translator_) {
    out_ = std::move(body);
    co_return step;
  }
  api::ApiError error{step.status == 404 ? api::ErrorKind::kNotFound : api::ErrorKind::kInvalidFormat, step.message, "",
                      step.reason};
  out_ = call_.protocol == Protocol::kOpenAi ? api::openai_error_body(error) : api::anthropic_error_body(error);
  co_return step;
}

// What a status, or an error told under 200, means.
Step Attempt::refusal(int status, std::string_view body) const {
  const AnswerFacts facts = facts_of_body(protocol_, body);
  std::string message = unescaped(facts.error_message).value_or("");
  if (status == 400 && protocol_ == Protocol::kOpenAi && call_.scan.max_tokens && !tokens_renamed_ &&
      contains(message, "max_completion_tokens")) {
    upstream_->wants_completion_tokens(upstream_->model_name(call_.features.model));
    return failed(Outcome::kAbandoned, "max_tokens", std::move(message), true);
  }
  if (message.empty()) message = fmt::format("status {}", status);
  const std::string_view code = facts.error_code;
  Step step = failed(Outcome::kFailed, "status_5xx", std::move(message));
  step.status = status;
  step.rest = retry_after(source_->headers());
  const bool limited = status == 429 || contains(code, "rate_limit");
  const bool busy = status == 503 || status == 529 || contains(code, "overloaded") || contains(step.message, "busy");
  if (limited) {
    step.outcome = Outcome::kLimited;
    step.reason = "status_429";
  } else if (status == 401 || status == 403 || status == 402 || contains(code, "authentication") ||
             contains(code, "insufficient_balance") || contains(code, "insufficient_quota")) {
    step.outcome = Outcome::kKeyRefused;
    step.reason = "key_refused";
  } else if (busy) {
    step.outcome = Outcome::kBusy;
    step.reason = "busy";
  } else if (status >= 500 || status == 408 || status == 425) {
    step.again = status == 500 || status == 502;
  } else if (status == 404 || status == 405 || (status >= 300 && status < 400) || status < 200) {
    step.reason = "status_other";  // this upstream lacks the model or the path: others may have it
    step.outcome = Outcome::kClientError;
  } else if (status == 200) {
    step.reason = "error_body";
  } else {
    step.kind = Step::Kind::kForClient;
    step.outcome = Outcome::kClientError;
    step.reason = "client_error";
    if (tells_of_context(code, step.message)) step.reason = kContextLength.data();
  }
  return step;
}

Step Attempt::failure_of(const Error& error, bool began) const {
  if (cancelled_ || error.code == ErrorCode::kCancelled) return failed(Outcome::kAbandoned, "cancelled", error.message);
  if (error.code == ErrorCode::kDeadlineExceeded) {
    return failed(Outcome::kFailed, began ? "stalled" : "timeout", error.message);
  }
  if (error.code == ErrorCode::kCorrupt) return failed(Outcome::kFailed, "garbage", error.message);
  return failed(Outcome::kFailed, began ? "cut" : "connection", error.message, !began);
}

asio::awaitable<void> Attempt::tidy() {
  for (int i = 0; i < 4; ++i) {
    auto piece = co_await source_->read(now() + kTidyPatience);
    if (!piece.ok() || piece->empty()) co_return;
  }
}

}  // namespace spillway::gateway
