// Backward of norms, and of the explicit reward's head, which is a norm and a dot product.
#include "gradient_check.h"

using namespace implex;
using namespace implex::test;

namespace {

// One row's gradients in double. x̂ normalised, s its scale, g = grad gamma:
// d in = s (g - [mean g] - x̂ mean(g x̂)), the bracket for layer norm only; d gamma = grad x̂; d beta = grad.
// `bound`: what f32 may be off by, as for the forward norm (reference.h), with the magnitudes of all three terms.
struct RowGradient {
  std::vector<double> in, in_bound, gamma, gamma_bound;
};
RowGradient row_gradient(const std::vector<double>& x, int32_t kind, const float* gamma, double eps,
                         const std::vector<double>& grad) {
  const double n = static_cast<double>(x.size());
  double mean = 0, magnitude = 0, squares = 0;
  for (const double v : x) mean += v / n, magnitude += std::fabs(v) / n;
  if (kind == IX_NORM_RMS) mean = magnitude = 0;
  for (const double v : x) squares += (v - mean) * (v - mean) / n;
  const double scale = 1 / std::sqrt(squares + eps);
  double with_x = 0, alone = 0, with_x_magnitude = 0, alone_magnitude = 0;
  for (size_t i = 0; i < x.size(); ++i) {
    const double g = grad[i] * (gamma ? static_cast<double>(gamma[i]) : 1), normed = (x[i] - mean) * scale;
    with_x += g * normed / n;
    with_x_magnitude += std::fabs(g * normed) / n;
    alone += g / n;
    alone_magnitude += std::fabs(g) / n;
  }
  if (kind == IX_NORM_RMS) alone = alone_magnitude = 0;
  const double shift = (n + 2) * kU * magnitude;
  const double relative = (n + 12) * kU + 3 * shift * scale * (1 + shift * scale);
  RowGradient r;
  for (size_t i = 0; i < x.size(); ++i) {
    const double g = grad[i] * (gamma ? static_cast<double>(gamma[i]) : 1), normed = (x[i] - mean) * scale;
    const double normed_error = scale * (shift + 2 * kU * std::fabs(x[i])) + std::fabs(normed) * relative;
    r.in.push_back(scale * (g - alone - normed * with_x));
    r.in_bound.push_back(scale *
                         ((std::fabs(g) + alone_magnitude + std::fabs(normed) * with_x_magnitude) * 3 * relative +
                          normed_error * with_x_magnitude + std::fabs(normed) * alone_magnitude * scale * shift));
    r.gamma.push_back(grad[i] * normed);
    r.gamma_bound.push_back(std::fabs(grad[i]) * (normed_error + 2 * kU * std::fabs(normed)));
  }
  return r;
}

double norm_value(const std::vector<double>& x, int32_t kind, const double* gamma, const double* beta, double eps,
                  const std::vector<double>& r) {
  const double n = static_cast<double>(x.size());
  double mean = 0, squares = 0, sum = 0;
  if (kind == IX_NORM_LAYER)
    for (const double v : x) mean += v / n;
  for (const double v : x) squares += (v - mean) * (v - mean) / n;
  for (size_t i = 0; i < x.size(); ++i) sum += r[i] * ((x[i] - mean) / std::sqrt(squares + eps) * gamma[i] + beta[i]);
  return sum;
}

struct Options {
  int32_t kind;
  int64_t width;
  double offset;
  bool has_gamma, wants_gamma, wants_beta, accumulate;
  int32_t in_dtype, grad_dtype, out_dtype;
};

void check_norm(const Options& o, uint64_t seed) {
  constexpr int64_t kRows = 75;  // more than two blocks of 32 rows of a partial sum
  Random random(seed);
  Matrix in(o.in_dtype, kRows, o.width, 1), grad = Matrix::random(random, o.grad_dtype, kRows, o.width, 2, 3);
  for (int64_t r = 0; r < kRows; ++r)
    for (int64_t c = 0; c < o.width; ++c) in.set(r, c, o.offset + random.uniform(-2, 2));
  const Matrix before = Matrix::random(random, o.out_dtype, kRows, o.width, 1, 2);
  const std::vector<float> gamma = random_vector(random, o.width, 0.5, 1.5);
  const std::vector<float> gamma_before = random_vector(random, o.width), beta_before = random_vector(random, o.width);
  const float* gamma_pointer = o.has_gamma ? gamma.data() : nullptr;
  Bounded want(static_cast<size_t>(kRows * o.width)), want_gamma(gamma.size()), want_beta(gamma.size());
  std::vector<double> gamma_magnitude = widened(gamma_before), beta_magnitude = widened(beta_before);
  want_gamma.value = gamma_magnitude;
  want_beta.value = beta_magnitude;
  for (int64_t row = 0; row < kRows; ++row) {
    const std::vector<double> g = row_values(grad, row);
    const RowGradient one = row_gradient(row_values(in, row), o.kind, gamma_pointer, static_cast<double>(1e-5f), g);
    for (size_t c = 0; c < g.size(); ++c) {
      const size_t at = static_cast<size_t>(row * o.width) + c;
      want.value[at] = one.in[c] + (o.accumulate ? before(row, static_cast<int64_t>(c)) : 0);
      want.bound[at] = one.in_bound[c] + 2 * kU * std::fabs(want.value[at]);
      want_gamma.value[c] += one.gamma[c];
      want_gamma.bound[c] += one.gamma_bound[c];
      want_beta.value[c] += g[c];
      gamma_magnitude[c] = std::fabs(gamma_magnitude[c]) + std::fabs(one.gamma[c]);
      beta_magnitude[c] = std::fabs(beta_magnitude[c]) + std::fabs(g[c]);
    }
  }
  for (size_t c = 0; c < gamma.size(); ++c) {
    want_gamma.bound[c] += (kRows + 3) * kU * gamma_magnitude[c];
    want_beta.bound[c] += (kRows + 3) * kU * beta_magnitude[c];
  }
  const std::string what = text("kind %d width %d offset %g gamma %d %s %s to %s", o.kind, int(o.width), o.offset,
                                o.has_gamma, dtype_text(o.in_dtype), dtype_text(o.grad_dtype), dtype_text(o.out_dtype));
  for_each_kernels([&](KernelDevice& device) {
    const ix_norm norm = {o.kind, gamma_pointer, nullptr, 1e-5f};
    Matrix out = before;
    std::vector<float> gamma_grad = gamma_before, beta_grad = beta_before;
    const ix_mat in_view = in.view(), grad_view = grad.view(), out_view = out.view();
    device.call(&ix_backend::norm_backward, &norm, &in_view, &grad_view, &out_view, o.accumulate ? 1 : 0,
                o.wants_gamma ? gamma_grad.data() : nullptr, o.wants_beta ? beta_grad.data() : nullptr);
    check_within((what + " input").c_str(), out, want);
    if (o.wants_gamma) check_within((what + " gamma").c_str(), gamma_grad, want_gamma);
    if (o.wants_beta) check_within((what + " beta").c_str(), beta_grad, want_beta);
    CHECK(o.wants_gamma || gamma_grad == gamma_before, "gamma's gradient was not wanted");
    CHECK(o.wants_beta || beta_grad == beta_before, "beta's gradient was not wanted");
    const auto again = [&](int64_t first, int64_t count, Matrix& to_rows) {
      const ix_mat x = in.view(first, count), g = grad.view(first, count), to = to_rows.view(first, count);
      device.call(&ix_backend::norm_backward, &norm, &x, &g, &to, o.accumulate ? 1 : 0, nullptr, nullptr);
    };
    Matrix alone = before;
    for (int64_t row = 0; row < kRows; ++row) again(row, 1, alone);
    for (int64_t row = 0; row < kRows; ++row)
      CHECK(out.same_row(row, alone, row), "%s: row %d differs from itself alone", what.c_str(), int(row));
    if (!o.accumulate && o.grad_dtype == o.out_dtype) {  // in place, as for head norms
      Matrix same = grad;
      const ix_mat both = same.view();
      device.call(&ix_backend::norm_backward, &norm, &in_view, &both, &both, 0, nullptr, nullptr);
      for (int64_t row = 0; row < kRows; ++row)
        CHECK(same.same_row(row, out, row), "%s: in place differs in row %d", what.c_str(), int(row));
    }
  });
}

}  // namespace

