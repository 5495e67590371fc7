// Host memory for the CPU device.
#include "cpu/memory.h"

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <new>

#include "cpu/device.h"

namespace implex::cpu {

namespace {

// Memory that the system could still give, or 0 when it does not say. An allocation that Linux grants on credit would
// later end the process without a word; refusing it here is an error that can be handled.
size_t available_bytes() {
#if defined(__linux__)
  std::unique_ptr<FILE, int (*)(FILE*)> file(std::fopen("/proc/meminfo", "re"), std::fclose);
  if (!file) return 0;
  char line[128];
  while (std::fgets(line, sizeof line, file.get())) {
    unsigned long long kib = 0;
    if (std::sscanf(line, "MemAvailable: %llu kB", &kib) == 1) return static_cast<size_t>(kib) * 1024;
  }
#endif
  return 0;
}

constexpr size_t kAlignment = 256;
constexpr size_t kWorthChecking = size_t{64} << 20;

struct Scratch {
  float* data = nullptr;
  size_t count = 0;
  ~Scratch() { std::free(data); }
};
thread_local Scratch scratch;

}  // namespace

int32_t alloc(ix_device*, size_t bytes, void** memory, ix_status* status) {
  *memory = nullptr;
  const size_t rounded = (bytes + kAlignment - 1) / kAlignment * kAlignment;
  if (rounded < bytes) return fail(status, IX_OUT_OF_MEMORY, "cannot allocate %zu bytes", bytes);
  if (bytes >= kWorthChecking) {
    const size_t free_bytes = available_bytes();
    if (free_bytes != 0 && rounded > free_bytes)
      return fail(status, IX_OUT_OF_MEMORY, "out of memory: asked for %.2f GiB, %.2f GiB are available",
                  static_cast<double>(bytes) / (1u << 30), static_cast<double>(free_bytes) / (1u << 30));
  }
  *memory = std::aligned_alloc(kAlignment, rounded == 0 ? kAlignment : rounded);
  if (*memory == nullptr) return fail(status, IX_OUT_OF_MEMORY, "out of memory: asked for %zu bytes", bytes);
  return IX_OK;
}

void release(ix_device*, void* memory) { std::free(memory); }

int32_t copy(ix_device*, void* to, const void* from, size_t bytes, ix_status*) {
  if (bytes != 0) std::memcpy(to, from, bytes);
  return IX_OK;
}

Workspace::~Workspace() {
  for (char* data : data_) std::free(data);
}

char* Workspace::take(Slot slot, size_t bytes) {
  if (bytes_[slot] < bytes) {
    std::free(data_[slot]);
    data_[slot] = static_cast<char*>(std::aligned_alloc(64, (bytes + 63) / 64 * 64));
    bytes_[slot] = data_[slot] == nullptr ? 0 : bytes;
  }
  return data_[slot];
}

float* thread_scratch(size_t count) {
  if (scratch.count < count) {
    std::free(scratch.data);
    scratch.data = static_cast<float*>(std::aligned_alloc(64, (count * sizeof(float) + 63) / 64 * 64));
    scratch.count = scratch.data == nullptr ? 0 : count;
  }
  return scratch.data;
}

}  // namespace implex::cpu
