// The processor's rate of multiply-adds with these instructions: independent chains in registers, no memory. What
// products are held against.
#if defined(__AVX512BF16__)
#include <immintrin.h>
#endif

#include "cpu/kernels/entries.h"
#include "cpu/kernels/simd.h"

namespace implex::cpu::IMPLEX_KERNELS {

double multiply_add(int64_t rounds, int32_t dtype) {
  constexpr int kChains = 12;  // latency times issue rate of current processors is 8 to 10
  vf acc[kChains];
  for (int i = 0; i < kChains; ++i) acc[i] = splat(static_cast<float>(i));
  vf x = splat(0.99999f);
  vf y = splat(1e-6f);
  // Opaque, so that the compiler can fold neither operand nor chain.
  asm volatile("" : "+m"(x), "+m"(y));
#if defined(__AVX512BF16__)
  if (dtype != IX_F32) {
    const __m512bh a = reinterpret_cast<__m512bh>(x);
    const __m512bh b = reinterpret_cast<__m512bh>(y);
    for (int64_t r = 0; r < rounds; ++r) {
#pragma GCC unroll 12
      for (int i = 0; i < kChains; ++i)
        acc[i] = reinterpret_cast<vf>(_mm512_dpbf16_ps(reinterpret_cast<__m512>(acc[i]), a, b));
    }
  } else
#endif
  {
    for (int64_t r = 0; r < rounds; ++r) {
#pragma GCC unroll 12
      for (int i = 0; i < kChains; ++i) acc[i] = acc[i] * x + y;
    }
  }
  vf total = vf{};
  for (int i = 0; i < kChains; ++i) total += acc[i];
  asm volatile("" : : "m"(total));
#if defined(__AVX512BF16__)
  const int per_lane = dtype != IX_F32 ? 4 : 2;
#else
  const int per_lane = 2;
  (void)dtype;
#endif
  return static_cast<double>(rounds) * kChains * kLanes * per_lane;
}

}  // namespace implex::cpu::IMPLEX_KERNELS
