// Device objects over the C table.
#include "core/device.h"

namespace implex {

Device::Device(const ix_backend* table) : table_(table) {
  ix_status status;
  status.code = IX_OK;
  status.message[0] = '\0';
  if (table_->open(&handle_, &status) != IX_OK) raise(status);
  char description[256] = "";
  char kernels[64] = "";
  if (table_->describe(handle_, description, sizeof description, kernels, sizeof kernels, &status) != IX_OK) {
    table_->close(handle_);
    raise(status);
  }
  description_ = description;
  kernel_set_ = kernels;
}

Device::~Device() { table_->close(handle_); }

void Device::raise(const ix_status& status) {
  ErrorCode code = ErrorCode::kInternal;
  if (status.code == IX_OUT_OF_MEMORY) code = ErrorCode::kOutOfMemory;
  if (status.code == IX_UNAVAILABLE) code = ErrorCode::kDeviceUnavailable;
  throw Error(code, status.message);
}

DeviceBuffer::DeviceBuffer(Device& device, size_t bytes) : bytes_(bytes) {
  void* memory = nullptr;
  device.call(&ix_backend::alloc, bytes, &memory);
  data_.reset(memory, [&device](void* freed) {
    if (freed) device.table()->release(device.handle(), freed);
  });
}

DeviceWeight::DeviceWeight(Device& device, DType dtype, int64_t rows, int64_t cols, bool trainable)
    : device_(&device), rows_(rows) {
  ix_weight* weight = nullptr;
  device.call(&ix_backend::weight_create, static_cast<int32_t>(dtype), rows, cols, trainable ? 1 : 0, &weight);
  weight_.reset(weight, [&device](ix_weight* freed) {
    if (freed) device.table()->weight_destroy(device.handle(), freed);
  });
}

DeviceBatch::DeviceBatch(Device& device, const std::vector<ix_segment>& segments) : device_(device) {
  device.call(&ix_backend::batch_create, segments.data(), static_cast<int32_t>(segments.size()), &batch_);
}

DeviceBatch::~DeviceBatch() { device_.table()->batch_destroy(device_.handle(), batch_); }

}  // namespace implex
