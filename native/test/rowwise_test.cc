// Embedding, gather, norms, gated activations and rotary positions: accuracy, and bits independent of the other rows.
#include "reference.h"

using namespace implex;
using namespace implex::test;

namespace {

// Compares each row with the same operation on that row alone.
template <typename Whole, typename Alone>
void check_rows_alone(int64_t rows, const Whole& whole, const Alone& alone, const char* what) {
  for (int64_t row = 0; row < rows; ++row)
    CHECK(whole(row) == alone(row), "%s: row %d differs from itself alone", what, int(row));
}

}  // namespace

TEST(embedding_and_gather_are_exact) {
  Random random(20);
  for (const int32_t dtype : {IX_F32, IX_BF16}) {
    for (const int64_t width : {1, 3, 64, 131}) {
      const Matrix table = Matrix::random(random, dtype, 97, width, 3);
      std::vector<int32_t> ids;
      for (int i = 0; i < 150; ++i) ids.push_back(static_cast<int32_t>(random.below(97)));
      for_each_kernels([&](KernelDevice& device) {
        const Weight weight(device, dtype, table);
        Matrix out(IX_F32, 150, width, 2);
        const ix_mat out_view = out.view();
        device.call(&ix_backend::embedding, weight.get(), ids.data(), &out_view);
        for (int64_t i = 0; i < 150; ++i)
          for (int64_t c = 0; c < width; ++c)
            CHECK(out(i, c) == table(ids[static_cast<size_t>(i)], c), "%s embedding of %d at %d", dtype_text(dtype),
                  ids[static_cast<size_t>(i)], int(c));
        CHECK(out.intact(), "embedding wrote between rows");

        Matrix from = Matrix::random(random, dtype, 97, width, 1, 3);
        Matrix gathered(dtype, 150, width, 1);
        const ix_mat from_view = from.view();
        const ix_mat gathered_view = gathered.view();
        device.call(&ix_backend::gather_rows, &from_view, ids.data(), &gathered_view);
        for (int64_t i = 0; i < 150; ++i)
          CHECK(gathered.same_row(i, from, ids[static_cast<size_t>(i)]), "gathered row %d", int(i));
        CHECK(gathered.intact(), "gather wrote between rows");

        const int32_t bad[] = {97};
        Matrix one(IX_F32, 1, width);
        const ix_mat one_view = one.view();
        CHECK(device.attempt(&ix_backend::embedding, weight.get(), bad, &one_view) == IX_INVALID,
              "an id past the table");
      });
    }
  }
}

TEST(norm_accuracy) {
  Random random(21);
  for (const int32_t kind : {IX_NORM_RMS, IX_NORM_LAYER}) {
    for (const int64_t width : {1, 2, 5, 16, 37, 64, 131, 1000}) {
      for (const double offset : {0.0, 30.0}) {  // a mean far from zero: layer norm must not cancel
        for (const int32_t dtype : {IX_F32, IX_BF16}) {
          Matrix in(dtype, 19, width, 1);
          for (int64_t r = 0; r < 19; ++r)
            for (int64_t c = 0; c < width; ++c) in.set(r, c, offset + random.uniform(-2, 2));
          const std::vector<float> gamma = random_vector(random, width, 0.5, 1.5);
          const std::vector<float> beta = random_vector(random, width);
          for_each_kernels([&](KernelDevice& device) {
            for (const int32_t out_dtype : {IX_F32, IX_BF16}) {
              const ix_norm norm = {kind, gamma.data(), kind == IX_NORM_LAYER ? beta.data() : nullptr, 1e-5f};
              Matrix out(out_dtype, 19, width, 2);
              const ix_mat in_view = in.view();
              const ix_mat out_view = out.view();
              device.call(&ix_backend::norm, &norm, &in_view, &out_view);
              CHECK(out.intact(), "norm wrote between rows");
              for (int64_t r = 0; r < 19; ++r) {
                const NormReference want =
                    reference_norm(row_values(in, r), kind, gamma.data(), norm.beta, static_cast<double>(1e-5f));
                for (int64_t c = 0; c < width; ++c) {
                  const auto at = static_cast<size_t>(c);
                  const double bound = 1.01 * want.bound[at] + output_bound(out_dtype, want.value[at]);
                  CHECK(std::fabs(out(r, c) - want.value[at]) <= bound,
                        "kind %d width %d %s to %s offset %g: %.9g, want %.9g, allowed %.3g", kind, int(width),
                        dtype_text(dtype), dtype_text(out_dtype), offset, out(r, c), want.value[at], bound);
                }
              }
              const auto alone = [&](int64_t row) {
                Matrix one(out_dtype, 1, width);
                const ix_mat from = in.view(row, 1);
                const ix_mat to = one.view();
                device.call(&ix_backend::norm, &norm, &from, &to);
                return one.row_bits(0);
              };
              check_rows_alone(
                  19, [&](int64_t row) { return out.row_bits(row); }, alone, "norm");
              if (dtype == out_dtype) {  // in place
                Matrix same = in;
                const ix_mat both = same.view();
                device.call(&ix_backend::norm, &norm, &both, &both);
                check_rows_alone(
                    19, [&](int64_t row) { return same.row_bits(row); }, alone, "norm in place");
              }
            }
          });
        }
      }
    }
  }
}

