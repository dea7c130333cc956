// TuningFile: what was learned about a model on a device, its kernels (kernels/tuning.h) and what its steps cost, on
// disk for later starts. Its name and first line hold device, driver, library, model and build: a file of any other is
// deleted when it is met, as is one that cannot be read. Used at the start only, by the thread that starts the engine.
#pragma once

#include <string>

namespace spillway::engine {

class TuningFile {
 public:
  // identity: one line; model: what tells the models of a device apart. An empty folder: no file.
  TuningFile(const std::string& folder, const std::string& model, std::string identity);

  // What it holds; empty without a file of this identity.
  std::string read() const;
  // Replaces it whole. A failure is a warning in the log: the next start measures again.
  void write(const std::string& learned) const;

  const std::string& path() const { return path_; }

 private:
  std::string path_;
  std::string identity_;
};

// Size and time of this program's own file: a new build learns anew.
std::string build_identity();
// The NVIDIA driver's own version, which its CUDA version does not tell; empty without one.
std::string driver_identity();

}  // namespace spillway::engine
