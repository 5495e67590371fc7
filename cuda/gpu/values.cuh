// Element types of matrices and their conversions, one element or four at a time.
#pragma once

#include "backend.h"
#include "gpu/platform.cuh"

namespace implex::cuda {

struct Bf16 {
  uint16_t bits;
};

template <typename T>
struct Type {
  using type = T;
};

// `body(Type<float>())` or `body(Type<Bf16>())`.
template <typename F>
auto with_type(int32_t dtype, const F& body) {
  return dtype == IX_F32 ? body(Type<float>()) : body(Type<Bf16>());
}

__device__ inline float to_float(float x) { return x; }
__device__ inline float to_float(Bf16 x) { return __uint_as_float(static_cast<uint32_t>(x.bits) << 16); }

// Round to nearest, ties to even. Two values in one register, `low` in the lower half.
__device__ inline uint32_t pack_bf16(float low, float high) {
#if defined(IMPLEX_EMULATED)
  return emulated::bf16_bits(low) | static_cast<uint32_t>(emulated::bf16_bits(high)) << 16;
#else
  uint32_t packed;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(packed) : "f"(high), "f"(low));
  return packed;
#endif
}

template <typename T>
__device__ inline T from_float(float x);
template <>
__device__ inline float from_float<float>(float x) {
  return x;
}
template <>
__device__ inline Bf16 from_float<Bf16>(float x) {
  return Bf16{static_cast<uint16_t>(pack_bf16(x, 0.0f) & 0xffffu)};
}

struct Four {
  float x[4];
};

// `p` is aligned to four elements.
__device__ inline Four load_four(const float* p) {
  const float4 v = *reinterpret_cast<const float4*>(p);
  return {{v.x, v.y, v.z, v.w}};
}
__device__ inline Four load_four(const Bf16* p) {
  const uint2 v = *reinterpret_cast<const uint2*>(p);
  return {{__uint_as_float(v.x << 16), __uint_as_float(v.x & 0xffff0000u), __uint_as_float(v.y << 16),
           __uint_as_float(v.y & 0xffff0000u)}};
}
__device__ inline void store_four(float* p, const Four& v) {
  *reinterpret_cast<float4*>(p) = make_float4(v.x[0], v.x[1], v.x[2], v.x[3]);
}
__device__ inline void store_four(Bf16* p, const Four& v) {
  *reinterpret_cast<uint2*>(p) = make_uint2(pack_bf16(v.x[0], v.x[1]), pack_bf16(v.x[2], v.x[3]));
}

// Four elements from `i` on of a row of `n`; one at a time where the row is not aligned for more. Elements past the
// end are 0, and are not stored.
template <bool kAligned, typename T>
__device__ inline Four get_four(const T* row, int64_t i, int64_t n) {
  if constexpr (kAligned) {
    return load_four(row + i);
  } else {
    Four v;
#pragma unroll
    for (int j = 0; j < 4; ++j) v.x[j] = i + j < n ? to_float(row[i + j]) : 0.0f;
    return v;
  }
}
template <bool kAligned, typename T>
__device__ inline void put_four(T* row, int64_t i, int64_t n, const Four& v) {
  if constexpr (kAligned) {
    store_four(row + i, v);
  } else {
#pragma unroll
    for (int j = 0; j < 4; ++j)
      if (i + j < n) row[i + j] = from_float<T>(v.x[j]);
  }
}

// Whether every row of a matrix can be read four elements at a time.
inline bool four_aligned(const void* data, int32_t dtype, int64_t cols, int64_t stride) {
  const uintptr_t bytes = dtype == IX_F32 ? 16 : 8;
  return cols % 4 == 0 && stride % 4 == 0 && reinterpret_cast<uintptr_t>(data) % bytes == 0;
}
inline bool four_aligned(const ix_mat* m) { return four_aligned(m->data, m->dtype, m->cols, m->stride); }

}  // namespace implex::cuda
