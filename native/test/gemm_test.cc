// Products: accuracy against double for odd shapes, every epilogue and dtype; bits independent of the rows around a
// row.
#include "reference.h"

using namespace implex;
using namespace implex::test;

namespace {

struct Shape {
  int64_t m, n, k;
};

// M: remainders of the 6-row tile, of the 96-row block. N: remainders of a panel (8, 16, 64), of a 256-column tile. K:
// odd, past one and two depth blocks (256 values or pairs).
const Shape kShapes[] = {{1, 1, 1},     {2, 7, 3},     {5, 63, 31},    {6, 64, 32},  {7, 65, 33}, {13, 8, 255},
                         {11, 9, 256},  {12, 17, 257}, {1, 300, 129},  {95, 33, 15}, {96, 1, 64}, {97, 130, 17},
                         {200, 71, 19}, {3, 520, 513}, {4, 257, 1027}, {191, 256, 2}};

// Error of one element before the epilogue: K products and K - 1 sums each round once, in f32; with `magnitude` the sum
// of |a b|.
double product_bound(int64_t k, double magnitude) { return static_cast<double>(k + 1) * kU * magnitude + 1e-37; }

void check_product(const Shape& s, int32_t dtype, int32_t out_dtype, bool with_bias, bool with_residual,
                   uint64_t seed) {
  Random random(seed);
  Matrix a = Matrix::random(random, dtype, s.m, s.k, 1.5, 3);
  const Matrix w = Matrix::random(random, dtype, s.n, s.k, 1.5);
  const std::vector<float> bias = random_vector(random, s.n);
  const Matrix residual_values = Matrix::random(random, IX_F32, s.m, s.n, 2, 5);
  std::vector<double> want, bound;
  for (int64_t i = 0; i < s.m; ++i) {
    for (int64_t j = 0; j < s.n; ++j) {
      double sum = 0, magnitude = 0;
      for (int64_t k = 0; k < s.k; ++k) sum += a(i, k) * w(j, k), magnitude += std::fabs(a(i, k) * w(j, k));
      double error = product_bound(s.k, magnitude);
      if (with_bias) sum += static_cast<double>(bias[static_cast<size_t>(j)]), error += kU * std::fabs(sum);
      double y = sum;
      if (with_residual) y += residual_values(i, j), error += kU * std::fabs(y);
      want.push_back(y);
      bound.push_back(1.01 * error + output_bound(out_dtype, y));
    }
  }
  for_each_kernels([&](KernelDevice& device) {
    const Weight weight(device, dtype, w);
    // A residual is f32 and may be the output itself.
    const bool in_place = with_residual && out_dtype == IX_F32 && s.m % 2 == 0;
    Matrix residual = residual_values;
    Matrix out = in_place ? residual_values : Matrix(out_dtype, s.m, s.n, 5);
    const ix_mat in_view = a.view();
    const ix_mat out_view = out.view();
    const ix_mat residual_view = in_place ? out_view : residual.view();
    const ix_epilogue epilogue = {with_bias ? bias.data() : nullptr, with_residual ? &residual_view : nullptr};
    device.call(&ix_backend::gemm, &in_view, weight.get(), &epilogue, &out_view);
    CHECK(out.intact(), "wrote between the rows of the output");
    for (int64_t i = 0; i < s.m * s.n; ++i) {
      const double got = out(i / s.n, i % s.n);
      CHECK(std::fabs(got - want[static_cast<size_t>(i)]) <= bound[static_cast<size_t>(i)],
            "%s to %s [%d, %d, %d] at (%d, %d): %.9g, want %.9g, allowed %.3g", dtype_text(dtype),
            dtype_text(out_dtype), int(s.m), int(s.n), int(s.k), int(i / s.n), int(i % s.n), got,
            want[static_cast<size_t>(i)], bound[static_cast<size_t>(i)]);
    }
  });
}

}  // namespace

