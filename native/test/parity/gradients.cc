// Gradients of norms and embeddings.
#include <numeric>

#include "parity/placed.h"

using namespace implex;
using namespace implex::test;

PARITY(norm_backward, values) {
  Random random(501);
  struct Types {
    int32_t in, grad, out;
  };
  for (const int32_t kind : {IX_NORM_RMS, IX_NORM_LAYER}) {
    for (const Types& types : {Types{IX_F32, IX_F32, IX_F32}, {IX_BF16, IX_BF16, IX_BF16}}) {
      for (const auto& [rows, width] : {std::pair{1, 48}, {129, 127}, {300, 384}, {70, 2048}}) {
        for (const int32_t accumulate : {0, 1}) {
          if (accumulate && types.out == IX_BF16) continue;  // the stream that gradients are added to is f32
          const Matrix in = random_matrix(random, types.in, rows, width, 2, 3),
                       grad = random_matrix(random, types.grad, rows, width, 1, 1),
                       before = random_matrix(random, types.out, rows, width, 1, 2),
                       gamma = column(random, width, 1, 1), gamma_before = column(random, width),
                       beta_before = column(random, width);
          for (const bool frozen : {false, true}) {
            lab.check(
                text("kind %d, %s %dx%d, accumulate %d%s", kind, dtype_text(types.out), rows, width, accumulate,
                     frozen ? ", frozen" : ""),
                types.out == IX_F32 ? kF32Gradient : kBf16, [&, rows = rows, width = width](Device& d) -> Outputs {
                  const Matrix poison = poisoned(types.out, rows, width, 2);
                  const Placed x(d, in), g(d, gamma), y(d, grad), out(d, accumulate ? before : poison),
                      gamma_grad(d, gamma_before), beta_grad(d, beta_before);
                  const ix_norm table = {kind, g.floats(), nullptr, 1e-5f};
                  const bool with_beta = !frozen && kind == IX_NORM_LAYER;
                  d.call(&ix_backend::norm_backward, &table, x.mat(), y.mat(), out.mat(), accumulate,
                         frozen ? nullptr : gamma_grad.floats(), with_beta ? beta_grad.floats() : nullptr);
                  return {{"in_grad", out.read()}, {"gamma_grad", gamma_grad.read()}, {"beta_grad", beta_grad.read()}};
                });
          }
        }
      }
    }
  }
}

PARITY(norm_backward, rows) {
  Random random(502);
  for (const int32_t kind : {IX_NORM_RMS, IX_NORM_LAYER}) {
    const Matrix in = random_matrix(random, IX_F32, 200, 771, 2), grad = random_matrix(random, IX_F32, 200, 771),
                 gamma = column(random, 771, 1, 1);
    lab.check_rows(text("kind %d", kind), 200, [&](Device& d, const std::vector<int32_t>& rows) -> Outputs {
      const Matrix some = pick(in, rows), grads = pick(grad, rows);
      const Placed x(d, some), g(d, gamma), y(d, grads);
      const ix_norm table = {kind, g.floats(), nullptr, 1e-5f};
      const Result out(d, IX_F32, some.rows(), 771);
      d.call(&ix_backend::norm_backward, &table, x.mat(), y.mat(), out.mat(), 0, nullptr, nullptr);
      return {{"in_grad", out.read()}};
    });
  }
}

// In place on the rows of heads, as the norms of queries and keys are.
PARITY(norm_backward, in_place) {
  Random random(503);
  for (const int32_t dtype : {IX_F32, IX_BF16}) {
    const Matrix in = random_matrix(random, dtype, 387, 64, 2), grad = random_matrix(random, dtype, 387, 64),
                 gamma = column(random, 64, 1, 1), gamma_before = column(random, 64);
    lab.check(dtype_text(dtype), dtype == IX_F32 ? kF32Gradient : kBf16, [&](Device& d) -> Outputs {
      const Placed x(d, in), g(d, gamma), y(d, grad), gamma_grad(d, gamma_before);
      const ix_norm table = {IX_NORM_RMS, g.floats(), nullptr, 1e-6f};
      d.call(&ix_backend::norm_backward, &table, x.mat(), y.mat(), y.mat(), 0, gamma_grad.floats(), nullptr);
      return {{"in_grad", y.read()}, {"gamma_grad", gamma_grad.read()}};
    });
  }
}

PARITY(embedding_backward, values) {
  Random random(504);
  for (const int32_t dtype : {IX_F32, IX_BF16}) {
    for (const auto& [count, vocabulary, width] : {std::tuple{1, 7, 64}, {700, 33, 127}, {300, 4008, 384}}) {
      const Matrix in = random_matrix(random, dtype, count, width, 1, 2),
                   before = random_matrix(random, IX_F32, vocabulary, width, 0.1);
      std::vector<int32_t> ids = random_ids(random, count, vocabulary);
      ids.back() = vocabulary - 1;
      lab.check(text("%s %d of %dx%d", dtype_text(dtype), count, vocabulary, width), kF32,
                [&, vocabulary = vocabulary](Device& d) -> Outputs {
                  const Placed x(d, in), grad(d, before);
                  const Ids where(d, ids);
                  d.call(&ix_backend::embedding_backward, where.get(), x.mat(), grad.floats(),
                         static_cast<int64_t>(vocabulary));
                  return {{"grad", grad.read()}};
                });
    }
  }
}
