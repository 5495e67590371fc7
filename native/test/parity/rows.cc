// Operations that treat each row by itself: copies, norms, gated activations, rotary positions.
#include <numeric>

#include "parity/placed.h"

using namespace implex;
using namespace implex::test;

namespace {

constexpr int32_t kDtypes[] = {IX_F32, IX_BF16};
Tolerance rowwise(int32_t dtype) { return dtype == IX_F32 ? kF32 : kBf16; }

std::string shape_text(int32_t dtype, int64_t rows, int64_t cols) {
  return text("%s %lldx%lld", dtype_text(dtype), (long long)rows, (long long)cols);
}

}  // namespace

PARITY(embedding, values) {
  Random random(101);
  for (const int32_t dtype : kDtypes) {
    for (const auto& [vocabulary, width, count] : {std::tuple{517, 64, 129}, {33, 127, 1}, {1001, 2048, 40}}) {
      const Matrix table = random_matrix(random, dtype, vocabulary, width);
      std::vector<int32_t> ids = random_ids(random, count, vocabulary);
      ids.back() = vocabulary - 1;
      ids.front() = count > 1 ? 0 : ids.front();
      lab.check(shape_text(dtype, count, width), kExact, [&, count = count, width = width](Device& d) -> Outputs {
        const PlacedWeight weight(d, table);
        const Ids where(d, ids);
        const Result out(d, IX_F32, count, width, 5);
        d.call(&ix_backend::embedding, weight.get(), where.get(), out.mat());
        return {{"out", out.read()}};
      });
    }
  }
}

PARITY(gather_rows, values) {
  Random random(102);
  for (const int32_t dtype : kDtypes) {
    for (const int64_t width : {1, 63, 64, 2049}) {
      const Matrix in = random_matrix(random, dtype, 77, width, 1, 3);
      const std::vector<int32_t> rows = random_ids(random, 131, 77);
      lab.check(shape_text(dtype, 131, width), kExact, [&](Device& d) -> Outputs {
        const Placed from(d, in);
        const Ids where(d, rows);
        const Result out(d, dtype, 131, width, 1);
        d.call(&ix_backend::gather_rows, from.mat(), where.get(), out.mat());
        return {{"out", out.read()}};
      });
    }
  }
}

namespace {

// A norm with its parameters; `beta` may be absent.
struct NormSetting {
  int32_t kind;
  bool beta;
  float eps;
};
constexpr NormSetting kNorms[] = {
    {IX_NORM_RMS, false, 1e-5f}, {IX_NORM_LAYER, true, 1e-5f}, {IX_NORM_LAYER, false, 1e-6f}};

Outputs run_norm(Device& d, const NormSetting& setting, const Matrix& in, const Matrix& gamma, const Matrix& beta,
                 int32_t out_dtype) {
  const Placed x(d, in), g(d, gamma), b(d, beta);
  const ix_norm table = {setting.kind, g.floats(), setting.beta ? b.floats() : nullptr, setting.eps};
  const Result out(d, out_dtype, in.rows(), in.cols(), 2);
  d.call(&ix_backend::norm, &table, x.mat(), out.mat());
  return {{"out", out.read()}};
}

}  // namespace

PARITY(norm, values) {
  Random random(103);
  for (const NormSetting& setting : kNorms) {
    for (const auto& [in_dtype, out_dtype] : {std::pair{IX_F32, IX_F32}, {IX_F32, IX_BF16}, {IX_BF16, IX_BF16}}) {
      for (const int64_t width : {48, 127, 384, 2048, 1536}) {
        Matrix in = random_matrix(random, in_dtype, 37, width, 3, 4);
        for (int64_t c = 0; c < width; ++c) in.set(5, c, 0);  // a row of zeros: eps alone keeps it finite
        const Matrix gamma = column(random, width, 1, 1), beta = column(random, width);
        lab.check(text("kind %d ", setting.kind) + shape_text(out_dtype, 37, width), rowwise(out_dtype),
                  [&, out_dtype = out_dtype](Device& d) { return run_norm(d, setting, in, gamma, beta, out_dtype); });
      }
    }
  }
}

