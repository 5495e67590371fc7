// Memory of the device: backend.h's alloc, release, copies and fill.
#include <cstring>

#include "device.h"

namespace implex::cuda {

int32_t alloc(ix_device* device, size_t bytes, void** memory, ix_status* status) {
  *memory = nullptr;
  Call call(device, status, "alloc");
  const int32_t code = call.begin();
  return code != IX_OK ? code : call.alloc(bytes, memory, "a smaller --batch-tokens needs less");
}

void release(ix_device* device, void* memory) {
  ix_status ignored;
  Call call(device, &ignored, "release");
  if (memory != nullptr && call.begin() == IX_OK) call.release(memory);
}

int32_t upload(ix_device* device, void* to, const void* from_host, size_t bytes, ix_status* status) {
  Call call(device, status, "upload", static_cast<int64_t>(bytes));
  const int32_t code = call.begin();
  return code != IX_OK ? code : call.upload(to, from_host, bytes);
}

int32_t download(ix_device* device, void* to_host, const void* from, size_t bytes, ix_status* status) {
  Call call(device, status, "download", static_cast<int64_t>(bytes));
  int32_t code = call.begin();
  if (code == IX_OK) code = call.at_once();
  if (code != IX_OK) return code;
  if (bytes == 0) return call.check(cudaStreamSynchronize(device->stream));
  // Through the ring, as much of it at once as is needed: a copy to pageable memory would not overlap anything either.
  constexpr size_t kAll = Ring::kBytes * Ring::kSlots;
  for (size_t at = 0; at < bytes; at += kAll) {
    const size_t count = bytes - at < kAll ? bytes - at : kAll;
    // In the stream's order, so after every upload out of the ring.
    code = call.check(cudaMemcpyAsync(device->ring.memory, static_cast<const char*>(from) + at, count,
                                      cudaMemcpyDeviceToHost, device->stream));
    if (code == IX_OK) code = call.check(cudaStreamSynchronize(device->stream));
    if (code != IX_OK) return code;
    std::memcpy(static_cast<char*>(to_host) + at, device->ring.memory, count);
  }
  return IX_OK;
}

int32_t synchronize(ix_device* device, ix_status* status) {
  Call call(device, status, "synchronize");
  int32_t code = call.begin();
  if (code == IX_OK) code = call.at_once();
  return code != IX_OK ? code : call.check(cudaStreamSynchronize(device->stream));
}

int32_t fill_zero(ix_device* device, void* memory, size_t bytes, ix_status* status) {
  Call call(device, status, "fill_zero", static_cast<int64_t>(bytes));
  const int32_t code = call.begin();
  if (code != IX_OK || bytes == 0) return code;
  return call.check(cudaMemsetAsync(memory, 0, bytes, device->stream));
}

}  // namespace implex::cuda
