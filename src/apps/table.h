// Table: rows of text in aligned columns, as the commands print them.
#pragma once

#include <string>
#include <vector>

namespace spillway::apps {

class Table {
 public:
  explicit Table(std::vector<std::string> header) : rows_{std::move(header)} {}
  void add(std::vector<std::string> row);  // as many cells as the header
  // The first column is aligned left, the others right.
  std::string render() const;

 private:
  std::vector<std::vector<std::string>> rows_;
};

}  // namespace spillway::apps