PARITY(norm, rows) {
  Random random(104);
  for (const NormSetting& setting : kNorms) {
    const Matrix in = random_matrix(random, IX_F32, 200, 771, 3);
    const Matrix gamma = column(random, 771, 1, 1), beta = column(random, 771);
    lab.check_rows(text("kind %d", setting.kind), 200, [&](Device& d, const std::vector<int32_t>& rows) {
      return run_norm(d, setting, pick(in, rows), gamma, beta, IX_BF16);
    });
  }
}

// In place, and as the rows of heads that queries and keys are normed by.
PARITY(norm, in_place) {
  Random random(105);
  for (const int32_t dtype : kDtypes) {
    const Matrix in = random_matrix(random, dtype, 129 * 3, 64, 2);
    const Matrix gamma = column(random, 64, 1, 1);
    lab.check(dtype_text(dtype), rowwise(dtype), [&](Device& d) -> Outputs {
      const Placed x(d, in), g(d, gamma);
      const ix_norm table = {IX_NORM_RMS, g.floats(), nullptr, 1e-6f};
      d.call(&ix_backend::norm, &table, x.mat(), x.mat());
      return {{"out", x.read()}};
    });
  }
}

namespace {

Outputs run_glu(Device& d, int32_t activation, const Matrix& gate, const Matrix* up) {
  const Placed g(d, gate), u(d, up ? *up : gate);
  const Result out(d, gate.dtype(), gate.rows(), gate.cols(), 6);
  d.call(&ix_backend::glu, activation, g.mat(), up ? u.mat() : none(), out.mat());
  return {{"out", out.read()}};
}

}  // namespace

PARITY(glu, values) {
  Random random(106);
  for (const int32_t dtype : kDtypes) {
    for (const int32_t activation : {IX_ACT_NONE, IX_ACT_SILU, IX_ACT_GELU, IX_ACT_GELU_TANH}) {
      for (const int64_t width : {1, 129, 2752}) {
        const Matrix gate = random_matrix(random, dtype, 33, width, 6, 1),
                     up = random_matrix(random, dtype, 33, width, 2, 3);
        const std::string what = text("activation %d ", activation) + shape_text(dtype, 33, width);
        lab.check(what, rowwise(dtype), [&](Device& d) { return run_glu(d, activation, gate, &up); });
        lab.check(what + " without up", rowwise(dtype),
                  [&](Device& d) { return run_glu(d, activation, gate, nullptr); });
        lab.check(what + " in place", rowwise(dtype), [&](Device& d) -> Outputs {
          const Placed g(d, gate), u(d, up);
          d.call(&ix_backend::glu, activation, g.mat(), u.mat(), u.mat());
          return {{"out", u.read()}};
        });
      }
    }
    const Matrix gate = random_matrix(random, dtype, 200, 333, 6), up = random_matrix(random, dtype, 200, 333);
    lab.check_rows(dtype_text(dtype), 200, [&](Device& d, const std::vector<int32_t>& rows) {
      const Matrix some = pick(up, rows);
      return run_glu(d, IX_ACT_SILU, pick(gate, rows), &some);
    });
  }
}

// Saturated gates: exponentials overflow or vanish, results do not.
PARITY(glu, extremes) {
  for (const int32_t dtype : kDtypes) {
    Matrix gate(dtype, 1, 9), up(dtype, 1, 9);
    const double values[] = {-1e4, -200, -100, -88, 0, 88, 100, 200, 1e4};
    for (int64_t i = 0; i < 9; ++i) gate.set(0, i, values[i]), up.set(0, i, 1);
    for (const int32_t activation : {IX_ACT_SILU, IX_ACT_GELU, IX_ACT_GELU_TANH})
      lab.check(text("activation %d %s", activation, dtype_text(dtype)), rowwise(dtype),
                [&](Device& d) { return run_glu(d, activation, gate, &up); });
  }
}

