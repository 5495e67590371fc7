// pread with the partial reads and interruptions that POSIX allows.
#include "io/file_range.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "core/error.h"

namespace implex {

FileRange::FileRange(const std::string& path) : path_(path) {
  // Opening a pipe without a writer would block; on a regular file the flag does nothing.
  descriptor_ = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (descriptor_ < 0) throw Error(ErrorCode::kIo, "cannot open " + path + ": " + std::strerror(errno));
  struct stat status;
  if (::fstat(descriptor_, &status) != 0 || !S_ISREG(status.st_mode)) {
    ::close(descriptor_);
    throw Error(ErrorCode::kIo, path + " is not a regular file");
  }
  size_ = static_cast<uint64_t>(status.st_size);
}

FileRange::~FileRange() { ::close(descriptor_); }

void FileRange::read(uint64_t offset, void* to, uint64_t bytes) const {
  constexpr uint64_t kMost = uint64_t{1} << 30;  // one call may not take more than 2 GiB
  char* at = static_cast<char*>(to);
  while (bytes > 0) {
    const ssize_t got = ::pread(descriptor_, at, bytes < kMost ? bytes : kMost, static_cast<off_t>(offset));
    if (got < 0) {
      if (errno == EINTR) continue;
      throw Error(ErrorCode::kIo, "cannot read " + path_ + ": " + std::strerror(errno));
    }
    if (got == 0)
      throw Error(ErrorCode::kSafetensorsInvalid,
                  path_ + " ends at byte " + std::to_string(offset) + ", inside a tensor: it is truncated");
    at += got;
    offset += static_cast<uint64_t>(got);
    bytes -= static_cast<uint64_t>(got);
  }
}

}  // namespace implex
