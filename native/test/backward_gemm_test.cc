// The two products of a linear layer's backward pass: accuracy for odd shapes, sums over rows, rows independent of each
// other, and the two layouts of a weight kept in step.
#include "gradient_check.h"

using namespace implex;
using namespace implex::test;

namespace {

struct Shape {
  int64_t m, n, k;  // grad [m, n], in [m, k], weight [n, k]
};

// Remainders of the row tile (6, 96), of a panel (8, 16, 64), of the 256-column tile, of depth blocks; odd depths
// either way round, for bf16's pairs.
const Shape kShapes[] = {{1, 1, 1},    {2, 3, 7},     {5, 31, 63},   {7, 33, 65},   {13, 255, 8},
                         {1, 129, 30}, {97, 17, 130}, {200, 19, 71}, {3, 513, 260}, {515, 9, 12},
                         {64, 1, 96},  {65, 64, 1},   {129, 257, 33}};

// output = Σ r (in · weightᵀ + bias): its gradients are those that the operations compute for grad = r.
void check_formulas() {
  constexpr int64_t kM = 3, kN = 4, kK = 5;
  Random random(1);
  std::vector<double> r, x;
  for (int64_t i = 0; i < kM * kN; ++i) r.push_back(random.uniform(-1, 1));
  for (int64_t i = 0; i < kM * kK + kN * kK + kN; ++i) x.push_back(random.uniform(-1, 1));
  const auto in = [&](const std::vector<double>& v, int64_t i, int64_t k) {
    return v[static_cast<size_t>(i * kK + k)];
  };
  const auto w = [&](const std::vector<double>& v, int64_t j, int64_t k) {
    return v[static_cast<size_t>(kM * kK + j * kK + k)];
  };
  const auto value = [&](const std::vector<double>& v) {
    double sum = 0;
    for (int64_t i = 0; i < kM; ++i)
      for (int64_t j = 0; j < kN; ++j) {
        double y = v[static_cast<size_t>(kM * kK + kN * kK + j)];
        for (int64_t k = 0; k < kK; ++k) y += in(v, i, k) * w(v, j, k);
        sum += r[static_cast<size_t>(i * kN + j)] * y;
      }
    return sum;
  };
  std::vector<double> gradient(x.size());
  for (int64_t i = 0; i < kM; ++i)
    for (int64_t j = 0; j < kN; ++j) {
      const double g = r[static_cast<size_t>(i * kN + j)];
      for (int64_t k = 0; k < kK; ++k) {
        gradient[static_cast<size_t>(i * kK + k)] += g * w(x, j, k);
        gradient[static_cast<size_t>(kM * kK + j * kK + k)] += g * in(x, i, k);
      }
      gradient[static_cast<size_t>(kM * kK + kN * kK + j)] += g;
    }
  check_differences("linear", value, x, gradient, 2);
}

void check_input(const Shape& s, int32_t dtype, int32_t out_dtype, bool with_residual, uint64_t seed) {
  Random random(seed);
  Matrix grad = Matrix::random(random, dtype, s.m, s.n, 1.5, 3);
  const Matrix w = Matrix::random(random, dtype, s.n, s.k, 1.5);
  const Matrix residual_values = Matrix::random(random, IX_F32, s.m, s.k, 2, 5);
  Bounded want(static_cast<size_t>(s.m * s.k));
  for (int64_t i = 0; i < s.m; ++i) {
    for (int64_t k = 0; k < s.k; ++k) {
      double sum = 0, magnitude = 0;
      for (int64_t j = 0; j < s.n; ++j) sum += grad(i, j) * w(j, k), magnitude += std::fabs(grad(i, j) * w(j, k));
      double bound = static_cast<double>(s.n + 1) * kU * magnitude;
      if (with_residual) sum += residual_values(i, k), bound += kU * std::fabs(sum);
      want.value[static_cast<size_t>(i * s.k + k)] = sum;
      want.bound[static_cast<size_t>(i * s.k + k)] = bound;
    }
  }
  const std::string what = text("%s to %s [%d, %d, %d]%s", dtype_text(dtype), dtype_text(out_dtype), int(s.m), int(s.n),
                                int(s.k), with_residual ? " with residual" : "");
  for_each_kernels([&](KernelDevice& device) {
    const Weight weight(device, dtype, w, true);
    // A residual may be the output itself.
    const bool in_place = with_residual && out_dtype == IX_F32 && s.m % 2 == 1;
    Matrix residual = residual_values;
    Matrix out = in_place ? residual_values : Matrix(out_dtype, s.m, s.k, 4);
    const ix_mat grad_view = grad.view();
    const ix_mat out_view = out.view();
    const ix_mat residual_view = in_place ? out_view : residual.view();
    device.call(&ix_backend::gemm_backward_input, &grad_view, weight.get(), with_residual ? &residual_view : nullptr,
                &out_view);
    check_within(what.c_str(), out, want);
    // Each row alone.
    for (int64_t row = 0; row < s.m; row += 1 + s.m / 7) {
      Matrix source = residual_values, one(out_dtype, 1, s.k);
      const ix_mat g = grad.view(row, 1);
      const ix_mat res = source.view(row, 1);
      const ix_mat to = one.view();
      device.call(&ix_backend::gemm_backward_input, &g, weight.get(), with_residual ? &res : nullptr, &to);
      CHECK(out.same_row(row, one, 0), "%s: row %d differs from itself alone", what.c_str(), int(row));
    }
  });
}

void check_weight(const Shape& s, int32_t dtype, uint64_t seed) {
  Random random(seed);
  Matrix grad = Matrix::random(random, dtype, s.m, s.n, 1.5, 3);
  Matrix in = Matrix::random(random, dtype, s.m, s.k, 1.5, 2);
  Matrix before = Matrix::random(random, IX_F32, s.n, s.k, 2);
  const std::vector<float> bias_before = random_vector(random, s.n);
  Bounded want(static_cast<size_t>(s.n * s.k)), bias_want(static_cast<size_t>(s.n));
  for (int64_t j = 0; j < s.n; ++j) {
    for (int64_t k = 0; k < s.k; ++k) {
      double sum = 0, magnitude = 0;
      for (int64_t i = 0; i < s.m; ++i) sum += grad(i, j) * in(i, k), magnitude += std::fabs(grad(i, j) * in(i, k));
      const auto at = static_cast<size_t>(j * s.k + k);
      want.value[at] = before(j, k) + sum;
      want.bound[at] = static_cast<double>(s.m + 1) * kU * magnitude + kU * std::fabs(want.value[at]);
    }
    const auto at = static_cast<size_t>(j);
    double magnitude = std::fabs(static_cast<double>(bias_before[at]));
    bias_want.value[at] = static_cast<double>(bias_before[at]);
    for (int64_t i = 0; i < s.m; ++i) bias_want.value[at] += grad(i, j), magnitude += std::fabs(grad(i, j));
    bias_want.bound[at] = static_cast<double>(s.m) * kU * magnitude;
  }
  const std::string what = text("%s [%d, %d, %d]", dtype_text(dtype), int(s.m), int(s.n), int(s.k));
  for_each_kernels([&](KernelDevice& device) {
    const ix_mat grad_view = grad.view();
    const ix_mat in_view = in.view();
    const auto run = [&](bool weight, bool bias) {
      std::pair<Matrix, std::vector<float>> result = {before, bias_before};
      device.call(&ix_backend::gemm_backward_weight, &grad_view, &in_view,
                  weight ? static_cast<float*>(result.first.view().data) : nullptr,
                  bias ? result.second.data() : nullptr);
      return result;
    };
    const auto [both, both_bias] = run(true, true);
    check_within((what + " weight").c_str(), both, want);
    check_within((what + " bias").c_str(), both_bias, bias_want);
    // One without the other gives the same bits, and what is not wanted is not touched.
    const auto [weight_only, untouched_bias] = run(true, false);
    const auto [untouched_weight, bias_only] = run(false, true);
    run(false, false);
    CHECK(untouched_bias == bias_before && bias_only == both_bias, "%s: bias", what.c_str());
    for (int64_t j = 0; j < s.n; ++j)
      CHECK(weight_only.same_row(j, both, j) && untouched_weight.same_row(j, before, j), "%s: weight row %d",
            what.c_str(), int(j));
  });
}

}  // namespace