PARITY(glu_backward, values) {
  Random random(107);
  for (const int32_t dtype : kDtypes) {
    for (const int32_t activation : {IX_ACT_NONE, IX_ACT_SILU, IX_ACT_GELU, IX_ACT_GELU_TANH}) {
      for (const bool gated : {true, false}) {
        const Matrix gate = random_matrix(random, dtype, 150, 259, 4), up = random_matrix(random, dtype, 150, 259, 2),
                     grad = random_matrix(random, dtype, 150, 259);
        const auto run = [&](Device& d, const std::vector<int32_t>& rows) -> Outputs {
          const Matrix gate_rows = pick(gate, rows), up_rows = pick(up, rows), grad_rows = pick(grad, rows);
          const Placed g(d, gate_rows), u(d, up_rows), y(d, grad_rows);
          const Result gate_grad(d, dtype, grad_rows.rows(), 259, 2), up_grad(d, dtype, grad_rows.rows(), 259, 1);
          d.call(&ix_backend::glu_backward, activation, g.mat(), gated ? u.mat() : none(), y.mat(), gate_grad.mat(),
                 gated ? up_grad.mat() : none());
          Outputs out = {{"gate_grad", gate_grad.read()}};
          if (gated) out.push_back({"up_grad", up_grad.read()});
          return out;
        };
        std::vector<int32_t> all(150);
        std::iota(all.begin(), all.end(), 0);
        const std::string what = text("activation %d%s %s", activation, gated ? "" : " without up", dtype_text(dtype));
        lab.check(what, rowwise(dtype), [&](Device& d) { return run(d, all); });
        lab.check_rows(what, 150, run);
      }
    }
  }
}

PARITY(scaled_add, values) {
  Random random(112);
  for (const int32_t from : kDtypes) {
    for (const int32_t to : kDtypes) {
      for (const auto& [rows, cols] : {std::pair{1, 1}, {129, 77}, {3, 4100}}) {
        const Matrix in = random_matrix(random, from, rows, cols, 2, 1),
                     residual = random_matrix(random, IX_F32, rows, cols, 1, 2);
        const std::string what = text("%s to %s %dx%d", dtype_text(from), dtype_text(to), rows, cols);
        for (const bool with_residual : {true, false}) {
          lab.check(what + (with_residual ? "" : " without a residual"), rowwise(to),
                    [&, rows = rows, cols = cols](Device& d) -> Outputs {
                      const Placed x(d, in), r(d, residual);
                      const Result out(d, to, rows, cols, 3);
                      d.call(&ix_backend::scaled_add, x.mat(), -0.3f, with_residual ? r.mat() : none(), out.mat());
                      return {{"out", out.read()}};
                    });
        }
      }
    }
    const Matrix in = random_matrix(random, from, 200, 333, 2), residual = random_matrix(random, IX_F32, 200, 333);
    lab.check(text("%s into the residual", dtype_text(from)), kF32, [&](Device& d) -> Outputs {
      const Placed x(d, in), sum(d, residual);
      d.call(&ix_backend::scaled_add, x.mat(), 0.22f, sum.mat(), sum.mat());
      return {{"out", sum.read()}};
    });
    lab.check(text("%s in place", dtype_text(from)), rowwise(from), [&](Device& d) -> Outputs {
      const Placed x(d, in);
      d.call(&ix_backend::scaled_add, x.mat(), 45.25f, none(), x.mat());
      return {{"out", x.read()}};
    });
    lab.check_rows(dtype_text(from), 200, [&](Device& d, const std::vector<int32_t>& rows) -> Outputs {
      const Matrix some = pick(in, rows), added = pick(residual, rows);
      const Placed x(d, some), r(d, added);
      const Result out(d, IX_F32, some.rows(), 333);
      d.call(&ix_backend::scaled_add, x.mat(), 0.7f, r.mat(), out.mat());
      return {{"out", out.read()}};
    });
  }
}

