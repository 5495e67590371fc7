// Kernels of linear_logprob: logits folded into a running log-sum-exp, and the gradient of a row of logits.
#include "cpu/kernels/entries.h"
#include "cpu/kernels/simd.h"

namespace implex::cpu::IMPLEX_KERNELS {

void soft_cap_row(float* c, int64_t n, float cap) {
  for (int64_t i = 0; i < n; i += kLanes) put(c, IX_F32, i, n - i, soft_cap(get(c, IX_F32, i, n - i), cap));
}

void fold_logits(const float* c, int64_t n, float* maximum, float* sum) {
  const float lowest = -3.0e38f;
  vf top = splat(lowest);
  for (int64_t i = 0; i < n; i += kLanes)
    top = max(top, n - i >= kLanes ? load(c + i) : load_tail(c + i, n - i, lowest));
  const float tile = max_lanes(top);
  const float next = tile > *maximum ? tile : *maximum;
  vf total = vf{};
  for (int64_t i = 0; i < n; i += kLanes)
    total += exp((n - i >= kLanes ? load(c + i) : load_tail(c + i, n - i, lowest)) - next);
  const vf rescale = exp(splat(*maximum - next));
  *sum = *sum * rescale[0] + sum_lanes(total);
  *maximum = next;
}

void logit_gradient_row(const float* c, int64_t n, float cap, float lse, float grad, int64_t target, void* out,
                        int32_t out_dtype) {
  for (int64_t i = 0; i < n; i += kLanes) {
    const int64_t left = n - i;
    const vf logit = left >= kLanes ? load(c + i) : load_tail(c + i, left, lse);
    const vf z = logit - lse;
    vf x = exp(z) * -grad;
    // 1 - p of a confident target cancels; expm1 keeps its digits.
    if (target >= i && target < i + kLanes) x[target - i] = -grad * __builtin_expm1f(z[target - i]);
    if (cap > 0.0f) x *= soft_cap_slope(logit, cap);
    put(out, out_dtype, i, left, x);
  }
}

}  // namespace implex::cpu::IMPLEX_KERNELS
