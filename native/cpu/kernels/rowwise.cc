// Kernels that work on one row at a time: norms, gated activations, rotary positions, dot products.
#include "cpu/kernels/entries.h"
#include "cpu/kernels/simd.h"

namespace implex::cpu::IMPLEX_KERNELS {

// RMS norm: x / sqrt(mean(x²) + eps) * gamma. Layer norm: (x - mean) / sqrt(var + eps) * gamma + beta, variance in a
// second pass (no cancellation). in and out may be the same row.
void norm_row(const void* in, int32_t in_dtype, int64_t n, int32_t kind, const float* gamma, const float* beta,
              float eps, void* out, int32_t out_dtype) {
  float mean = 0.0f;
  if (kind == IX_NORM_LAYER) {
    vf total = vf{};
    for (int64_t i = 0; i < n; i += kLanes) total += get(in, in_dtype, i, n - i);
    mean = sum_lanes(total) / static_cast<float>(n);
  }
  vf squares = vf{};
  for (int64_t i = 0; i < n; i += kLanes) {
    const int64_t left = n - i;
    vf x = get(in, in_dtype, i, left) - mean;
    if (kind == IX_NORM_LAYER && left < kLanes) {
      for (int64_t j = left; j < kLanes; ++j) x[j] = 0.0f;  // the padding is not part of the variance
    }
    squares += x * x;
  }
  // Squares that overflow f32 would make the scale 0 and the row zeros, which nobody notices; NaN is reported with the
  // loss.
  const float spread = sum_lanes(squares) / static_cast<float>(n) + eps;
  const float scale = spread < __builtin_inff() ? 1.0f / __builtin_sqrtf(spread) : __builtin_nanf("");
  for (int64_t i = 0; i < n; i += kLanes) {
    const int64_t left = n - i;
    vf x = (get(in, in_dtype, i, left) - mean) * scale;
    if (gamma) x *= get(gamma, IX_F32, i, left);
    if (beta) x += get(beta, IX_F32, i, left);
    put(out, out_dtype, i, left, x);
  }
}

void glu_row(const void* gate, const void* up, int32_t dtype, int64_t n, int32_t activation, void* out) {
  for (int64_t i = 0; i < n; i += kLanes) {
    const int64_t left = n - i;
    vf x = activate(get(gate, dtype, i, left), activation);
    if (up) x *= get(up, dtype, i, left);
    put(out, dtype, i, left, x);
  }
}

void rope_row(void* row, int32_t dtype, int32_t heads, int32_t head_dim, int32_t rotary_dim, const float* cosines,
              const float* sines, int32_t inverse) {
  const int32_t half = rotary_dim / 2;
  for (int32_t head = 0; head < heads; ++head) {
    void* first = dtype == IX_F32 ? static_cast<void*>(static_cast<float*>(row) + head * head_dim)
                                  : static_cast<void*>(static_cast<uint16_t*>(row) + head * head_dim);
    void* second = dtype == IX_F32 ? static_cast<void*>(static_cast<float*>(first) + half)
                                   : static_cast<void*>(static_cast<uint16_t*>(first) + half);
    for (int32_t i = 0; i < half; i += kLanes) {
      const int64_t left = half - i;
      const vf x = get(first, dtype, i, left);
      const vf y = get(second, dtype, i, left);
      const vf c = get(cosines, IX_F32, i, left);
      const vf s = inverse ? -get(sines, IX_F32, i, left) : get(sines, IX_F32, i, left);
      put(first, dtype, i, left, x * c - y * s);
      put(second, dtype, i, left, y * c + x * s);
    }
  }
}

float dot(const float* a, const float* b, int64_t n) {
  vf total = vf{};
  for (int64_t i = 0; i < n; i += kLanes) total += get(a, IX_F32, i, n - i) * get(b, IX_F32, i, n - i);
  return sum_lanes(total);
}

void convert_row(const void* in, int32_t in_dtype, int64_t n, void* out, int32_t out_dtype) {
  for (int64_t i = 0; i < n; i += kLanes) put(out, out_dtype, i, n - i, get(in, in_dtype, i, n - i));
}

void add_scaled(const float* in, float scale, int64_t n, float* out) {
  for (int64_t i = 0; i < n; i += kLanes)
    put(out, IX_F32, i, n - i, get(out, IX_F32, i, n - i) + get(in, IX_F32, i, n - i) * scale);
}

void add_row(const void* in, int32_t dtype, int64_t n, float* out) {
  for (int64_t i = 0; i < n; i += kLanes)
    put(out, IX_F32, i, n - i, get(out, IX_F32, i, n - i) + get(in, dtype, i, n - i));
}

void scaled_add_row(const void* in, int32_t in_dtype, float scale, const float* residual, int64_t n, void* out,
                    int32_t out_dtype) {
  for (int64_t i = 0; i < n; i += kLanes) {
    const int64_t left = n - i;
    vf x = get(in, in_dtype, i, left) * scale;
    if (residual) x += get(residual, IX_F32, i, left);
    put(out, out_dtype, i, left, x);
  }
}

}  // namespace implex::cpu::IMPLEX_KERNELS
