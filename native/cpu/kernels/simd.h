// Vectors of f32 for one instruction set (compiler vector extensions), and the few functions on them that the kernels
// share.
//
// Everything here has internal linkage in a namespace of its own per instruction set; see the hazard in table.h.
#pragma once

#include <stdint.h>

#include <utility>

#include "backend.h"

#if defined(__AVX512F__)
#define IMPLEX_LANES 16
#define IMPLEX_PANEL_VECTORS 4
#elif defined(__AVX2__)
#define IMPLEX_LANES 8
#define IMPLEX_PANEL_VECTORS 2
#elif defined(__aarch64__)
#define IMPLEX_LANES 4
#define IMPLEX_PANEL_VECTORS 4
#else
#define IMPLEX_LANES 4
#define IMPLEX_PANEL_VECTORS 2
#endif

#define IMPLEX_INLINE static inline __attribute__((always_inline))

namespace implex::cpu::IMPLEX_KERNELS {
namespace {

constexpr int kLanes = IMPLEX_LANES;
constexpr int kPanelVectors = IMPLEX_PANEL_VECTORS;
constexpr int kPanel = kLanes * kPanelVectors;  // columns of a packed weight panel

typedef float vf __attribute__((vector_size(kLanes * 4)));
typedef int32_t vi __attribute__((vector_size(kLanes * 4)));
typedef uint32_t vu __attribute__((vector_size(kLanes * 4)));
typedef uint16_t vh __attribute__((vector_size(kLanes * 2)));
typedef float vf_unaligned __attribute__((vector_size(kLanes * 4), aligned(4), may_alias));
typedef uint32_t vu_unaligned __attribute__((vector_size(kLanes * 4), aligned(4), may_alias));
typedef uint16_t vh_unaligned __attribute__((vector_size(kLanes * 2), aligned(2), may_alias));

// Lane i of the result is lane `F{}(i)` of a and b one behind the other; F: a function without state.
typedef std::make_integer_sequence<int, kLanes> EveryLane;
template <typename F, int... I>
IMPLEX_INLINE vf shuffle(vf a, vf b, F, std::integer_sequence<int, I...>) {
  return __builtin_shufflevector(a, b, F{}(I)...);
}
template <int... I>
IMPLEX_INLINE vf repeat(float x, std::integer_sequence<int, I...>) {
  return vf{(static_cast<void>(I), x)...};
}

// Lane by lane, not `vf{} + x`: that is an addition (it turns -0 to 0), which compilers then really make.
IMPLEX_INLINE vf splat(float x) { return repeat(x, EveryLane()); }
IMPLEX_INLINE vf load(const float* p) { return *reinterpret_cast<const vf_unaligned*>(p); }
IMPLEX_INLINE void store(float* p, vf x) { *reinterpret_cast<vf_unaligned*>(p) = x; }
IMPLEX_INLINE vf max(vf a, vf b) { return a > b ? a : b; }
IMPLEX_INLINE vf min(vf a, vf b) { return a < b ? a : b; }

IMPLEX_INLINE vf widen(vh bits) { return reinterpret_cast<vf>(__builtin_convertvector(bits, vu) << 16); }
IMPLEX_INLINE vf load_bf16(const uint16_t* p) { return widen(*reinterpret_cast<const vh_unaligned*>(p)); }
// Round to nearest even; NaN stays NaN.
IMPLEX_INLINE vh narrow(vf x) {
  const vu bits = reinterpret_cast<vu>(x);
  const vu rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
  const vu quiet = (bits >> 16) | 0x40u;
  const vu nan = reinterpret_cast<vu>((bits & 0x7fffffffu) > 0x7f800000u);
  return __builtin_convertvector((nan & quiet) | (~nan & rounded), vh);
}

IMPLEX_INLINE float scalar_from_bf16(uint16_t bits) {
  union {
    uint32_t u;
    float f;
  } x = {static_cast<uint32_t>(bits) << 16};
  return x.f;
}
IMPLEX_INLINE uint16_t scalar_to_bf16(float value) {
  union {
    float f;
    uint32_t u;
  } x = {value};
  if ((x.u & 0x7fffffffu) > 0x7f800000u) return static_cast<uint16_t>((x.u >> 16) | 0x40u);
  return static_cast<uint16_t>((x.u + 0x7fffu + ((x.u >> 16) & 1u)) >> 16);
}

// Elements of a and b in turn: the lower halves of both, the upper halves of both.
IMPLEX_INLINE vf interleave_low(vf a, vf b) {
  return shuffle(
      a, b, [](int i) { return i % 2 * kLanes + i / 2; }, EveryLane());
}
IMPLEX_INLINE vf interleave_high(vf a, vf b) {
  return shuffle(
      a, b, [](int i) { return i % 2 * kLanes + i / 2 + kLanes / 2; }, EveryLane());
}

// Transposes a square of kLanes rows in place: as many perfect shuffles as the lanes have bits.
IMPLEX_INLINE void transpose_square(vf* rows) {
  vf other[kLanes];
#pragma GCC unroll 4
  for (int width = kLanes; width > 1; width /= 2) {
#pragma GCC unroll 16
    for (int i = 0; i < kLanes / 2; ++i) {
      other[2 * i] = interleave_low(rows[i], rows[i + kLanes / 2]);
      other[2 * i + 1] = interleave_high(rows[i], rows[i + kLanes / 2]);
    }
#pragma GCC unroll 16
    for (int i = 0; i < kLanes; ++i) rows[i] = other[i];
  }
}

// One half of pairs of bf16, 0 the lower, as f32.
IMPLEX_INLINE vf half_of(vu pairs, int half) {
  return reinterpret_cast<vf>(half == 0 ? pairs << 16 : pairs & 0xffff0000u);
}
IMPLEX_INLINE vu load_bits(const uint32_t* p) { return *reinterpret_cast<const vu_unaligned*>(p); }

// Two vectors as pairs of bf16: low in the lower half of each lane, high in the upper.
IMPLEX_INLINE vu bf16_pairs(vf low, vf high) {
  return __builtin_convertvector(narrow(low), vu) | (__builtin_convertvector(narrow(high), vu) << 16);
}

// The upper half of every 2 N lanes, in both halves.
template <int N>
IMPLEX_INLINE vf upper(vf x) {
  return shuffle(
      x, x, [](int i) { return i | N; }, EveryLane());
}

// Horizontal reductions, always in the same tree: halves are folded onto each other.
template <int N = kLanes / 2>
IMPLEX_INLINE float sum_lanes(vf x) {
  x += upper<N>(x);
  if constexpr (N > 1) return sum_lanes<N / 2>(x);
  return x[0];
}
template <int N = kLanes / 2>
IMPLEX_INLINE float max_lanes(vf x) {
  x = max(x, upper<N>(x));
  if constexpr (N > 1) return max_lanes<N / 2>(x);
  return x[0];
}

// Up to kLanes values from a row's tail, the rest `fill`; so that a row has one code path whatever its length.
IMPLEX_INLINE vf load_tail(const float* p, int64_t n, float fill) {
  float lane[kLanes];
  for (int i = 0; i < kLanes; ++i) lane[i] = i < n ? p[i] : fill;
  return load(lane);
}

// Element access by runtime dtype (IX_F32, else IX_BF16). `left` values remain in the row from i on.
IMPLEX_INLINE vf get(const void* row, int32_t dtype, int64_t i, int64_t left) {
  if (dtype == IX_F32) {
    const float* p = static_cast<const float*>(row) + i;
    return left >= kLanes ? load(p) : load_tail(p, left, 0.0f);
  }
  const uint16_t* p = static_cast<const uint16_t*>(row) + i;
  if (left >= kLanes) return load_bf16(p);
  float lane[kLanes];
  for (int j = 0; j < kLanes; ++j) lane[j] = j < left ? scalar_from_bf16(p[j]) : 0.0f;
  return load(lane);
}
IMPLEX_INLINE void put(void* row, int32_t dtype, int64_t i, int64_t left, vf x) {
  if (dtype == IX_F32) {
    float* p = static_cast<float*>(row) + i;
    if (left >= kLanes) {
      store(p, x);
      return;
    }
    for (int j = 0; j < left; ++j) p[j] = x[j];
    return;
  }
  uint16_t* p = static_cast<uint16_t*>(row) + i;
  const vh bits = narrow(x);
  if (left >= kLanes) {
    *reinterpret_cast<vh_unaligned*>(p) = bits;
    return;
  }
  for (int j = 0; j < left; ++j) p[j] = bits[j];
}

// e^x. x = n ln 2 + r with |r| <= ln 2 / 2, ln 2 split in two; Taylor polynomial of degree 7 in r (remainder below 1e-8
// relative), scaled by 2^n. Relative error under 2 units in the last place for -87.3 < x < 88.7; 0 below -87.3; x
// above 88.7 is clamped; NaN stays NaN.
IMPLEX_INLINE vf exp(vf x) {
  const vf clamped = min(max(x, splat(-87.3365448f)), splat(88.7228394f));
  const vf shifted =
      clamped * 1.44269504088896341f + 12582912.0f;  // 1.5 * 2^23: rounds to an integer in the low mantissa bits
  const vf n = shifted - 12582912.0f;
  vf r = clamped - n * 0.693145751953125f;
  r = r - n * 1.42860682030941723212e-6f;
  vf p = splat(1.9841269841e-4f);
  p = p * r + 1.3888888889e-3f;
  p = p * r + 8.3333333333e-3f;
  p = p * r + 4.1666666667e-2f;
  p = p * r + 1.6666666667e-1f;
  p = p * r + 0.5f;
  p = p * r * r + r + 1.0f;
  // 2^n in two factors, so that n = 128 and n = -126 do not leave the exponent's range.
  const vi ni = __builtin_convertvector(n, vi);
  const vi half = ni >> 1;
  const vf low = reinterpret_cast<vf>((half + 127) << 23);
  const vf high = reinterpret_cast<vf>((ni - half + 127) << 23);
  const vf result = p * low * high;
  const vf kept = x < splat(-87.3365448f) ? vf{} : result;
  return x == x ? kept : x;
}

IMPLEX_INLINE vf sigmoid(vf x) { return 1.0f / (1.0f + exp(-x)); }

// Absolute error below 1e-7. Near zero, where 1 - 2 / (e^2x + 1) cancels, the Taylor polynomial of degree 9: its
// remainder below 0.25 is less than 1e-8 of the value.
IMPLEX_INLINE vf tanh(vf x) {
  const vf z = x < vf{} ? -x : x;
  const vf far = 1.0f - 2.0f / (exp(2.0f * z) + 1.0f);
  const vf square = z * z;
  vf p = splat(2.1869488536e-2f);
  p = p * square - 5.3968253968e-2f;
  p = p * square + 1.3333333333e-1f;
  p = p * square - 3.3333333333e-1f;
  const vf near = z + z * square * p;
  const vf magnitude = z < splat(0.25f) ? near : far;
  return x < vf{} ? -magnitude : magnitude;
}

// What backend.h calls a soft cap.
IMPLEX_INLINE vf soft_cap(vf x, float cap) { return cap * tanh(x * (1.0f / cap)); }

// Its derivative, from its result.
IMPLEX_INLINE vf soft_cap_slope(vf capped, float cap) {
  const vf share = capped * (1.0f / cap);
  return 1.0f - share * share;
}

// erfc(|x|) by the rational Chebyshev fit of Press et al., Numerical Recipes (1992) section 6.2: relative error below
// 1.2e-7; rounding z and z² to f32 adds (10 + 2 z²) 2^-24 in the tail, where the value itself vanishes.
IMPLEX_INLINE vf erfc_of_magnitude(vf z) {
  const vf t = 1.0f / (1.0f + 0.5f * z);
  vf p = splat(0.17087277f);
  p = p * t - 0.82215223f;
  p = p * t + 1.48851587f;
  p = p * t - 1.13520398f;
  p = p * t + 0.27886807f;
  p = p * t - 0.18628806f;
  p = p * t + 0.09678418f;
  p = p * t + 0.37409196f;
  p = p * t + 1.00002368f;
  p = p * t - 1.26551223f;
  return t * exp(p - z * z);
}

// x Φ(x).
IMPLEX_INLINE vf gelu(vf x) {
  const vf z = (x < vf{} ? -x : x) * 0.70710678118654752f;
  const vf tail = 0.5f * erfc_of_magnitude(z);
  return x * (x < vf{} ? tail : 1.0f - tail);
}

// 0.5 x (1 + tanh(√(2/π) (x + 0.044715 x³))), by tanh y = 2 sigmoid(2y) - 1.
IMPLEX_INLINE vf gelu_tanh(vf x) {
  const vf y = 0.79788456080286536f * (x + 0.044715f * x * x * x);
  return x * sigmoid(2.0f * y);
}

IMPLEX_INLINE vf activate(vf x, int32_t activation) {
  switch (activation) {
    case IX_ACT_SILU:
      return x * sigmoid(x);
    case IX_ACT_GELU:
      return gelu(x);
    case IX_ACT_GELU_TANH:
      return gelu_tanh(x);
    default:
      return x;
  }
}

// A number of rows as a type.
template <int R>
struct RowCount {
  static constexpr int count = R;
};

// Calls body with the number of rows of the next register tile, `left` but R at the most: every row runs the same code.
template <int R, typename F>
IMPLEX_INLINE void for_row_count(int64_t left, const F& body) {
  if constexpr (R > 1) {
    if (left < R) return for_row_count<R - 1>(left, body);
  }
  body(RowCount<R>{});
}

}  // namespace
}  // namespace implex::cpu::IMPLEX_KERNELS
