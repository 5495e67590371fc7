// Backward of the gated activations, and rotation by the negative angle as the transpose of rotation.
#include "gradient_check.h"

using namespace implex;
using namespace implex::test;

namespace {

constexpr int32_t kActivations[] = {IX_ACT_NONE, IX_ACT_SILU, IX_ACT_GELU, IX_ACT_GELU_TANH};

double slope(int32_t activation, double x) {
  const double s = 1 / (1 + std::exp(-x));
  switch (activation) {
    case IX_ACT_SILU:
      return s * (1 + x * (1 - s));
    case IX_ACT_GELU:
      return 0.5 * std::erfc(-x / std::sqrt(2.0)) + x * std::exp(-0.5 * x * x) / std::sqrt(2 * M_PI);
    case IX_ACT_GELU_TANH: {
      const double inner = std::sqrt(2 / M_PI) * (x + 0.044715 * x * x * x), t = 1 / (1 + std::exp(-2 * inner));
      return t + 2 * x * t * (1 - t) * std::sqrt(2 / M_PI) * (1 + 0.134145 * x * x);
    }
    default:
      return 1;
  }
}

// Both terms of a slope are of the form weight · polynomial with a weight that falls like e^-x or e^-x²/2: the rounded
// argument moves it by as many u as the argument is large. The rest are a few roundings of terms that may cancel.
double slope_bound(int32_t activation, double x) {
  const double a = std::fabs(x), s = 1 / (1 + std::exp(-a)), density = std::exp(-0.5 * x * x);
  switch (activation) {
    case IX_ACT_SILU:
      return (12 + a) * kU * (s + a * (1 - s) + (x > 0 ? 0 : 1 - s)) + 1e-37;
    case IX_ACT_GELU:
      return 2e-7 * std::min(1.0, std::erfc(-x / std::sqrt(2.0))) + (12 + 2 * a * a) * kU * density * (1 + a) + 2 * kU +
             1e-37;
    case IX_ACT_GELU_TANH: {
      const double inner = std::sqrt(2 / M_PI) * (a + 0.044715 * a * a * a), tail = 1 / (1 + std::exp(2 * inner));
      return (12 + 12 * std::min(inner, 60.0)) * kU * (tail * (1 + 2 * a * (1 + 0.134145 * a * a)) + (x > 0 ? 1 : 0)) +
             // 1 - s cancels where s is near 1
             4 * kU * a * (1 + 0.134145 * a * a) * (x > 0 ? 1 : 0) * (tail > 1e-9 ? 1 : 0) + 1e-36 * (1 + a * a * a);
    }
    default:
      return 0;
  }
}

}  // namespace

TEST(backward_glu_formulas) {
  Random random(300);
  std::vector<double> x, r;
  for (int i = 0; i < 60; ++i) x.push_back(random.uniform(-6, 6)), r.push_back(random.uniform(-1, 1));
  for (const int32_t activation : kActivations) {
    // First half gates, second half ups.
    const auto value = [&](const std::vector<double>& v) {
      double sum = 0;
      for (size_t i = 0; i < 30; ++i) sum += r[i] * reference_activation(activation, v[i]) * v[i + 30];
      return sum;
    };
    std::vector<double> gradient;
    for (size_t i = 0; i < 30; ++i) gradient.push_back(r[i] * slope(activation, x[i]) * x[i + 30]);
    for (size_t i = 0; i < 30; ++i) gradient.push_back(r[i] * reference_activation(activation, x[i]));
    check_differences("glu", value, x, gradient, 301);
  }
}

TEST(backward_glu) {
  Random random(310);
  constexpr int64_t kRows = 37;
  for (const int32_t dtype : {IX_F32, IX_BF16}) {
    for (const int64_t width : {1, 7, 64, 203}) {
      for (const double range : {4.0, 60.0}) {
        Matrix gate = Matrix::random(random, dtype, kRows, width, range, 1);
        Matrix up = Matrix::random(random, dtype, kRows, width, 3, 2);
        Matrix grad = Matrix::random(random, dtype, kRows, width, 2, 3);
        for (const int32_t activation : kActivations) {
          for (const bool gated : {true, false}) {
            Bounded for_gate(static_cast<size_t>(kRows * width)), for_up = for_gate;
            for (int64_t r = 0; r < kRows; ++r) {
              for (int64_t c = 0; c < width; ++c) {
                const auto at = static_cast<size_t>(r * width + c);
                const double x = gate(r, c), g = grad(r, c), through = gated ? g * up(r, c) : g;
                for_gate.value[at] = through * slope(activation, x);
                for_gate.bound[at] =
                    std::fabs(through) * slope_bound(activation, x) + 3 * kU * std::fabs(for_gate.value[at]);
                for_up.value[at] = g * reference_activation(activation, x);
                for_up.bound[at] =
                    std::fabs(g) * activation_bound(activation, x) + 2 * kU * std::fabs(for_up.value[at]);
              }
            }
            const std::string what = text("activation %d %s %s width %d range %g", activation, dtype_text(dtype),
                                          gated ? "gated" : "alone", int(width), range);
            for_each_kernels([&](KernelDevice& device) {
              const auto run = [&](int64_t first, int64_t count, Matrix& gate_out, Matrix& up_out) {
                const ix_mat x = gate.view(first, count), u = up.view(first, count), g = grad.view(first, count),
                             gate_to = gate_out.view(first, count), up_to = up_out.view(first, count);
                device.call(&ix_backend::glu_backward, activation, &x, gated ? &u : nullptr, &g, &gate_to,
                            gated ? &up_to : nullptr);
              };
              Matrix gate_grad(dtype, kRows, width, 2), up_grad(dtype, kRows, width, 1);
              run(0, kRows, gate_grad, up_grad);
              check_within((what + " gate").c_str(), gate_grad, for_gate);
              if (gated) check_within((what + " up").c_str(), up_grad, for_up);
              Matrix gate_alone(dtype, kRows, width, 2), up_alone(dtype, kRows, width, 1);
              for (int64_t row = 0; row < kRows; ++row) run(row, 1, gate_alone, up_alone);
              for (int64_t row = 0; row < kRows; ++row)
                CHECK(gate_grad.same_row(row, gate_alone, row) && up_grad.same_row(row, up_alone, row),
                      "%s: row %d differs from itself alone", what.c_str(), int(row));
            });
          }
        }
      }
    }
  }
}

