// The live state as lines of text for a terminal: a pure function, so that it is tested without one.
#pragma once

#include <boost/json/object.hpp>
#include <string>
#include <string_view>

namespace spillway::apps {

struct ScreenSize {
  int columns = 80;
  int rows = 24;
};

// frame: as /console/api/events sends it. colour: with escape sequences. At most size.rows lines, none wider than
// size.columns. Fields that a server of another version lacks are left out.
std::string draw_screen(const boost::json::object& frame, std::string_view url, ScreenSize size, bool colour);

}  // namespace spillway::apps