TEST(backward_norm_formulas) {
  constexpr size_t kWidth = 7;
  Random random(210);
  for (const int32_t kind : {IX_NORM_RMS, IX_NORM_LAYER}) {
    const std::vector<float> gamma = random_vector(random, kWidth, 0.5, 1.5), r = random_vector(random, kWidth);
    std::vector<double> x;
    for (size_t i = 0; i < kWidth; ++i) x.push_back(random.uniform(-2, 2));
    const RowGradient one = row_gradient(x, kind, gamma.data(), 1e-2, widened(r));
    std::vector<double> all = x, gradient = one.in;
    for (const double g : widened(gamma)) all.push_back(g);
    all.resize(3 * kWidth);
    gradient.insert(gradient.end(), one.gamma.begin(), one.gamma.end());
    for (const double g : widened(r)) gradient.push_back(g);
    const auto value = [&](const std::vector<double>& v) {
      return norm_value({v.begin(), v.begin() + kWidth}, kind, &v[kWidth], &v[2 * kWidth], 1e-2, widened(r));
    };
    check_differences("norm", value, all, gradient, 211);
  }
}

TEST(backward_norm) {
  uint64_t seed = 220;
  for (const int32_t kind : {IX_NORM_RMS, IX_NORM_LAYER}) {
    for (const int64_t width : {1, 2, 5, 16, 37, 131, 1000}) {
      for (const double offset : {0.0, 30.0}) {
        ++seed;
        check_norm({kind, width, offset, true, true, kind == IX_NORM_LAYER, false, IX_F32, IX_F32, IX_F32}, seed);
        check_norm({kind, width, offset, true, true, true, true, IX_F32, IX_F32, IX_F32}, seed);
        check_norm({kind, width, offset, true, seed % 2 == 0, false, seed % 3 == 0, IX_F32, IX_BF16, IX_F32}, seed);
      }
      check_norm({kind, width, 0, true, true, true, false, IX_BF16, IX_BF16, IX_BF16}, ++seed);
      check_norm({kind, width, 0, true, false, true, true, IX_BF16, IX_F32, IX_F32}, ++seed);
      check_norm({kind, width, 0, false, true, true, true, IX_F32, IX_F32, IX_BF16}, ++seed);
    }
  }
}

