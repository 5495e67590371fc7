// Matrix products, forward and backward.
#include <numeric>

#include "parity/placed.h"

using namespace implex;
using namespace implex::test;

namespace {

struct Product {
  int64_t m, n, k;
};
// One row, rows around blocks of 128, odd depths and widths, depths of real models.
constexpr Product kProducts[] = {{1, 64, 64},     {1, 129, 127},   {127, 96, 80},  {128, 128, 128}, {129, 257, 65},
                                 {300, 131, 384}, {17, 512, 2048}, {64, 1000, 33}, {513, 72, 48}};

std::string shape_text(int32_t dtype, int32_t out, const Product& p) {
  return text("%s to %s %lldx%lldx%lld", dtype_text(dtype), dtype_text(out), (long long)p.m, (long long)p.n,
              (long long)p.k);
}
constexpr std::pair<int32_t, int32_t> kDtypes[] = {{IX_F32, IX_F32}, {IX_BF16, IX_F32}, {IX_BF16, IX_BF16}};
Tolerance tolerance_of(int32_t out_dtype) { return out_dtype == IX_F32 ? kF32 : kBf16; }
double depth_scale(int64_t k) { return std::pow(static_cast<double>(k), -0.5); }

enum class Extra { kNone, kBias, kResidual, kBoth, kResidualInPlace };

Outputs run_gemm(Device& d, const Matrix& in, const Matrix& weight, const Matrix& bias, const Matrix& residual,
                 int32_t out_dtype, Extra extra) {
  const PlacedWeight w(d, weight);
  const Placed x(d, in), b(d, bias), r(d, residual);
  const Result out(d, out_dtype, in.rows(), weight.rows(), 3);
  const bool with_bias = extra == Extra::kBias || extra == Extra::kBoth;
  const bool with_residual = extra != Extra::kNone && extra != Extra::kBias;
  const ix_epilogue epilogue = {with_bias ? b.floats() : nullptr, with_residual ? r.mat() : nullptr};
  const bool in_place = extra == Extra::kResidualInPlace;
  d.call(&ix_backend::gemm, x.mat(), w.get(), &epilogue, in_place ? r.mat() : out.mat());
  return {{"out", in_place ? r.read() : out.read()}};
}

}  // namespace

PARITY(gemm, values) {
  Random random(201);
  for (const auto& [dtype, out_dtype] : kDtypes) {
    for (const Product& p : kProducts) {
      const Matrix in = random_matrix(random, dtype, p.m, p.k, 1, 8),
                   weight = random_matrix(random, dtype, p.n, p.k, depth_scale(p.k)), bias = column(random, p.n),
                   residual = random_matrix(random, IX_F32, p.m, p.n, 1, 4);
      for (const Extra extra : {Extra::kNone, Extra::kBias, Extra::kResidual, Extra::kBoth, Extra::kResidualInPlace}) {
        if (extra == Extra::kResidualInPlace && out_dtype != IX_F32) continue;
        lab.check(shape_text(dtype, out_dtype, p) + text(", epilogue %d", static_cast<int>(extra)),
                  tolerance_of(out_dtype), [&, out_dtype = out_dtype](Device& d) {
                    return run_gemm(d, in, weight, bias, residual, out_dtype, extra);
                  });
      }
    }
  }
}

PARITY(gemm, rows) {
  Random random(202);
  for (const auto& [dtype, out_dtype] : kDtypes) {
    for (const Product& p : {Product{300, 260, 520}, {300, 1, 65}, {600, 96, 64}}) {
      const Matrix in = random_matrix(random, dtype, p.m, p.k),
                   weight = random_matrix(random, dtype, p.n, p.k, depth_scale(p.k)), bias = column(random, p.n),
                   residual = random_matrix(random, IX_F32, p.m, p.n);
      lab.check_rows(shape_text(dtype, out_dtype, p), p.m,
                     [&, out_dtype = out_dtype](Device& d, const std::vector<int32_t>& rows) {
                       return run_gemm(d, pick(in, rows), weight, bias, pick(residual, rows), out_dtype, Extra::kBoth);
                     });
    }
  }
}

namespace {

Outputs run_backward_input(Device& d, const Matrix& grad, const Matrix& weight, const Matrix* residual,
                           int32_t out_dtype, bool in_place) {
  const PlacedWeight w(d, weight, true);
  const Placed g(d, grad), r(d, residual ? *residual : grad);
  const Result out(d, out_dtype, grad.rows(), weight.cols(), 1);
  d.call(&ix_backend::gemm_backward_input, g.mat(), w.get(), residual ? r.mat() : none(),
         in_place ? r.mat() : out.mat());
  return {{"in_grad", in_place ? r.read() : out.read()}};
}

}  // namespace

