// EventPattern: a stream's events differ from one to the next in the words they bring, and in nothing else. It keeps
// the last such event; one with the same bytes around its words is known by comparing these, without looking at its
// JSON again (a third of what forwarding an event costs). One a stream; no I/O.
#pragma once

#include <string>
#include <string_view>

#include "gateway/answer_facts.h"

namespace spillway::gateway {

class EventPattern {
 public:
  // Keeps the event if nothing but its words is news; what is kept holds until the next such event.
  void learn(const RawEvent& event, const AnswerFacts& facts);

  // An event like the kept one at the front of the text: shows it with its facts (id, model and places are not told
  // again). False: something else, or not all of it.
  bool match(std::string_view text, RawEvent& event, AnswerFacts& facts) const;

 private:
  std::string head_, tail_;  // around the words: up to their quote, and from it on
  size_t data_begin_ = 0;    // in head_
  size_t after_data_ = 0;    // bytes, in tail_
  size_t name_begin_ = 0, name_size_ = 0;
  bool reasoning_ = false;  // the words are
  int64_t index_ = 0;
};

}  // namespace spillway::gateway