TEST(backward_gemm_formulas) { check_formulas(); }

TEST(backward_gemm_input) {
  uint64_t seed = 200;
  for (const Shape& s : kShapes) {
    check_input(s, IX_F32, IX_F32, false, ++seed);
    check_input(s, IX_F32, IX_F32, true, ++seed);
    check_input(s, IX_BF16, IX_F32, true, ++seed);
    const bool residual = s.k % 2 == 0;
    check_input(s, IX_BF16, IX_BF16, residual, ++seed);
  }
}

TEST(backward_gemm_weight) {
  uint64_t seed = 300;
  for (const Shape& s : kShapes)
    for (const int32_t dtype : {IX_F32, IX_BF16}) check_weight(s, dtype, ++seed);
}

// A weight refreshed as a whole is the weight written row by row: for its product and for the transposed one.
TEST(weight_refresh_is_weight_write) {
  Random random(3);
  for (const int32_t dtype : {IX_F32, IX_BF16}) {
    for (const auto& [rows, cols] : {std::pair{1, 1}, std::pair{65, 33}, std::pair{131, 300}, std::pair{700, 129}}) {
      const Matrix old = Matrix::random(random, dtype, rows, cols), values = Matrix::random(random, IX_F32, rows, cols);
      Matrix in = Matrix::random(random, dtype, 3, cols), grad = Matrix::random(random, dtype, 3, rows);
      std::vector<float> flat;
      for (const double x : all_values(values)) flat.push_back(static_cast<float>(x));
      for_each_kernels([&](KernelDevice& device) {
        const Weight written(device, dtype, values, true), refreshed(device, dtype, old, true);
        device.call(&ix_backend::weight_refresh, const_cast<ix_weight*>(refreshed.get()), flat.data());
        const auto products = [&](const Weight& weight) {
          Matrix out(IX_F32, 3, rows), back(IX_F32, 3, cols), row(IX_F32, 1, cols);
          const ix_mat in_view = in.view(), grad_view = grad.view(), out_view = out.view(), back_view = back.view(),
                       row_view = row.view();
          const ix_epilogue plain = {nullptr, nullptr};
          const int32_t last = rows - 1;
          device.call(&ix_backend::gemm, &in_view, weight.get(), &plain, &out_view);
          device.call(&ix_backend::gemm_backward_input, &grad_view, weight.get(), nullptr, &back_view);
          device.call(&ix_backend::embedding, weight.get(), &last, &row_view);
          return std::vector{all_values(out), all_values(back), all_values(row)};
        };
        CHECK(products(written) == products(refreshed), "%s [%d, %d]", dtype_text(dtype), rows, cols);
      });
    }
  }
}

