// FileRange: bounded reads of a file by position. Plain reads rather than a mapping: weights are repacked at load, so a
// mapping saves nothing, and a file that is truncated under a mapping would end the process with a signal instead of an
// error.
#pragma once

#include <cstdint>
#include <string>

namespace implex {

class FileRange {
 public:
  // Throws Error(kIo) naming the file and the system's reason.
  explicit FileRange(const std::string& path);
  ~FileRange();
  FileRange(const FileRange&) = delete;
  FileRange& operator=(const FileRange&) = delete;

  const std::string& path() const { return path_; }
  uint64_t size() const { return size_; }
  // Exactly `bytes` bytes from `offset`. Throws Error(kSafetensorsInvalid) when the file ends before, Error(kIo) when
  // reading fails.
  void read(uint64_t offset, void* to, uint64_t bytes) const;

 private:
  std::string path_;
  int descriptor_ = -1;
  uint64_t size_ = 0;
};

}  // namespace implex
