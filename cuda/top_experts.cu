// top_experts: the `count` largest logits of each row, largest first, of equals the one with the lower index first, and
// their softmax weights: over all experts, or with `normalize` over the chosen ones.
// top_experts_backward: with w the weights, g their gradients and m = sum over k of w g, a chosen expert's logit has
// the gradient w (g - m); another's is -p m, p its softmax, or 0 with `normalize`.
//
// A warp a row. A choice is the first of those that come after the choice before, so nothing is kept or marked, and the
// row comes from the first-level cache each time. A logit that is no number is chosen last. Sums run over lanes in one
// order. Floor: the bytes of the logits over the memory's bandwidth; a launch's time in practice.
#include "device.h"
#include "gpu/reduce.cuh"

namespace implex::cuda {

namespace {

constexpr int kWarps = 4;
constexpr int32_t kNone = 0x7fffffff;

struct Choice {
  float logit;
  int32_t expert;  // kNone: nothing yet
};

__device__ inline bool comes_before(const Choice& a, const Choice& b) {
  return a.logit > b.logit || (a.logit == b.logit && a.expert < b.expert);
}

__device__ inline Choice choice_of(const float* logits, int32_t expert) {
  const float logit = logits[expert];
  return {logit == logit ? logit : -__uint_as_float(0x7f800000u), expert};
}

// Every lane gets the first of all that come after `before`, or of all where it is nothing.
__device__ inline Choice next_choice(const float* logits, int32_t all, const Choice& before, int lane) {
  Choice best = {0.0f, kNone};
  for (int32_t i = lane; i < all; i += kWarp) {
    const Choice c = choice_of(logits, i);
    if (before.expert != kNone && !comes_before(before, c)) continue;
    if (best.expert == kNone || comes_before(c, best)) best = c;
  }
#pragma unroll
  for (int step = kWarp / 2; step > 0; step /= 2) {
    const Choice other = {__shfl_xor_sync(kAllLanes, best.logit, step), __shfl_xor_sync(kAllLanes, best.expert, step)};
    if (other.expert != kNone && (best.expert == kNone || comes_before(other, best))) best = other;
  }
  return best;
}

// The sum over all experts of exp(logit - top).
__device__ inline float sum_of_all(const float* logits, int32_t all, float top, int lane) {
  float sum = 0.0f;
  for (int32_t i = lane; i < all; i += kWarp) sum += expf(logits[i] - top);
  return warp_sum(sum);
}

__global__ void __launch_bounds__(kWarps* kWarp)
    choose(const float* logits, int64_t stride, int64_t rows, int32_t all, int32_t count, int32_t normalize,
           int32_t* experts, float* weights) {
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  const int64_t row = static_cast<int64_t>(blockIdx.x) * kWarps + threadIdx.x / kWarp;
  if (row >= rows) return;
  const float* from = logits + row * stride;
  int32_t* chosen = experts + row * count;
  Choice last = {0.0f, kNone};
  float top = 0.0f, sum = 0.0f;
  for (int32_t k = 0; k < count; ++k) {
    last = next_choice(from, all, last, lane);
    const float logit = from[last.expert];
    if (k == 0) top = logit;
    sum += expf(logit - top);
    if (lane == 0) chosen[k] = last.expert;
  }
  if (normalize == 0) sum = sum_of_all(from, all, top, lane);
  __syncwarp();  // what lane 0 wrote
  for (int32_t k = lane; k < count; k += kWarp) weights[row * count + k] = expf(from[chosen[k]] - top) / sum;
}

__global__ void __launch_bounds__(kWarps* kWarp)
    choice_gradients(const float* logits, int64_t stride, int64_t rows, int32_t all, int32_t count, int32_t normalize,
                     const int32_t* experts, const float* weights_grad, float* out, int64_t out_stride) {
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  const int64_t row = static_cast<int64_t>(blockIdx.x) * kWarps + threadIdx.x / kWarp;
  if (row >= rows) return;
  const float* from = logits + row * stride;
  const int32_t* chosen = experts + row * count;
  const float* grad = weights_grad + row * count;
  float* to = out + row * out_stride;
  const float top = from[chosen[0]];
  float sum = 0.0f;
  if (normalize != 0) {
    for (int32_t k = 0; k < count; ++k) sum += expf(from[chosen[k]] - top);
  } else {
    sum = sum_of_all(from, all, top, lane);
  }
  float mean = 0.0f;  // of the gradients, by weight
  for (int32_t k = 0; k < count; ++k) mean = fmaf(expf(from[chosen[k]] - top) / sum, grad[k], mean);
  for (int32_t i = lane; i < all; i += kWarp) to[i] = normalize != 0 ? 0.0f : -(expf(from[i] - top) / sum) * mean;
  __syncwarp();  // another lane's values are written over
  for (int32_t k = lane; k < count; k += kWarp) to[chosen[k]] = expf(from[chosen[k]] - top) / sum * (grad[k] - mean);
}

bool right(const ix_mat* logits, int32_t count) {
  return logits->dtype == IX_F32 && count >= 1 && count <= logits->cols && logits->cols < kNone;
}

}  // namespace

int32_t top_experts(ix_device* device, const ix_mat* logits, int32_t count, int32_t normalize, int32_t* experts,
                    float* weights, ix_status* status) {
  Call call(device, status, "top_experts", logits->rows, logits->cols, count);
  const int32_t code = call.begin();
  if (code != IX_OK) return code;
  if (!right(logits, count)) return call.fail(IX_INVALID, "more experts than there are, or logits that are not f32");
  return call.launch(choose, blocks_of(logits->rows, kWarps), kWarps * kWarp, 0,
                     static_cast<const float*>(logits->data), logits->stride, logits->rows,
                     static_cast<int32_t>(logits->cols), count, normalize, experts, weights);
}

int32_t top_experts_backward(ix_device* device, const ix_mat* logits, int32_t count, int32_t normalize,
                             const int32_t* experts, const float* weights_grad, const ix_mat* logits_grad,
                             ix_status* status) {
  Call call(device, status, "top_experts_backward", logits->rows, logits->cols, count);
  const int32_t code = call.begin();
  if (code != IX_OK) return code;
  if (!right(logits, count) || logits_grad->dtype != IX_F32 || logits_grad->rows != logits->rows ||
      logits_grad->cols != logits->cols)
    return call.fail(IX_INVALID, "shapes or dtypes disagree");
  return call.launch(choice_gradients, blocks_of(logits->rows, kWarps), kWarps * kWarp, 0,
                     static_cast<const float*>(logits->data), logits->stride, logits->rows,
                     static_cast<int32_t>(logits->cols), count, normalize, experts, weights_grad,
                     static_cast<float*>(logits_grad->data), logits_grad->stride);
}

}  // namespace implex::cuda
