// Resuming a stream token by token, between Spillways. A chat stream that was asked for with the header
// X-Spillway-Resume carries, after each piece of its answer, a comment with the tokens that the piece came from (the
// marker); whoever has them may ask another server to go on exactly there, in the member spillway_resume of the body.
// The format is written down in docs/gateway.md. Pure; any thread.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "api/errors.h"

namespace spillway::server {

inline constexpr std::string_view kResumeHeader = "X-Spillway-Resume";
inline constexpr std::string_view kResumeMember = "spillway_resume";

// Where an answer stopped: who it is, and what it had said.
struct ResumePoint {
  std::string id;
  int64_t created = 0;
  uint64_t seed = 0;
  std::vector<int32_t> tokens;
};

// Of a request's body; nothing when it does not resume.
api::Parsed<std::optional<ResumePoint>> parse_resume(std::string_view body);

// The text of a marker's comment. The first of a stream names the answer; later ones only add tokens.
std::string first_marker(const ResumePoint& point);
std::string marker(const std::vector<int32_t>& tokens);

}  // namespace spillway::server
