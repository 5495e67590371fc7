// Mean and scale of a row, by a group of threads: a warp for short rows (a head), a block for long ones.
#pragma once

#include <type_traits>

#include "gpu/reduce.cuh"
#include "gpu/values.cuh"

namespace implex::cuda {

constexpr int kNormThreads = 256;
constexpr int64_t kWarpNormCols = 512;  // rows up to this long are a warp's

struct RowScale {
  float mean, scale;
};

template <int kGroup>
__device__ inline float group_sum(float x, float* scratch) {
  return kGroup == kWarp ? warp_sum(x) : block_sum<kNormThreads>(x, scratch);
}

// scale = 1 / sqrt(mean((x - mean)²) + eps); mean is 0 for the RMS norm. The variance takes a second pass, which does
// not cancel. Squares that overflow would make the row zeros, which nobody notices: NaN instead.
template <int kGroup, bool kAligned, typename T>
__device__ inline RowScale row_scale(const T* row, int64_t cols, int32_t kind, float eps, int thread, float* scratch) {
  const float count = static_cast<float>(cols);
  float mean = 0.0f;
  if (kind == IX_NORM_LAYER) {
    float total = 0.0f;
#pragma unroll 2
    for (int64_t i = thread * 4; i < cols; i += kGroup * 4) {
      const Four v = get_four<kAligned>(row, i, cols);
#pragma unroll
      for (int j = 0; j < 4; ++j) total += v.x[j];
    }
    mean = group_sum<kGroup>(total, scratch) / count;
  }
  float squares = 0.0f;
#pragma unroll 2
  for (int64_t i = thread * 4; i < cols; i += kGroup * 4) {
    const Four v = get_four<kAligned>(row, i, cols);
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      const float x = i + j < cols ? v.x[j] - mean : 0.0f;
      squares += x * x;
    }
  }
  const float spread = group_sum<kGroup>(squares, scratch) / count + eps;
  return {mean, spread < __uint_as_float(0x7f800000u) ? 1.0f / sqrtf(spread) : __uint_as_float(0x7fc00000u)};
}

// Calls `launch(group)` with the group's size as a constant, and gives rows of a block.
template <typename F>
auto with_group(int64_t cols, const F& launch) {
  return cols <= kWarpNormCols ? launch(std::integral_constant<int, kWarp>())
                               : launch(std::integral_constant<int, kNormThreads>());
}

}  // namespace implex::cuda