TEST(glu_accuracy) {
  Random random(22);
  for (const int32_t dtype : {IX_F32, IX_BF16}) {
    for (const int64_t width : {1, 7, 64, 203}) {
      Matrix gate = Matrix::random(random, dtype, 37, width, 12, 1);
      const Matrix up_values = Matrix::random(random, dtype, 37, width, 3, 2);
      for (const int32_t activation : {IX_ACT_SILU, IX_ACT_GELU, IX_ACT_GELU_TANH}) {
        for_each_kernels([&](KernelDevice& device) {
          Matrix up = up_values, out(dtype, 37, width, 2);
          const ix_mat gate_view = gate.view();
          const ix_mat up_view = up.view();
          const ix_mat out_view = out.view();
          device.call(&ix_backend::glu, activation, &gate_view, &up_view, &out_view);
          for (int64_t r = 0; r < 37; ++r) {
            for (int64_t c = 0; c < width; ++c) {
              const double want = reference_activation(activation, gate(r, c)) * up(r, c);
              const double bound = std::fabs(up(r, c)) * activation_bound(activation, gate(r, c)) +
                                   2 * kU * std::fabs(want) + output_bound(dtype, want) + 1e-37;
              CHECK(std::fabs(out(r, c) - want) <= 1.01 * bound, "activation %d %s: %.9g, want %.9g", activation,
                    dtype_text(dtype), out(r, c), want);
            }
          }
          device.call(&ix_backend::glu, activation, &gate_view, &up_view, &up_view);  // in place, as the MLP does
          for (int64_t r = 0; r < 37; ++r) CHECK(up.same_row(r, out, r), "in place differs in row %d", int(r));
          CHECK(up.intact() && out.intact(), "glu wrote between rows");
          const auto alone = [&](int64_t row) {
            Matrix one(dtype, 1, width);
            Matrix source = up_values;
            const ix_mat g = gate.view(row, 1);
            const ix_mat u = source.view(row, 1);
            const ix_mat to = one.view();
            device.call(&ix_backend::glu, activation, &g, &u, &to);
            return one.row_bits(0);
          };
          check_rows_alone(
              37, [&](int64_t row) { return out.row_bits(row); }, alone, "glu");
        });
      }
    }
  }
}

TEST(rope_accuracy) {
  Random random(23);
  const std::vector<ix_segment> segments = {{0, 9, -1}, {9, 5, 0}, {14, 3, 0}, {17, 1, -1}};
  const int32_t positions[] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 9, 10, 11, 0};
  struct Case {
    int32_t heads, head_dim, rotary_dim;
  };
  for (const Case& s : {Case{1, 2, 2}, Case{3, 16, 16}, Case{2, 20, 20}, Case{2, 80, 20}, Case{4, 64, 64},
                        Case{2, 96, 24}, Case{1, 256, 64}, Case{2, 20, 6}}) {
    const int64_t half = s.rotary_dim / 2;
    std::vector<float> cosines, sines;
    for (int64_t i = 0; i < 14 * half; ++i) {
      const double angle = random.uniform(-4, 4);
      cosines.push_back(static_cast<float>(std::cos(angle)));
      sines.push_back(static_cast<float>(std::sin(angle)));
    }
    for (const int32_t dtype : {IX_F32, IX_BF16}) {
      const Matrix before = Matrix::random(random, dtype, 18, s.heads * s.head_dim, 2, 3);
      for_each_kernels([&](KernelDevice& device) {
        const Batch batch(device, segments);
        const ix_rope rope = {cosines.data(), sines.data(), s.heads, s.head_dim, s.rotary_dim, 0};
        Matrix x = before;
        const ix_mat view = x.view();
        device.call(&ix_backend::rope, batch.get(), &rope, nullptr, &view);
        CHECK(x.intact(), "rope wrote between rows");
        for (int64_t row = 0; row < 18; ++row) {
          for (int64_t head = 0; head < s.heads; ++head) {
            for (int64_t d = 0; d < s.head_dim; ++d) {
              const int64_t at = head * s.head_dim + d;
              double want = before(row, at), bound = 0;
              if (d < s.rotary_dim) {
                const int64_t i = d % half;
                const double c = static_cast<double>(cosines[static_cast<size_t>(positions[row] * half + i)]);
                const double sine = static_cast<double>(sines[static_cast<size_t>(positions[row] * half + i)]);
                const double first = before(row, head * s.head_dim + i),
                             second = before(row, head * s.head_dim + half + i);
                want = d < half ? first * c - second * sine : second * c + first * sine;
                bound = 3 * kU * (std::fabs(first) + std::fabs(second)) + output_bound(dtype, want);
              }
              CHECK(std::fabs(x(row, at) - want) <= 1.01 * bound, "%s row %d head %d dim %d: %.9g, want %.9g",
                    dtype_text(dtype), int(row), int(head), int(d), x(row, at), want);
            }
          }
        }
        // Any selection of rows, in any order, gives the same bits.
        std::vector<int32_t> rows = {17, 3, 9, 14, 3};
        Matrix some(dtype, 5, before.cols());
        for (int64_t i = 0; i < 5; ++i)
          for (int64_t c = 0; c < before.cols(); ++c) some.set(i, c, before(rows[static_cast<size_t>(i)], c));
        const ix_mat some_view = some.view();
        device.call(&ix_backend::rope, batch.get(), &rope, rows.data(), &some_view);
        for (int64_t i = 0; i < 5; ++i)
          CHECK(some.same_row(i, x, rows[static_cast<size_t>(i)]), "selected row %d differs",
                rows[static_cast<size_t>(i)]);
      });
    }
  }
}
