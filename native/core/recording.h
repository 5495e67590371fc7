// Recording: a pass whose operations the device may do in pieces of several layers (record_begin of backend.h), where
// the launches of the operations one by one would take longer than the work.
#pragma once

#include <cstdint>

#include "core/device.h"
#include "core/op_profile.h"

namespace implex {

// Passes of more tokens have work enough: at 1024 tokens even a norm of 2048 columns moves 12 MiB, 3 us at 4 TB/s,
// which is about what its launch takes the host, and a product takes longer.
constexpr int64_t kRecordedTokens = 1024;

// Layers of a piece. The device works on one piece while the host records the next, so pieces must not be the whole
// pass; and each costs a launch of its own, so not a single layer either.
constexpr int64_t kRecordedLayers = 4;

class Recording {
 public:
  // A profile waits for each operation, which a recording is not for.
  Recording(Device& device, bool wanted) : device_(device), wanted_(wanted && !OpProfile::on()) { begin(); }
  // Without end(): an operation failed or the pass was aborted, so what is still kept back is dropped.
  ~Recording() {
    ix_status ignored;
    if (open_) device_.table()->record_end(device_.handle(), 0, &ignored);
  }
  Recording(const Recording&) = delete;
  Recording& operator=(const Recording&) = delete;

  // Ends one piece and begins another.
  void next() {
    end();
    begin();
  }
  void end() {
    if (!open_) return;
    open_ = false;
    device_.call(&ix_backend::record_end, int32_t{1});
  }

 private:
  void begin() {
    if (!wanted_) return;
    device_.call(&ix_backend::record_begin);
    open_ = true;
  }

  Device& device_;
  const bool wanted_;
  bool open_ = false;
};

}  // namespace implex
