// What the kernels are compiled against: CUDA, or in the tests a CPU that plays a GPU (native/test/emulator).
#pragma once

#include <cstdint>

#if defined(IMPLEX_EMULATED)
#include "emulator.h"
#define IMPLEX_SHARED_MEMORY(name) unsigned char* name = ::emulated::shared_memory()
#else
#include <cuda_runtime.h>
// 1024 bytes: the atom of the 128-byte swizzle (host/hopper.h).
#define IMPLEX_SHARED_MEMORY(name) extern __shared__ __align__(1024) unsigned char name[]
#endif

namespace implex::cuda {

constexpr int kWarp = 32;
constexpr unsigned kAllLanes = 0xffffffffu;

}  // namespace implex::cuda
