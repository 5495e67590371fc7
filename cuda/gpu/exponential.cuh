// Exponentials and the soft cap, from the units that approximate: short enough to be unrolled over a tile's values.
#pragma once

#include <cmath>

#include "gpu/platform.cuh"

namespace implex::cuda {

constexpr float kLog2e = 1.4426950408889634f;
constexpr float kLn2 = 0.69314718055994531f;
constexpr float kNever = -1.0e30f;  // a score that nothing sees: finite, so that no difference of two is NaN

// 2^x, flushing what is tiny to 0; off by 2 units in the last place.
__device__ inline float exp2_fast(float x) {
#if defined(IMPLEX_EMULATED)
  return std::exp2(x);
#else
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
#endif
}

// 1 / x, off by a unit in the last place; 0 for an infinite x.
__device__ inline float reciprocal_fast(float x) {
#if defined(IMPLEX_EMULATED)
  return 1.0f / x;
#else
  float y;
  asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
#endif
}

// tanh to 1e-7, and to 1e-7 of itself below 1/2, without a branch: 1 - 2 / (exp(2 |x|) + 1), where that cancels a
// polynomial in x², fitted for the least largest error. (tanh.approx is off by 5e-4.)
__device__ inline float tanh_fast(float x) {
  const float size = fabsf(x);
  const float far = fmaf(-2.0f, reciprocal_fast(exp2_fast(size * (2.0f * kLog2e)) + 1.0f), 1.0f);
  const float square = x * x;
  float series = fmaf(0.017256992f, square, -0.05305295f);
  series = fmaf(series, square, 0.13325988f);
  series = fmaf(series, square, -0.3333315f);
  const float near = fmaf(x * square, series, x);
  return size < 0.5f ? near : copysignf(far, x);
}

// A soft cap: z becomes cap tanh(z / cap), which is cap * tanh_fast(z * inverse), and has the slope 1 - tanh²(z / cap).
struct SoftCap {
  float cap, inverse;  // 0, 0: none
};
inline bool is_soft_cap(float cap) { return cap >= 0 && !std::isinf(cap); }
inline SoftCap soft_cap_of(float cap) { return {cap, cap > 0 ? 1 / cap : 0}; }

__device__ inline float cap_slope(float tanh) { return fmaf(-tanh, tanh, 1.0f); }

}  // namespace implex::cuda