TEST(backward_linear_reward) {
  constexpr int64_t kRows = 70;
  Random random(260);
  for (const int32_t kind : {IX_NORM_RMS, IX_NORM_LAYER}) {
    for (const int64_t width : {1, 19, 64, 131}) {
      Matrix in = Matrix::random(random, IX_F32, kRows, width, 3, 1);
      const std::vector<float> gamma = random_vector(random, width, 0.5, 1.5), beta = random_vector(random, width),
                               head = random_vector(random, width), row_grad = random_vector(random, kRows),
                               before = random_vector(random, width);
      const float* beta_pointer = kind == IX_NORM_LAYER ? beta.data() : nullptr;
      const auto size = static_cast<size_t>(width);
      Bounded want(static_cast<size_t>(kRows) * size), want_gamma(size), want_beta(size), want_head(size);
      std::vector<double> magnitude(3 * size);
      want_gamma.value = want_beta.value = want_head.value = widened(before);
      for (int64_t row = 0; row < kRows; ++row) {
        const double g = static_cast<double>(row_grad[static_cast<size_t>(row)]);
        std::vector<double> upstream;
        for (const double u : widened(head)) upstream.push_back(g * u);
        const std::vector<double> x = row_values(in, row);
        const RowGradient one = row_gradient(x, kind, gamma.data(), static_cast<double>(1e-6f), upstream);
        const NormReference y = reference_norm(x, kind, gamma.data(), beta_pointer, static_cast<double>(1e-6f));
        for (size_t c = 0; c < size; ++c) {
          const size_t at = static_cast<size_t>(row) * size + c;
          want.value[at] = one.in[c];
          want.bound[at] = one.in_bound[c] + 2 * kU * std::fabs(one.in[c]);
          want_gamma.value[c] += one.gamma[c];
          want_gamma.bound[c] += one.gamma_bound[c] + kU * std::fabs(one.gamma[c]);
          want_beta.value[c] += upstream[c];
          want_beta.bound[c] += kU * std::fabs(upstream[c]);
          want_head.value[c] += g * y.value[c];
          want_head.bound[c] += std::fabs(g) * y.bound[c];
          magnitude[c] += std::fabs(one.gamma[c]);
          magnitude[size + c] += std::fabs(upstream[c]);
          magnitude[2 * size + c] += std::fabs(g * y.value[c]);
        }
      }
      for (size_t c = 0; c < size; ++c) {
        const double start = std::fabs(static_cast<double>(before[c]));
        want_gamma.bound[c] += (kRows + 3) * kU * (magnitude[c] + start);
        want_beta.bound[c] += (kRows + 3) * kU * (magnitude[size + c] + start);
        want_head.bound[c] += (kRows + 3) * kU * (magnitude[2 * size + c] + start);
      }
      for_each_kernels([&](KernelDevice& device) {
        const ix_norm norm = {kind, gamma.data(), beta_pointer, 1e-6f};
        Matrix out(IX_F32, kRows, width, 2);
        std::vector<float> gamma_grad = before, beta_grad = before, head_grad = before;
        const auto run = [&](int64_t first, int64_t count, Matrix& to_rows, float* g, float* b, float* h) {
          const ix_mat x = in.view(first, count), to = to_rows.view(first, count);
          device.call(&ix_backend::linear_reward_backward, &norm, &x, head.data(), row_grad.data() + first, &to, g, b,
                      h);
        };
        run(0, kRows, out, gamma_grad.data(), beta_grad.data(), head_grad.data());
        check_within("reward input", out, want);
        check_within("reward gamma", gamma_grad, want_gamma);
        check_within("reward beta", beta_grad, want_beta);
        check_within("reward head", head_grad, want_head);
        Matrix alone(IX_F32, kRows, width, 2);
        for (int64_t row = 0; row < kRows; ++row) run(row, 1, alone, nullptr, nullptr, nullptr);
        for (int64_t row = 0; row < kRows; ++row)
          CHECK(out.same_row(row, alone, row), "row %d differs from itself alone", int(row));
        std::vector<float> only = before;
        run(0, kRows, alone, nullptr, nullptr, only.data());
        CHECK(only == head_grad, "the head's gradient alone");
      });
    }
  }
}

