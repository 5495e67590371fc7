// CancelFlag: set from the JavaScript thread, polled by the engine between layers.
#pragma once

#include <atomic>

#include "core/error.h"

namespace implex {

class CancelFlag {
 public:
  void cancel() { cancelled_.store(true, std::memory_order_relaxed); }
  bool cancelled() const { return cancelled_.load(std::memory_order_relaxed); }
  // Throws Error(kAborted) once cancel() was called.
  void check() const {
    if (cancelled()) throw Error(ErrorCode::kAborted, "the operation was aborted");
  }

 private:
  std::atomic<bool> cancelled_{false};
};

}  // namespace implex