PARITY(gemm_backward_input, values) {
  Random random(203);
  for (const auto& [dtype, out_dtype] : kDtypes) {
    for (const Product& p : kProducts) {
      const Matrix grad = random_matrix(random, dtype, p.m, p.n, 1, 8),
                   weight = random_matrix(random, dtype, p.n, p.k, depth_scale(p.n)),
                   residual = random_matrix(random, IX_F32, p.m, p.k, 1, 4);
      const std::string what = shape_text(dtype, out_dtype, p);
      const int32_t to = out_dtype;
      lab.check(what, tolerance_of(to),
                [&](Device& d) { return run_backward_input(d, grad, weight, nullptr, to, false); });
      if (to != IX_F32) continue;
      lab.check(what + " added to", kF32,
                [&](Device& d) { return run_backward_input(d, grad, weight, &residual, to, false); });
      lab.check(what + " in place", kF32,
                [&](Device& d) { return run_backward_input(d, grad, weight, &residual, to, true); });
    }
    const Matrix grad = random_matrix(random, dtype, 300, 260), weight = random_matrix(random, dtype, 260, 140, 0.1);
    lab.check_rows(text("%s to %s", dtype_text(dtype), dtype_text(out_dtype)), 300,
                   [&, out_dtype = out_dtype](Device& d, const std::vector<int32_t>& rows) {
                     return run_backward_input(d, pick(grad, rows), weight, nullptr, out_dtype, false);
                   });
  }
}

PARITY(gemm_backward_weight, values) {
  Random random(204);
  for (const int32_t dtype : {IX_F32, IX_BF16}) {
    for (const Product& p : kProducts) {
      const double scale = depth_scale(p.m);
      const Matrix grad = random_matrix(random, dtype, p.m, p.n, scale, 8),
                   in = random_matrix(random, dtype, p.m, p.k, 1, 8), before = random_matrix(random, IX_F32, p.n, p.k),
                   bias_before = column(random, p.n);
      for (const int wanted : {1, 2, 3}) {  // the weight's, the bias's, both
        lab.check(shape_text(dtype, IX_F32, p) + text(", wanted %d", wanted), kF32, [&](Device& d) -> Outputs {
          const Placed g(d, grad), x(d, in), w(d, before), b(d, bias_before);
          d.call(&ix_backend::gemm_backward_weight, g.mat(), x.mat(), wanted & 1 ? w.floats() : nullptr,
                 wanted & 2 ? b.floats() : nullptr);
          return {{"weight_grad", w.read()}, {"bias_grad", b.read()}};
        });
      }
    }
  }
}

// What weight_write rounds, weight_refresh does too, and both layouts follow.
PARITY(weight_refresh, values) {
  Random random(205);
  for (const int32_t dtype : {IX_F32, IX_BF16}) {
    for (const int32_t trainable : {0, 1}) {
      const Matrix before = random_matrix(random, dtype, 131, 67), after = random_matrix(random, IX_F32, 131, 67),
                   in = random_matrix(random, dtype, 40, 67), grad = random_matrix(random, dtype, 40, 131);
      lab.check(text("%s, trainable %d", dtype_text(dtype), trainable), kF32, [&](Device& d) -> Outputs {
        const PlacedWeight w(d, before, trainable != 0);
        CHECK(w.bytes() >= static_cast<size_t>(131 * 67 * (dtype == IX_F32 ? 4 : 2)), "a weight of %zu bytes",
              w.bytes());
        const Placed values(d, after), x(d, in), g(d, grad);
        d.call(&ix_backend::weight_refresh, w.get_mutable(), values.const_floats());
        const Result out(d, IX_F32, 40, 131), back(d, IX_F32, 40, 67);
        const ix_epilogue nothing = {nullptr, nullptr};
        d.call(&ix_backend::gemm, x.mat(), w.get(), &nothing, out.mat());
        Outputs outputs = {{"gemm", out.read()}};
        if (trainable) {
          d.call(&ix_backend::gemm_backward_input, g.mat(), w.get(), none(), back.mat());
          outputs.push_back({"gemm_backward_input", back.read()});
        }
        return outputs;
      });
    }
  }
}
