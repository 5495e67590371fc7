// Backward kernels that work on one row at a time: norms and activations.
#include "cpu/kernels/entries.h"
#include "cpu/kernels/simd.h"

namespace implex::cpu::IMPLEX_KERNELS {
namespace {

// Derivative of act(x); exp(-x²/2)/√(2π) is the normal density.
IMPLEX_INLINE vf activation_slope(vf x, int32_t activation) {
  switch (activation) {
    case IX_ACT_SILU: {
      const vf s = sigmoid(x);
      return s * (1.0f + x * (1.0f - s));
    }
    case IX_ACT_GELU: {
      const vf z = (x < vf{} ? -x : x) * 0.70710678118654752f;
      const vf tail = 0.5f * erfc_of_magnitude(z);
      return (x < vf{} ? tail : 1.0f - tail) + x * exp(-0.5f * x * x) * 0.39894228040143268f;
    }
    case IX_ACT_GELU_TANH: {
      const vf inner = 0.79788456080286536f * (x + 0.044715f * x * x * x);
      const vf s = sigmoid(2.0f * inner);
      const vf slope = 0.79788456080286536f * (1.0f + 0.134145f * x * x);
      return s + x * 2.0f * s * (1.0f - s) * slope;
    }
    default:
      return splat(1.0f);
  }
}

IMPLEX_INLINE void add_to(float* sum, int64_t i, int64_t left, vf x) {
  put(sum, IX_F32, i, left, get(sum, IX_F32, i, left) + x);
}

}  // namespace

// With x̂ the normalised row, s its scale and g = grad * gamma: in_grad = s (g - [mean g] - x̂ mean(g x̂)), the bracket
// for layer norm only.
void norm_backward_row(const void* in, int32_t in_dtype, int64_t n, int32_t kind, const float* gamma, float eps,
                       const void* grad, int32_t grad_dtype, void* in_grad, int32_t in_grad_dtype, int32_t accumulate,
                       float* gamma_grad, float* beta_grad) {
  const float count = static_cast<float>(n);
  float mean = 0.0f;
  if (kind == IX_NORM_LAYER) {
    vf total = vf{};
    for (int64_t i = 0; i < n; i += kLanes) total += get(in, in_dtype, i, n - i);
    mean = sum_lanes(total) / count;
  }
  vf squares = vf{};
  for (int64_t i = 0; i < n; i += kLanes) {
    vf x = get(in, in_dtype, i, n - i) - mean;
    for (int64_t j = n - i; j < kLanes; ++j) x[j] = 0.0f;
    squares += x * x;
  }
  const float scale = 1.0f / __builtin_sqrtf(sum_lanes(squares) / count + eps);
  vf with_x = vf{};
  vf alone = vf{};
  for (int64_t i = 0; i < n; i += kLanes) {
    const int64_t left = n - i;
    const vf normed = (get(in, in_dtype, i, left) - mean) * scale;
    const vf upstream = get(grad, grad_dtype, i, left);  // zero past the row's end, so the padding adds nothing below
    const vf g = gamma ? upstream * get(gamma, IX_F32, i, left) : upstream;
    with_x += g * normed;
    alone += g;
    if (gamma_grad) add_to(gamma_grad, i, left, upstream * normed);
    if (beta_grad) add_to(beta_grad, i, left, upstream);
  }
  const float mean_with_x = sum_lanes(with_x) / count;
  const float mean_alone = kind == IX_NORM_LAYER ? sum_lanes(alone) / count : 0.0f;
  for (int64_t i = 0; i < n; i += kLanes) {
    const int64_t left = n - i;
    const vf normed = (get(in, in_dtype, i, left) - mean) * scale;
    const vf upstream = get(grad, grad_dtype, i, left);
    const vf g = gamma ? upstream * get(gamma, IX_F32, i, left) : upstream;
    vf x = (g - mean_alone - normed * mean_with_x) * scale;
    if (accumulate) x += get(in_grad, in_grad_dtype, i, left);
    put(in_grad, in_grad_dtype, i, left, x);
  }
}

void glu_backward_row(const void* gate, const void* up, const void* grad, int32_t dtype, int64_t n, int32_t activation,
                      void* gate_grad, void* up_grad) {
  for (int64_t i = 0; i < n; i += kLanes) {
    const int64_t left = n - i;
    const vf x = get(gate, dtype, i, left);
    const vf g = get(grad, dtype, i, left);
    vf through = g;
    vf for_up = g;
    if (up) {
      through = g * get(up, dtype, i, left);
      for_up = g * activate(x, activation);
    }
    put(gate_grad, dtype, i, left, through * activation_slope(x, activation));
    if (up) put(up_grad, dtype, i, left, for_up);
  }
}

}  // namespace implex::cpu::IMPLEX_KERNELS
