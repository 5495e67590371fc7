// A call's context: choosing the device, errors as statuses, scratch memory, uploads through pinned memory.
#include <cstdarg>
#include <cstdio>
#include <cstring>

#include "device.h"

namespace implex::cuda {

Call::Call(ix_device* d, ix_status* status, const char* name, int64_t rows, int64_t cols, int64_t depth)
    : device(d), status_(status), name_(name), rows_(rows), cols_(cols), depth_(depth) {}

int32_t Call::begin() {
  if (device->lost)
    return fail(IX_UNAVAILABLE, "an earlier CUDA error has made the GPU unusable for this process; start it again");
  // The current device belongs to the thread, and any thread may call.
  return check(cudaSetDevice(device->ordinal));
}

int32_t Call::fail(int32_t code, const char* format, ...) const {
  char operation[128];
  operation_text(operation, sizeof operation, name_, rows_, cols_, depth_);
  char text[360];
  va_list arguments;
  va_start(arguments, format);
  std::vsnprintf(text, sizeof text, format, arguments);
  va_end(arguments);
  status_->code = code;
  std::snprintf(status_->message, sizeof status_->message, "%s: %s", operation, text);
  return code;
}

int32_t Call::check(cudaError_t error) const {
  if (error == cudaSuccess) return IX_OK;
  cudaGetLastError();  // an error that can be recovered from is not reported a second time
  if (error == cudaErrorMemoryAllocation) return out_of_memory(0, "");
  char operation[128];
  operation_text(operation, sizeof operation, name_, rows_, cols_, depth_);
  const bool captured = device->recorder.state == Recorder::kCapturing;
  status_->code = IX_INTERNAL;
  cuda_error_text(status_->message, sizeof status_->message, operation, cudaGetErrorName(error),
                  cudaGetErrorString(error), captured);
#if !defined(IMPLEX_EMULATED)
  // A kernel that failed leaves an error that every later call returns. A captured stream must not be asked.
  if (cudaPeekAtLastError() != cudaSuccess || (!captured && cudaStreamQuery(device->stream) == error))
    device->lost = true;
#endif
  return IX_INTERNAL;
}

int32_t Call::out_of_memory(size_t asked, const char* advice) const {
  size_t free_bytes = 0, total = 0;
  if (cudaMemGetInfo(&free_bytes, &total) != cudaSuccess) cudaGetLastError();
  char operation[128];
  operation_text(operation, sizeof operation, name_, rows_, cols_, depth_);
  status_->code = IX_OUT_OF_MEMORY;
  out_of_memory_text(status_->message, sizeof status_->message, operation, asked, free_bytes, total, advice);
  return IX_OUT_OF_MEMORY;
}

namespace {

cudaError_t take_memory(const ix_device* device, size_t size, void** memory) {
  return device->pool != nullptr ? cudaMallocFromPoolAsync(memory, size, device->pool, device->stream)
                                 : cudaMalloc(memory, size);
}

}  // namespace

int32_t Call::alloc(size_t bytes, void** memory, const char* advice) const {
  *memory = nullptr;
  int32_t code = at_once();
  if (code != IX_OK) return code;
  // Not asked for: what CUDA answers to a size that overflows is its own affair.
  if (bytes > device->memory) return out_of_memory(bytes, advice);
  const size_t size = bytes == 0 ? 256 : bytes;
  cudaError_t error = take_memory(device, size, memory);
  if (error == cudaErrorMemoryAllocation) {
    // What the pool keeps may be in pieces too small: give it back and ask once more.
    cudaGetLastError();
    code = check(cudaStreamSynchronize(device->stream));
    if (code == IX_OK && device->pool != nullptr) code = check(cudaMemPoolTrimTo(device->pool, 0));
    if (code != IX_OK) return code;
    error = take_memory(device, size, memory);
    if (error == cudaErrorMemoryAllocation) {
      cudaGetLastError();
      *memory = nullptr;
      return out_of_memory(bytes, advice);
    }
  }
  return check(error);
}

cudaError_t free_memory(const ix_device* device, void* memory) {
  if (device->pool != nullptr) return cudaFreeAsync(memory, device->stream);
  // What the stream still does with it comes first.
  const cudaError_t error = cudaStreamSynchronize(device->stream);
  return error != cudaSuccess ? error : cudaFree(memory);
}

void Call::release(void* memory) const {
  if (memory == nullptr) return;
  at_once();  // record_end reports an error of this
  // An error here is one that the next operation reports.
  if (free_memory(device, memory) != cudaSuccess) cudaGetLastError();
}

int32_t Call::take(Workspace::Slot slot, size_t bytes, void** memory) const {
  Workspace& w = device->workspace;
  if (w.bytes[slot] < bytes || w.data[slot] == nullptr) {
    int32_t code = at_once();
    if (code != IX_OK) return code;
    release(w.data[slot]);  // in stream order: what still runs keeps it
    w.data[slot] = nullptr;
    w.bytes[slot] = 0;
    code = alloc(bytes, &w.data[slot], "a smaller --batch-tokens needs less");
    if (code != IX_OK) return code;
    w.bytes[slot] = bytes;
  }
  *memory = w.data[slot];
  return IX_OK;
}

int32_t Call::upload(void* to, const void* from_host, size_t bytes) const {
  Ring& ring = device->ring;
  int32_t code = at_once();
  if (code != IX_OK) return code;
  for (size_t at = 0; at < bytes; at += Ring::kBytes) {
    const size_t count = bytes - at < Ring::kBytes ? bytes - at : Ring::kBytes;
    const int slot = ring.next;
    ring.next = (ring.next + 1) % Ring::kSlots;
    code = check(cudaEventSynchronize(ring.done[slot]));  // at once where the slot was never used
    if (code != IX_OK) return code;
    char* staged = ring.memory + static_cast<size_t>(slot) * Ring::kBytes;
    std::memcpy(staged, static_cast<const char*>(from_host) + at, count);
    code = check(cudaMemcpyAsync(static_cast<char*>(to) + at, staged, count, cudaMemcpyHostToDevice, device->stream));
    if (code == IX_OK) code = check(cudaEventRecord(ring.done[slot], device->stream));
    if (code != IX_OK) return code;
  }
  return IX_OK;
}

}  // namespace implex::cuda
