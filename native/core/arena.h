// Arena: one block of device memory from which a batch's activations are carved. Kept between batches and only ever
// grown, so a steady stream of batches allocates nothing.
#pragma once

#include <cstdint>

#include "core/device.h"

namespace implex {

class Arena {
 public:
  explicit Arena(Device& device) : device_(device) {}

  // Makes sure of `bytes`, as a measuring Plan gave them.
  void reserve(size_t bytes) {
    if (buffer_.bytes() >= bytes) return;
    buffer_ = DeviceBuffer();  // free first: the old and the new block need not fit together
    buffer_ = DeviceBuffer(device_, bytes);
  }

  size_t bytes() const { return buffer_.bytes(); }

  // Hands out aligned pieces, or, without an arena, only adds up what they would take.
  class Plan {
   public:
    explicit Plan(Arena* arena) : arena_(arena) {}

    void* take(size_t bytes) {
      const size_t at = used_;
      used_ += (bytes + kAlignment - 1) / kAlignment * kAlignment;
      if (arena_ == nullptr) return nullptr;
      if (used_ > arena_->buffer_.bytes()) throw Error(ErrorCode::kInternal, "an arena was planned too small");
      return arena_->buffer_.as<char>() + at;
    }

    ix_mat matrix(DType dtype, int64_t rows, int64_t cols) {
      return {take(static_cast<size_t>(rows * cols) * dtype_size(dtype)), static_cast<int32_t>(dtype), rows, cols,
              cols};
    }

    size_t used() const { return used_; }

   private:
    static constexpr size_t kAlignment = 256;
    Arena* arena_;
    size_t used_ = 0;
  };

 private:
  Device& device_;
  DeviceBuffer buffer_;
};

}  // namespace implex