TEST(backward_norm_refuses_disagreeing_shapes) {
  for_each_kernels([](KernelDevice& device) {
    Random random(270);
    Matrix in = Matrix::random(random, IX_F32, 3, 4), more = Matrix::random(random, IX_F32, 4, 4),
           wide = Matrix::random(random, IX_F32, 3, 5), half = Matrix::random(random, IX_BF16, 3, 4);
    const std::vector<float> ones(5, 1.0f);
    const ix_norm norm = {IX_NORM_RMS, ones.data(), nullptr, 1e-5f};
    const auto code = [&](ix_mat grad, ix_mat out) {
      const ix_mat x = in.view();
      return device.attempt(&ix_backend::norm_backward, &norm, &x, &grad, &out, 0, nullptr, nullptr);
    };
    CHECK(code(in.view(), half.view()) == IX_OK, "the right shapes");
    CHECK(code(more.view(), in.view()) == IX_INVALID && code(wide.view(), in.view()) == IX_INVALID, "other gradient");
    CHECK(code(in.view(), more.view()) == IX_INVALID && code(in.view(), wide.view()) == IX_INVALID, "other result");
    const auto reward = [&](ix_mat out) {
      const ix_mat x = in.view();
      return device.attempt(&ix_backend::linear_reward_backward, &norm, &x, ones.data(), ones.data(), &out, nullptr,
                            nullptr, nullptr);
    };
    CHECK(reward(more.view()) == IX_INVALID && reward(half.view()) == IX_INVALID, "the reward's result");
  });
}