TEST(backward_glu_refuses_disagreeing_shapes) {
  for_each_kernels([](KernelDevice& device) {
    Matrix a(IX_F32, 3, 4), more(IX_F32, 4, 4), half(IX_BF16, 3, 4);
    for (int64_t i = 0; i < 12; ++i) a.set(i / 4, i % 4, 1);
    const auto code = [&](ix_mat gate, const ix_mat* up, ix_mat grad, ix_mat gate_grad, const ix_mat* up_grad) {
      return device.attempt(&ix_backend::glu_backward, int32_t(IX_ACT_SILU), &gate, up, &grad, &gate_grad, up_grad);
    };
    const ix_mat view = a.view();
    Matrix b(IX_F32, 3, 4), c(IX_F32, 3, 4);
    const ix_mat other = b.view();
    CHECK(code(view, &view, view, c.view(), &other) == IX_OK, "the right shapes");
    CHECK(code(view, &view, view, other, nullptr) == IX_INVALID, "up without its gradient");
    CHECK(code(view, nullptr, view, c.view(), &other) == IX_INVALID, "a gradient without up");
    CHECK(code(view, nullptr, more.view(), other, nullptr) == IX_INVALID, "other height");
    CHECK(code(view, nullptr, half.view(), other, nullptr) == IX_INVALID, "other dtype");
  });
}

// Column j of the rotation is what it makes of the unit vector j. The inverse's columns must be its rows, exactly: with
// units every product and sum is exact.
TEST(backward_rope_is_the_transpose) {
  Random random(320);
  struct Case {
    int32_t head_dim, rotary_dim;
  };
  for (const Case& s :
       {Case{2, 2}, Case{16, 16}, Case{20, 20}, Case{20, 6}, Case{80, 20}, Case{64, 64}, Case{128, 128}}) {
    const int32_t heads = 2;
    const int64_t width = heads * s.head_dim, half = s.rotary_dim / 2;
    std::vector<float> cosines, sines;
    for (int64_t i = 0; i < width * half; ++i) {
      const double angle = random.uniform(-4, 4);
      cosines.push_back(static_cast<float>(std::cos(angle)));
      sines.push_back(static_cast<float>(std::sin(angle)));
    }
    for (const int32_t dtype : {IX_F32, IX_BF16}) {
      for_each_kernels([&](KernelDevice& device) {
        const Batch batch(device, {{0, static_cast<int32_t>(width), -1}});
        // One unit vector for each row, all at one position.
        for (const int32_t position : {0, static_cast<int32_t>(width / 2), static_cast<int32_t>(width - 1)}) {
          const std::vector<int32_t> rows(static_cast<size_t>(width), position);
          const auto rotated = [&](int32_t inverse) {
            const ix_rope rope = {cosines.data(), sines.data(), heads, s.head_dim, s.rotary_dim, inverse};
            Matrix x(dtype, width, width, 1);
            for (int64_t r = 0; r < width; ++r)
              for (int64_t c = 0; c < width; ++c) x.set(r, c, r == c ? 1 : 0);
            const ix_mat view = x.view();
            device.call(&ix_backend::rope, batch.get(), &rope, rows.data(), &view);
            CHECK(x.intact(), "rope wrote between rows");
            return x;
          };
          const Matrix forward = rotated(0), inverse = rotated(1);
          for (int64_t r = 0; r < width; ++r)
            for (int64_t c = 0; c < width; ++c)
              CHECK(forward(r, c) == inverse(c, r), "%s head size %d of %d at (%d, %d): %.9g and %.9g",
                    dtype_text(dtype), s.rotary_dim, s.head_dim, int(r), int(c), forward(r, c), inverse(c, r));
        }
      });
    }
  }
}
