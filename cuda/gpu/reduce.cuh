// Sums and maxima over a warp or a block, in trees whose shape depends on nothing but the number of threads.
#pragma once

#include "gpu/platform.cuh"

namespace implex::cuda {

// Every lane gets the result: a butterfly, so each adds the same pairs.
template <typename T>
__device__ inline T warp_sum(T x) {
#pragma unroll
  for (int step = kWarp / 2; step > 0; step /= 2) x += __shfl_xor_sync(kAllLanes, x, step);
  return x;
}
__device__ inline float warp_max(float x) {
#pragma unroll
  for (int step = kWarp / 2; step > 0; step /= 2) x = fmaxf(x, __shfl_xor_sync(kAllLanes, x, step));
  return x;
}

// Sum over a block of kThreads, given to every thread. `scratch`: shared, kThreads / 32 values, free again after the
// next barrier.
template <int kThreads, typename T>
__device__ inline T block_sum(T x, T* scratch) {
  static_assert(kThreads % kWarp == 0, "whole warps");
  x = warp_sum(x);
  __syncthreads();  // the scratch may still be read from the sum before
  if (threadIdx.x % kWarp == 0) scratch[threadIdx.x / kWarp] = x;
  __syncthreads();
  T total = scratch[0];
#pragma unroll
  for (int i = 1; i < kThreads / kWarp; ++i) total += scratch[i];
  return total;
}

}  // namespace implex::cuda
