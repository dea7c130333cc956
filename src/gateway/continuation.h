// Continuation: an answer that another upstream goes on with from the words that the client has seen. Says how those
// words are put before it, and makes of its events what the client is to get: nothing a second time, the answer's one
// id, Anthropic's blocks counted on. One an attempt, on its thread. What is taken up token by token needs none
// (resume.h).
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "gateway/answer_facts.h"
#include "gateway/body_scan.h"
#include "gateway/resume.h"

namespace spillway::gateway {

// The raw JSON string without the blanks at its end.
std::string_view without_last_blanks(std::string_view raw);

class Continuation {
 public:
  // protocol: of the upstream. Anthropic refuses words that end in blanks, so it gets them without; those with which it
  // then begins are dropped.
  Continuation(std::shared_ptr<const Resume> told, Protocol protocol);

  // What the assistant has said, raw; empty: only blanks, so the answer begins anew.
  std::string_view prefix() const { return prefix_; }

  // The event as the client is to get it, with its facts; nothing when the client has had it. Holds until the next
  // call.
  std::optional<RawEvent> edit(const RawEvent& event, AnswerFacts& facts);

 private:
  bool seen(const RawEvent& event, const AnswerFacts& facts);
  bool goes_on(const RawEvent& event, const AnswerFacts& facts) const;
  size_t blanks_to_drop(std::string_view content);

  const std::shared_ptr<const Resume> told_;
  const Protocol protocol_;
  const std::string_view prefix_;
  std::string blanks_;            // the client has seen them; the prefix is without
  std::optional<int64_t> shift_;  // from their blocks' numbers to the client's
  std::vector<Splice> splices_;   // of the event's data
  std::string stop_, buffer_;     // the event that is shown
};

}  // namespace spillway::gateway
