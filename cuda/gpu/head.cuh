// What the kernels of the language-model head share: their task, the running log-sum-exp of a row, a logit's gradient.
#pragma once

#include "device.h"
#include "gpu/exponential.cuh"
#include "gpu/mma.cuh"
#include "host/head_plan.h"

namespace implex::cuda {

// Products of hidden [rows, depth] with rows [first, first + columns) of the weight, chunk by chunk. Forward: each
// chunk leaves (maximum, sum of exponentials) in partials [chunks, rows] and the target's logit where it has it.
// Backward: the gradients of the logits, in the products' dtype, zero from `columns` to the stride. Kernels with
// kCapped put the cap on each product, and give the gradients of the products.
struct HeadTask {
  const void* hidden;
  int64_t hidden_stride;
  const void* weight;  // of row `first`
  int64_t rows, columns, depth;
  const int32_t* targets;  // [rows]
  int32_t first;           // column of the vocabulary that column 0 is
  SoftCap cap;
  // forward
  float2* partials;
  float* target_logits;  // [rows]
  // backward
  const float* lse;
  const float* grad;
  void* gradients;
  int64_t gradient_stride;
};

struct RowSum {
  float top, total;
};

// Adds kCount logits a lane to a row's running sum; the row's logits are spread over kLanes neighbouring lanes, which
// share the maximum while each keeps a total of its own. At least one of the row's logits must be more than kNever.
// `value(i)` must take constants.
template <int kCount, int kLanes, typename F>
__device__ inline void fold_row(RowSum& s, const F& value) {
  float most = kNever;
#pragma unroll
  for (int i = 0; i < kCount; ++i) most = fmaxf(most, value(i));
#pragma unroll
  for (int step = 1; step < kLanes; step *= 2) most = fmaxf(most, __shfl_xor_sync(kAllLanes, most, step));
  const float next = fmaxf(s.top, most);
  const float shift = next * kLog2e;
  float total = s.total * exp2_fast((s.top - next) * kLog2e);
#pragma unroll
  for (int i = 0; i < kCount; ++i) total += exp2_fast(fmaf(value(i), kLog2e, -shift));
  s = {next, total};
}

// The lanes' totals together.
template <int kLanes>
__device__ inline float row_total(float total) {
#pragma unroll
  for (int step = 1; step < kLanes; step *= 2) total += __shfl_xor_sync(kAllLanes, total, step);
  return total;
}

// Two partial sums of one row, in this order.
__device__ inline RowSum merge(const RowSum& a, const RowSum& b) {
  const float top = fmaxf(a.top, b.top);
  return {top, a.total * exp2_fast((a.top - top) * kLog2e) + b.total * exp2_fast((b.top - top) * kLog2e)};
}

// d loss / d logit = -grad (softmax - [target]) as grad is that of ln p: grad ([target] - p). Near p = 1 the target's
// p - 1 cancels, so it is expm1.
__device__ inline float logit_gradient(float logit, float lse, float grad, bool target) {
  const float below = logit - lse;
  return target ? -grad * expm1f(below) : -grad * exp2_fast(below * kLog2e);
}

template <bool kCapped>
__device__ inline float logit_of(const SoftCap& cap, float product) {
  return kCapped ? cap.cap * tanh_fast(product * cap.inverse) : product;
}
// What the gradient of the logit is multiplied by.
template <bool kCapped>
__device__ inline float logit_slope(const SoftCap& cap, float logit) {
  return kCapped ? cap_slope(logit * cap.inverse) : 1.0f;
}
template <bool kCapped>
__device__ inline float product_gradient(const SoftCap& cap, float logit, float lse, float grad, bool target) {
  const float gradient = logit_gradient(logit, lse, grad, target);
  return kCapped ? gradient * logit_slope<kCapped>(cap, logit) : gradient;
}

// Which kernel: by shapes, alignment and the card. The hopper kernel makes gradients of at most 2^31 rows of columns.
bool hopper_serves(const ix_device* device, int32_t dtype, const HeadTask& task);
bool mma_serves(int32_t dtype, const HeadTask& task);
int32_t head_hopper(const Call& call, const HeadTask& task, bool backward);
int32_t head_mma(const Call& call, const HeadTask& task, bool backward);
// Whichever serves; the plain kernel serves all.
int32_t head(const Call& call, int32_t dtype, const HeadTask& task, bool backward);

}  // namespace implex::cuda
