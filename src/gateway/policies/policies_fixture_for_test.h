// A small fleet and a plain request, for the tests of policies.
#pragma once

#include <gtest/gtest.h>

#include <deque>
#include <string>
#include <vector>

#include "gateway/policy.h"

namespace spillway::gateway {

struct Fleet {
  std::deque<UpstreamInfo> infos;  // stays where it is as it grows
  std::vector<UpstreamState> states;

  UpstreamInfo& add(const std::string& name, Tier tier) {
    UpstreamInfo& info = infos.emplace_back();
    info.name = name;
    info.tier = tier;
    UpstreamState state;
    state.info = &info;
    state.rate = {10000, 50};
    states.push_back(state);
    return info;
  }

  UpstreamState& state(const std::string& name) {
    for (UpstreamState& state : states) {
      if (state.info->name == name) return state;
    }
    ADD_FAILURE() << "no upstream " << name;
    return states.front();
  }

  std::vector<std::string> names(const Decision& decision) const {
    std::vector<std::string> names;
    for (const Candidate& candidate : decision.order) names.push_back(states[candidate.upstream].info->name);
    return names;
  }
};

inline RequestFeatures a_request() {
  RequestFeatures request;
  request.model = "m";
  request.prompt_tokens = 100;
  request.output_tokens_expected = 50;
  return request;
}

inline PolicyChain chain(std::vector<std::string> texts) {
  auto parsed = PolicyChain::parse(std::span<const std::string>(texts));
  EXPECT_TRUE(parsed.ok()) << (parsed.ok() ? "" : parsed.error().message);
  return std::move(parsed).value();
}

}  // namespace spillway::gateway
