// How a stream that broke off is taken up elsewhere. Between Spillways exactly: after each piece of its answer a node
// that was asked to (kResumeHeader) sends a comment with the tokens so far, the marker; whoever goes on gets those
// tokens in the body and continues as if it had generated them, seed and positions included. The client sees neither.
// The format is the server's (server/resume.h), written down in docs/gateway.md. Pure; any thread.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace spillway::gateway {

inline constexpr std::string_view kResumeHeader = "X-Spillway-Resume";
inline constexpr std::string_view kResumeMember = "spillway_resume";

struct Resume {
  bool exact = false;  // markers came: the rest can be resumed token by token
  std::string id;      // raw, of the answer
  int64_t created = 0;
  std::optional<uint64_t> seed;
  std::vector<int32_t> tokens;  // all that the client has seen the text of
  std::string content;          // raw JSON text seen, for continuation by prefix
  std::string reasoning;
  bool any = false;        // the client has seen something
  bool tool_call = false;  // of which a call of a tool, which no prefix can continue
  int64_t block = -1;      // Anthropic: the last that began
  bool block_open = false;

  // Whether whoever continues an assistant's words can go on from here.
  bool continuable() const { return !content.empty() && !tool_call; }

  // The value of kResumeMember.
  std::string json() const;
  // Takes a marker's text: "spillway {...}". False when it is none.
  bool take_marker(std::string_view text);
};

}  // namespace spillway::gateway