TEST(gemm_shapes) {
  uint64_t seed = 10;
  for (const Shape& shape : kShapes) {
    check_product(shape, IX_F32, IX_F32, false, false, ++seed);
    const bool biased = seed % 2 == 0;
    check_product(shape, IX_BF16, IX_F32, biased, true, ++seed);
    check_product(shape, IX_BF16, IX_BF16, true, false, ++seed);
  }
}

TEST(gemm_epilogues) {
  uint64_t seed = 100;
  for (const Shape& shape : {Shape{6, 70, 33}, Shape{17, 21, 64}}) {
    for (const bool bias : {false, true}) {
      for (const bool residual : {false, true}) {
        check_product(shape, IX_F32, IX_F32, bias, residual, ++seed);
        check_product(shape, IX_BF16, IX_BF16, bias, residual, ++seed);
        check_product(shape, IX_F32, IX_BF16, bias, residual, ++seed);
      }
    }
  }
}

// Every row has its bits whatever M is and wherever it stands: compared with each row alone.
TEST(gemm_rows_are_independent) {
  for (const int32_t dtype : {IX_F32, IX_BF16}) {
    constexpr int64_t kM = 200, kN = 70, kK = 131;
    Random random(3);
    Matrix a = Matrix::random(random, dtype, kM, kK, 2);
    const Matrix w = Matrix::random(random, dtype, kN, kK, 2);
    const std::vector<float> bias = random_vector(random, kN);
    for_each_kernels([&](KernelDevice& device) {
      const Weight weight(device, dtype, w);
      const ix_epilogue epilogue = {bias.data(), nullptr};
      const auto product = [&](int64_t first, int64_t count, Matrix& out) {
        const ix_mat in = a.view(first, count);
        const ix_mat to = out.view(0, count);
        device.call(&ix_backend::gemm, &in, weight.get(), &epilogue, &to);
      };
      Matrix alone(dtype, kM, kN), one(dtype, 1, kN);
      for (int64_t row = 0; row < kM; ++row) {
        product(row, 1, one);
        for (int64_t c = 0; c < kN; ++c) alone.set(row, c, one(0, c));
      }
      Matrix out(dtype, kM, kN);
      for (int64_t count = 1; count <= kM; ++count) {
        const int64_t first = count * 7919 % (kM - count + 1);  // anywhere
        product(first, count, out);
        for (int64_t row = 0; row < count; ++row)
          CHECK(out.same_row(row, alone, first + row), "%s row %d of %d from %d differs from itself alone",
                dtype_text(dtype), int(row), int(count), int(first));
      }
    });
  }
}

TEST(gemm_refuses_disagreeing_shapes) {
  for_each_kernels([](KernelDevice& device) {
    Random random(4);
    const Weight weight(device, IX_F32, Matrix::random(random, IX_F32, 5, 6));
    Matrix a(IX_F32, 3, 6), short_a(IX_F32, 3, 5), half_a(IX_BF16, 3, 6), out(IX_F32, 3, 5), narrow(IX_F32, 3, 4),
        more(IX_F32, 4, 5);
    const ix_epilogue plain = {nullptr, nullptr};
    const ix_mat residual = more.view();
    const ix_epilogue bad_residual = {nullptr, &residual};
    const auto code = [&](ix_mat in, const ix_epilogue& epilogue, ix_mat to) {
      return device.attempt(&ix_backend::gemm, &in, weight.get(), &epilogue, &to);
    };
    for (int64_t r = 0; r < 3; ++r)
      for (int64_t c = 0; c < 6; ++c) a.set(r, c, 1);
    CHECK(code(a.view(), plain, out.view()) == IX_OK, "the right shapes");
    CHECK(code(a.view(0, 0), plain, out.view(0, 0)) == IX_OK, "no rows");
    CHECK(code(short_a.view(), plain, out.view()) == IX_INVALID, "other depth");
    CHECK(code(half_a.view(), plain, out.view()) == IX_INVALID, "other dtype");
    CHECK(code(a.view(), plain, narrow.view()) == IX_INVALID, "other width");
    CHECK(code(a.view(), plain, more.view()) == IX_INVALID, "other height");
    CHECK(code(a.view(), bad_residual, out.view()) == IX_INVALID, "other residual");
  });
}
