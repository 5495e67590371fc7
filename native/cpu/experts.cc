// Mixtures of experts: the choice of each token's experts, the weighted sum of what they give, and both backward.
#include <algorithm>
#include <cmath>
#include <new>
#include <vector>

#include "cpu/device.h"

namespace implex::cpu {

namespace {

const float* floats_of(const ix_mat* m, int64_t row) { return reinterpret_cast<const float*>(row_of(m, row)); }

bool is_f32(const ix_mat* m, int64_t rows, int64_t cols) {
  return m->dtype == IX_F32 && m->rows == rows && m->cols == cols;
}

// e^(logit - the largest) of a row of logits, and their sum in the row's order.
double exponentials(const float* logits, int64_t count, double* to) {
  const double top = static_cast<double>(*std::max_element(logits, logits + count));
  double sum = 0;
  for (int64_t i = 0; i < count; ++i) sum += to[i] = std::exp(static_cast<double>(logits[i]) - top);
  return sum;
}

// Runs body(row, scratch of `width` doubles) for all rows; false when there is no memory.
template <typename F>
bool for_each_row_with(int64_t rows, int64_t width, const F& body) {
  std::vector<double> scratch;
  try {
    scratch.resize(static_cast<size_t>(rows * width));
  } catch (const std::bad_alloc&) {
    return false;
  }
  for_each_row(rows, 30.0 * static_cast<double>(width),
               [&](int64_t row) { body(row, &scratch[static_cast<size_t>(row * width)]); });
  return true;
}

}  // namespace

int32_t top_experts(ix_device*, const ix_mat* logits, int32_t count, int32_t normalize, int32_t* experts,
                    float* weights, ix_status* status) {
  if (logits->dtype != IX_F32 || count < 1 || count > logits->cols)
    return fail(status, IX_INVALID, "top_experts: %d of %lld experts, or logits that are not f32", count,
                static_cast<long long>(logits->cols));
  const int64_t all = logits->cols;
  const bool done = for_each_row_with(logits->rows, all, [&](int64_t row, double* e) {
    const float* z = floats_of(logits, row);
    int32_t* chosen = experts + row * count;
    // A logit that is no number compares false with everything: such a row chooses the first experts, and its weights
    // carry the NaN on.
    for (int32_t k = 0; k < count; ++k) {
      int32_t best = -1;
      for (int32_t i = 0; i < all; ++i) {
        if (std::find(chosen, chosen + k, i) != chosen + k) continue;
        if (best < 0 || z[i] > z[best]) best = i;
      }
      chosen[k] = best;
    }
    double sum = exponentials(z, all, e);
    if (normalize) {
      sum = 0;
      for (int32_t k = 0; k < count; ++k) sum += e[chosen[k]];
    }
    for (int32_t k = 0; k < count; ++k) weights[row * count + k] = static_cast<float>(e[chosen[k]] / sum);
  });
  if (!done)
    return fail(status, IX_OUT_OF_MEMORY, "top_experts: out of memory for %lld rows",
                static_cast<long long>(logits->rows));
  return IX_OK;
}

int32_t top_experts_backward(ix_device*, const ix_mat* logits, int32_t count, int32_t normalize, const int32_t* experts,
                             const float* weights_grad, const ix_mat* logits_grad, ix_status* status) {
  if (logits->dtype != IX_F32 || !is_f32(logits_grad, logits->rows, logits->cols) || count < 1 || count > logits->cols)
    return fail(status, IX_INVALID, "top_experts_backward: shapes or dtypes disagree");
  const int64_t all = logits->cols;
  const bool done = for_each_row_with(logits->rows, all, [&](int64_t row, double* e) {
    const int32_t* chosen = experts + row * count;
    const float* grad = weights_grad + row * count;
    float* out = reinterpret_cast<float*>(mutable_row_of(logits_grad, row));
    double sum = exponentials(floats_of(logits, row), all, e);
    if (normalize) {
      sum = 0;
      for (int32_t k = 0; k < count; ++k) sum += e[chosen[k]];
    }
    double mean = 0;  // of the gradients, by weight
    for (int32_t k = 0; k < count; ++k) mean += e[chosen[k]] / sum * static_cast<double>(grad[k]);
    for (int64_t i = 0; i < all; ++i) out[i] = normalize ? 0.0f : static_cast<float>(-e[i] / sum * mean);
    for (int32_t k = 0; k < count; ++k)
      out[chosen[k]] = static_cast<float>(e[chosen[k]] / sum * (static_cast<double>(grad[k]) - mean));
  });
  if (!done)
    return fail(status, IX_OUT_OF_MEMORY, "top_experts_backward: out of memory for %lld rows",
                static_cast<long long>(logits->rows));
  return IX_OK;
}

int32_t combine_experts(ix_device* device, const ix_mat* in, const int32_t* places, const float* weights, int32_t count,
                        const ix_mat* residual, const ix_mat* out, ix_status* status) {
  if (count < 1 || !is_f32(in, out->rows * count, out->cols) || !is_f32(out, out->rows, out->cols) ||
      (residual != nullptr && !is_f32(residual, out->rows, out->cols)))
    return fail(status, IX_INVALID, "combine_experts: shapes or dtypes disagree");
  for_each_row(out->rows, static_cast<double>(out->cols) * count, [&](int64_t row) {
    auto* to = reinterpret_cast<float*>(mutable_row_of(out, row));
    if (residual == nullptr) {
      std::fill(to, to + out->cols, 0.0f);
    } else if (residual->data != out->data) {
      std::copy(floats_of(residual, row), floats_of(residual, row) + out->cols, to);
    }
    for (int32_t k = 0; k < count; ++k)
      device->kernels->add_scaled(floats_of(in, places[row * count + k]), weights[row * count + k], out->cols, to);
  });
  return IX_OK;
}

int32_t combine_experts_backward(ix_device* device, const ix_mat* grad, const ix_mat* in, const int32_t* places,
                                 const float* weights, int32_t count, const ix_mat* in_grad, float* weights_grad,
                                 ix_status* status) {
  if (count < 1 || grad->dtype != IX_F32 || !is_f32(in, grad->rows * count, grad->cols) || in_grad->rows != in->rows ||
      in_grad->cols != in->cols)
    return fail(status, IX_INVALID, "combine_experts_backward: shapes or dtypes disagree");
  for_each_row(grad->rows, 2.0 * static_cast<double>(grad->cols) * count, [&](int64_t row) {
    for (int32_t k = 0; k < count; ++k) {
      const int64_t at = row * count + k;
      const int64_t place = places[at];
      weights_grad[at] = device->kernels->dot(floats_of(grad, row), floats_of(in, place), grad->cols);
      device->kernels->scaled_add_row(row_of(grad, row), IX_F32, weights[at], nullptr, grad->cols,
                                      mutable_row_of(in_grad, place), in_grad->dtype);
    }
  });
  return IX_OK;
}

}  // namespace implex::cpu
