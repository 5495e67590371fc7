// AtomicFile: a file that appears whole or not at all: written beside its name, flushed to the disk, then renamed over
// it.
#pragma once

#include <cstddef>
#include <string>

namespace implex {

class AtomicFile {
 public:
  // Throws Error(kIo | kDiskFull) naming the file and the system's reason, here and below.
  explicit AtomicFile(const std::string& path);
  // Removes what was written unless commit() came through.
  ~AtomicFile();
  AtomicFile(const AtomicFile&) = delete;
  AtomicFile& operator=(const AtomicFile&) = delete;

  void write(const void* data, size_t bytes);
  void commit();

 private:
  [[noreturn]] void fail(const char* what);

  std::string path_;
  std::string temporary_;
  int descriptor_ = -1;
};

}  // namespace implex
