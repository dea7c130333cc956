// CheckStamp: a note beside a file that its bytes were read and found right, so that the next program need not read
// them all again. It holds for one boot of the machine and for the file as it was then: whatever writes to the file
// changes its time of change, and after a boot the bytes come from the disk anew. The note's own time is when the file
// was last used.
#pragma once

#include <filesystem>
#include <string>

namespace spillway::weights {

class CheckStamp {
 public:
  explicit CheckStamp(const std::string& path);

  // Whether the note says that the file, as it is now, was checked since the machine started.
  bool valid() const;

  // Writes the note, or renews its time. Without effect where the folder may only be read.
  void renew() const;

  // Where the note of a file is.
  static std::string path_of(const std::string& path) { return path + ".checked"; }

 private:
  std::string note_;
  std::string text_;  // of the file as it is now; empty when that cannot be told
};

}  // namespace spillway::weights
