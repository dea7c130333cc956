// The live state's parts as JSON objects: plain functions of what they are given.
#pragma once

#include <boost/json/array.hpp>
#include <boost/json/object.hpp>
#include <memory>
#include <vector>

#include "metrics/timeline.h"
#include "server/console/latency_map.h"
#include "server/console/upstream_view.h"
#include "server/console/verdict.h"
#include "server/served_model.h"
#include "server/served_one_shot.h"

namespace spillway::server {

boost::json::object model_json(const ServedModel& model);
boost::json::object one_shot_json(const ServedOneShot& model);
boost::json::object upstream_json(const UpstreamView& upstream);
boost::json::object verdict_json(const Verdict& verdict, const Signals& signals);
boost::json::array column_json(const LatencyMap::Column& column);

// A request among the recent ones, in one line; and whole, with its moments.
boost::json::object request_line(const metrics::Timeline& timeline, TimePoint now);
boost::json::object request_json(const metrics::Timeline& timeline, TimePoint now);

// Where the time of these requests went.
TimeShares time_shares(const std::vector<std::shared_ptr<metrics::Timeline>>& requests, TimePoint since);

}  // namespace spillway::server
