// Plain double-precision references of single operations, and bounds on what f32 arithmetic may differ from them by.
#pragma once

#include <cmath>
#include <vector>

#include "support.h"

namespace implex::test {

inline double reference_activation(int32_t activation, double x) {
  switch (activation) {
    case IX_ACT_SILU:
      return x / (1 + std::exp(-x));
    case IX_ACT_GELU:
      return 0.5 * x * std::erfc(-x / std::sqrt(2.0));
    case IX_ACT_GELU_TANH:
      // 1 + tanh y = 2 / (1 + e^-2y), which does not cancel in the lower tail.
      return x / (1 + std::exp(-2 * std::sqrt(2 / M_PI) * (x + 0.044715 * x * x * x)));
    default:
      return x;
  }
}

// Bound of the kernels' error at x.
//  silu       y = x / (1 + e^-x): e^-x to 2 ulp, then three roundings. Where e^-x overflows the kernel's e^ stays at
//             the largest f32, so that |y| <= |x| / 3.4e38 instead of less.
//  gelu       lower tail x Φ(x) with Φ by an erfc fit of relative error 1.2e-7, times e^(p - z²), z² = x²/2:
//             rounding z and z² moves the exponent by up to 4 z² u. Below e^-87.3 the kernel's e^ is 0. Upper side:
//             x (1 - tail).
//  gelu_tanh  as silu of 2y, whose rounding (5 operations) moves the exponent by 6 |2y| u.
inline double activation_bound(int32_t activation, double x) {
  const double y = std::fabs(reference_activation(activation, x));
  const double underflow = std::fabs(x) * 3e-38;
  switch (activation) {
    case IX_ACT_SILU:
      return 8 * kU * y + underflow;
    case IX_ACT_GELU: {
      const double tail = 0.5 * std::erfc(std::fabs(x) / std::sqrt(2.0));
      return std::fabs(x) * tail * (1.5e-7 + (10 + 2 * x * x) * kU) + 3 * kU * y + underflow;
    }
    case IX_ACT_GELU_TANH: {
      const double argument = std::fabs(2 * std::sqrt(2 / M_PI) * (x + 0.044715 * x * x * x));
      return y * (8 + 6 * std::min(argument, 120.0)) * kU + underflow;
    }
    default:
      return 0;
  }
}

constexpr double kSlope = 1.2;  // no activation is steeper (gelu: 1.13)

inline double output_bound(int32_t dtype, double value) {
  return dtype == IX_BF16 ? kUBf16 * std::fabs(value) + 1e-38 : 0;
}

// One row of a norm in double, and a bound for each element: sums of n terms lose at most n u; a mean that is off by m
// n u shifts every element; then five roundings.
struct NormReference {
  std::vector<double> value, bound;
};
inline NormReference reference_norm(const std::vector<double>& x, int32_t kind, const float* gamma, const float* beta,
                                    double eps) {
  const double n = static_cast<double>(x.size());
  double mean = 0, magnitude = 0, squares = 0;
  for (const double v : x) mean += v / n, magnitude += std::fabs(v) / n;
  if (kind == IX_NORM_RMS) mean = magnitude = 0;
  for (const double v : x) squares += (v - mean) * (v - mean) / n;
  const double scale = 1 / std::sqrt(squares + eps);
  const double shift = (n + 2) * kU * magnitude;
  NormReference r;
  for (size_t i = 0; i < x.size(); ++i) {
    const double g = gamma ? static_cast<double>(gamma[i]) : 1;
    const double b = beta ? static_cast<double>(beta[i]) : 0;
    const double y = (x[i] - mean) * scale * g;
    r.value.push_back(y + b);
    // The shift enters the variance too, and matters there when it is not small beside the deviation.
    const double relative = (n + 8) * kU + 2 * shift * scale * (1 + shift * scale);
    r.bound.push_back(std::fabs(y) * relative + std::fabs(g) * scale * (shift + 2 * kU * std::fabs(x[i])) +
                      2 * kU * std::fabs(y + b));
  }
  return r;
}

inline std::vector<double> row_values(const Matrix& m, int64_t row) {
  std::vector<double> values;
  for (int64_t c = 0; c < m.cols(); ++c) values.push_back(m(row, c));
  return values;
}

}  // namespace implex::test