TEST(backward_gemm_refuses_disagreeing_shapes) {
  for_each_kernels([](KernelDevice& device) {
    Random random(4);
    const Matrix values = Matrix::random(random, IX_F32, 5, 6);
    const Weight weight(device, IX_F32, values, true), frozen(device, IX_F32, values);
    Matrix grad = Matrix::random(random, IX_F32, 3, 5), narrow = Matrix::random(random, IX_F32, 3, 4),
           half = Matrix::random(random, IX_BF16, 3, 5), out(IX_F32, 3, 6), more(IX_F32, 4, 6);
    const auto input = [&](ix_mat g, const Weight& w, ix_mat to) {
      return device.attempt(&ix_backend::gemm_backward_input, &g, w.get(), nullptr, &to);
    };
    CHECK(input(grad.view(), weight, out.view()) == IX_OK, "the right shapes");
    CHECK(input(grad.view(0, 0), weight, out.view(0, 0)) == IX_OK, "no rows");
    CHECK(input(grad.view(), frozen, out.view()) == IX_INVALID, "a weight that is not trainable");
    CHECK(input(narrow.view(), weight, out.view()) == IX_INVALID, "other depth");
    CHECK(input(half.view(), weight, out.view()) == IX_INVALID, "other dtype");
    CHECK(input(grad.view(), weight, more.view()) == IX_INVALID, "other height");
    std::vector<float> sums(30);
    const auto weights = [&](ix_mat g, ix_mat in) {
      return device.attempt(&ix_backend::gemm_backward_weight, &g, &in, sums.data(), sums.data());
    };
    CHECK(weights(grad.view(0, 0), out.view(0, 0)) == IX_OK && sums == std::vector<float>(30), "no rows");
    CHECK(weights(grad.view(), more.view()) == IX_INVALID, "other height");
    CHECK(weights(half.view(), out.view()) == IX_INVALID, "other dtype");
  });
}
