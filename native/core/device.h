// Device, DeviceBuffer, DeviceWeight, DeviceBatch: backend.h's table as C++ objects that free what they hold and throw
// Error.
#pragma once

#include <chrono>
#include <cstddef>
#include <memory>
#include <string>
#include <vector>

#include "backend.h"
#include "core/dtype.h"
#include "core/error.h"
#include "core/op_profile.h"

namespace implex {

class Device {
 public:
  explicit Device(const ix_backend* table);
  ~Device();
  Device(const Device&) = delete;
  Device& operator=(const Device&) = delete;

  std::string name() const { return table_->name; }
  const std::string& description() const { return description_; }
  const std::string& kernel_set() const { return kernel_set_; }

  // device.call(&ix_backend::gemm, &in, weight, &epilogue, &out): appends the status argument and throws when the
  // operation fails.
  template <typename Op, typename... Arguments>
  void call(Op ix_backend::*operation, Arguments... arguments) {
    ix_status status;
    status.code = IX_OK;
    status.message[0] = '\0';
    if (OpProfile::on()) return timed_call(operation, status, arguments...);
    if ((table_->*operation)(handle_, arguments..., &status) != IX_OK) raise(status);
  }

  const ix_backend* table() const { return table_; }
  ix_device* handle() const { return handle_; }

 private:
  [[noreturn]] static void raise(const ix_status& status);

  // Waits for the operation to end, so that its time is its own.
  template <typename Op, typename... Arguments>
  void timed_call(Op ix_backend::*operation, ix_status& status, Arguments... arguments) {
    const auto start = std::chrono::steady_clock::now();
    if ((table_->*operation)(handle_, arguments..., &status) != IX_OK) raise(status);
    if (table_->synchronize(handle_, &status) != IX_OK) raise(status);
    const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start;
    OpProfile::add(static_cast<size_t>(reinterpret_cast<const char*>(&(table_->*operation)) -
                                       reinterpret_cast<const char*>(table_)),
                   seconds.count());
  }

  const ix_backend* table_;
  ix_device* handle_ = nullptr;
  std::string description_;
  std::string kernel_set_;
};

// Memory of a device. The device must outlive it.
class DeviceBuffer {
 public:
  DeviceBuffer() = default;
  DeviceBuffer(Device& device, size_t bytes);
  DeviceBuffer(DeviceBuffer&&) noexcept = default;
  DeviceBuffer& operator=(DeviceBuffer&&) noexcept = default;

  void* data() const { return data_.get(); }
  size_t bytes() const { return bytes_; }
  template <typename T>
  T* as() const {
    return static_cast<T*>(data_.get());
  }

  // Another handle of the same memory, which is freed with the last of them.
  DeviceBuffer share() const { return *this; }

  // A buffer that holds a copy of host values.
  template <typename T>
  static DeviceBuffer of(Device& device, const std::vector<T>& values) {
    DeviceBuffer buffer(device, values.size() * sizeof(T));
    device.call(&ix_backend::upload, buffer.data(), values.data(), values.size() * sizeof(T));
    return buffer;
  }

 private:
  DeviceBuffer(const DeviceBuffer&) = default;

  std::shared_ptr<void> data_;
  size_t bytes_ = 0;
};

// A weight in the layout of the device's products.
class DeviceWeight {
 public:
  DeviceWeight() = default;
  DeviceWeight(Device& device, DType dtype, int64_t rows, int64_t cols, bool trainable);
  DeviceWeight(DeviceWeight&&) noexcept = default;
  DeviceWeight& operator=(DeviceWeight&&) noexcept = default;

  explicit operator bool() const { return weight_ != nullptr; }
  ix_weight* get() const { return weight_.get(); }
  int64_t rows() const { return rows_; }
  size_t bytes() const { return weight_ ? device_->table()->weight_bytes(weight_.get()) : 0; }
  void write(int64_t row, int64_t count, const float* values) {
    device_->call(&ix_backend::weight_write, weight_.get(), row, count, values);
  }

  // As DeviceBuffer::share.
  DeviceWeight share() const { return *this; }

 private:
  DeviceWeight(const DeviceWeight&) = default;

  Device* device_ = nullptr;
  std::shared_ptr<ix_weight> weight_;
  int64_t rows_ = 0;
};

class DeviceBatch {
 public:
  DeviceBatch(Device& device, const std::vector<ix_segment>& segments);
  ~DeviceBatch();
  DeviceBatch(const DeviceBatch&) = delete;
  DeviceBatch& operator=(const DeviceBatch&) = delete;
  ix_batch* get() const { return batch_; }

 private:
  Device& device_;
  ix_batch* batch_ = nullptr;
};

}  // namespace implex
