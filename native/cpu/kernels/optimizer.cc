// Optimiser updates over flat arrays, with the rules and the order of operations of PyTorch's single-tensor
// implementations.
#include "cpu/kernels/entries.h"
#include "cpu/kernels/simd.h"

namespace implex::cpu::IMPLEX_KERNELS {
namespace {

IMPLEX_INLINE vf root(vf x) {
  vf y;
  for (int i = 0; i < kLanes; ++i) y[i] = __builtin_sqrtf(x[i]);
  return y;
}

}  // namespace

void adamw(int64_t n, float learning_rate, float decay, float beta1, float beta2, float epsilon, float correction1,
           float root_correction2, float scale, float* parameters, const float* gradients, float* first,
           float* second) {
  const float shrink = 1.0f - learning_rate * decay;
  const float step = learning_rate / correction1;
  for (int64_t i = 0; i < n; i += kLanes) {
    const int64_t left = n - i;
    const vf g = get(gradients, IX_F32, i, left) * scale;
    vf m = get(first, IX_F32, i, left);
    m = m + (g - m) * (1.0f - beta1);
    const vf v = get(second, IX_F32, i, left) * beta2 + g * g * (1.0f - beta2);
    const vf p = get(parameters, IX_F32, i, left) * shrink - step * (m / (root(v) / root_correction2 + epsilon));
    put(first, IX_F32, i, left, m);
    put(second, IX_F32, i, left, v);
    put(parameters, IX_F32, i, left, p);
  }
}

void rmsprop(int64_t n, float learning_rate, float decay, float alpha, float epsilon, float momentum, float scale,
             float* parameters, const float* gradients, float* square, float* buffer) {
  for (int64_t i = 0; i < n; i += kLanes) {
    const int64_t left = n - i;
    vf p = get(parameters, IX_F32, i, left);
    const vf g = get(gradients, IX_F32, i, left) * scale + p * decay;
    const vf v = get(square, IX_F32, i, left) * alpha + g * g * (1.0f - alpha);
    vf update = g / (root(v) + epsilon);
    if (momentum > 0.0f) {
      update = get(buffer, IX_F32, i, left) * momentum + update;
      put(buffer, IX_F32, i, left, update);
    }
    put(square, IX_F32, i, left, v);
    put(parameters, IX_F32, i, left, p - learning_rate * update);
  }
}

void sgd(int64_t n, float learning_rate, float decay, float momentum, int32_t first_step, float scale,
         float* parameters, const float* gradients, float* buffer) {
  for (int64_t i = 0; i < n; i += kLanes) {
    const int64_t left = n - i;
    const vf p = get(parameters, IX_F32, i, left);
    vf g = get(gradients, IX_F32, i, left) * scale + p * decay;
    if (momentum > 0.0f) {
      if (!first_step) g = get(buffer, IX_F32, i, left) * momentum + g;
      put(buffer, IX_F32, i, left, g);
    }
    put(parameters, IX_F32, i, left, p - learning_rate * g);
  }
}

double sum_of_squares(const float* values, int64_t n) {
  double lane[kLanes] = {};
  for (int64_t i = 0; i < n; i += kLanes) {
    const vf x = get(values, IX_F32, i, n - i);
    for (int j = 0; j < kLanes; ++j) lane[j] += static_cast<double>(x[j]) * static_cast<double>(x[j]);
  }
  double sum = 0;
  for (int j = 0; j < kLanes; ++j) sum += lane[j];
  return sum;
}

}  // namespace implex::cpu::IMPLEX_KERNELS