PARITY(rope, values) {
  Random random(108);
  struct Shape {
    int32_t heads, head_dim, rotary_dim;
  };
  const std::vector<ix_segment> segments = {{0, 61, -1}, {61, 1, 0}, {62, 40, 0}, {102, 5, -1}};
  for (const Shape& s : {Shape{4, 64, 64}, {3, 80, 20}, {2, 128, 128}, {1, 256, 64}, {5, 48, 48}}) {
    const int32_t half = s.rotary_dim / 2;
    Matrix cosines(IX_F32, 128, half), sines(IX_F32, 128, half);
    for (int64_t p = 0; p < 128; ++p)
      for (int64_t i = 0; i < half; ++i) {
        const double angle = static_cast<double>(p) * std::pow(1e4, -static_cast<double>(i) / half);
        cosines.set(p, i, std::cos(angle)), sines.set(p, i, std::sin(angle));
      }
    for (const int32_t dtype : kDtypes) {
      const Matrix x = random_matrix(random, dtype, 107, s.heads * s.head_dim, 1, 2);
      for (const int32_t inverse : {0, 1}) {
        const auto run = [&](Device& d, const std::vector<int32_t>* rows) -> Outputs {
          const Matrix some = rows ? pick(x, *rows) : x;
          const DeviceBatch batch(d, segments);
          const Placed c(d, cosines), n(d, sines), y(d, some);
          const Ids ids(d, rows ? *rows : std::vector<int32_t>{0});
          const ix_rope table = {c.floats(), n.floats(), s.heads, s.head_dim, s.rotary_dim, inverse};
          d.call(&ix_backend::rope, static_cast<const ix_batch*>(batch.get()), &table, rows ? ids.get() : no_rows(),
                 y.mat());
          return {{"x", y.read()}};
        };
        const std::string what =
            text("%dx%d of %d%s %s", s.heads, s.rotary_dim, s.head_dim, inverse ? " back" : "", dtype_text(dtype));
        lab.check(what, rowwise(dtype), [&](Device& d) { return run(d, nullptr); });
        lab.check_rows(what, 107, [&](Device& d, const std::vector<int32_t>& rows) { return run(d, &rows); });
      }
    }
  }
}

PARITY(cast, values) {
  Random random(109);
  for (const int32_t from : kDtypes) {
    for (const int32_t to : kDtypes) {
      for (const auto& [rows, cols] : {std::pair{1, 1}, {129, 77}, {3, 4099}}) {
        const Matrix in = random_matrix(random, from, rows, cols, 100, 1);
        lab.check(text("%s to %s %dx%d", dtype_text(from), dtype_text(to), rows, cols), kExact,
                  [&, rows = rows, cols = cols](Device& d) -> Outputs {
                    const Placed x(d, in);
                    const Result out(d, to, rows, cols, 3);
                    d.call(&ix_backend::cast, x.mat(), out.mat());
                    return {{"out", out.read()}};
                  });
      }
    }
  }
}

// Round to nearest, ties to even, and no carry lost.
PARITY(cast, rounding) {
  Matrix in(IX_F32, 1, 8);
  const double values[] = {1.00390625, 1.01171875, 1.0039063, -1.00390625, 0.0, -0.0, 3.3895314e38, 1e-40};
  for (int64_t i = 0; i < 8; ++i) in.set(0, i, values[i]);
  lab.check("ties", kExact, [&](Device& d) -> Outputs {
    const Placed x(d, in);
    const Result out(d, IX_BF16, 1, 8);
    d.call(&ix_backend::cast, x.mat(), out.mat());
    return {{"out", out.read()}};
  });
}

PARITY(fill_zero, values) {
  Random random(110);
  for (const int64_t bytes : {4, 12, 1020, 70000}) {
    const Matrix before = column(random, bytes / 4 + 3, 1, 5);
    lab.check(text("%lld bytes", (long long)bytes), kExact, [&](Device& d) -> Outputs {
      const Placed x(d, before);
      d.call(&ix_backend::fill_zero, x.floats(), static_cast<size_t>(bytes));
      return {{"memory", x.read()}};
    });
  }
}

PARITY(scatter_rows, values) {
  Random random(111);
  for (const int32_t dtype : kDtypes) {
    for (const int32_t accumulate : {0, 1}) {
      const Matrix in = random_matrix(random, dtype, 150, 129, 1, 2),
                   before = random_matrix(random, IX_F32, 60, 129, 1, 4);
      const std::vector<int32_t> rows = random_ids(random, 150, 50);  // repeated; the last ten are met by none
      lab.check(text("%s, accumulate %d", dtype_text(dtype), accumulate), kF32, [&](Device& d) -> Outputs {
        const Matrix poison = poisoned(IX_F32, 60, 129, 4);
        const Placed x(d, in), out(d, accumulate ? before : poison);
        const Ids where(d, rows);
        d.call(&ix_backend::scatter_rows, x.mat(), where.get(), out.mat(), accumulate);
        return {{"out", out.read()}};
      });
    }
  }
}
