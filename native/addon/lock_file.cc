// The system's lock of an open file, which Node has no call for. Unlike a file that says who is there, it cannot
// outlive its process, however that ends.
#include "addon/lock_file.h"

#include <sys/file.h>

#include <cerrno>
#include <cstring>
#include <limits>

#include "addon/arguments.h"
#include "addon/host.h"

namespace implex::addon {

Napi::Value lock_file(const Napi::CallbackInfo& info) {
  const int64_t descriptor = read_integer("descriptor", info[0], 0, std::numeric_limits<int>::max());
  int result = 0;
  do {
    result = ::flock(static_cast<int>(descriptor), LOCK_EX | LOCK_NB);
  } while (result != 0 && errno == EINTR);
  if (result != 0 && errno != EWOULDBLOCK)
    throw to_js_error(info.Env(), {ErrorCode::kIo, std::string("cannot be locked: ") + std::strerror(errno)});
  return Napi::Boolean::New(info.Env(), result == 0);
}

}  // namespace implex::addon
