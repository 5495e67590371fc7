// Operations that add or move rows in the backward pass: embedding_backward, scatter_rows, cast, fill_zero.
#include "gradient_check.h"

using namespace implex;
using namespace implex::test;

namespace {

// Rows of `in` added one after the other, in f32, as the contract says: exact, so compared by bits.
std::vector<float> added(std::vector<float> to, const Matrix& in, const std::vector<int32_t>& rows) {
  for (size_t i = 0; i < rows.size(); ++i)
    for (int64_t c = 0; c < in.cols(); ++c) {
      float& sum = to[static_cast<size_t>(rows[i] * in.cols() + c)];
      sum += static_cast<float>(in(static_cast<int64_t>(i), c));
    }
  return to;
}

}  // namespace

TEST(backward_embedding_adds_in_order) {
  Random random(500);
  for (const int32_t dtype : {IX_F32, IX_BF16}) {
    for (const int64_t width : {1, 3, 64, 131}) {
      for (const int64_t count : {1, 40, 700}) {
        constexpr int64_t kVocabulary = 29;
        Matrix in = Matrix::random(random, dtype, count, width, 100, 2);
        std::vector<int32_t> ids;
        for (int64_t i = 0; i < count; ++i)
          ids.push_back(static_cast<int32_t>(i % 3 == 0 ? 28 : random.below(kVocabulary)));
        const std::vector<float> before = random_vector(random, kVocabulary * width);
        const std::vector<float> want = added(before, in, ids);
        for_each_kernels([&](KernelDevice& device) {
          std::vector<float> got = before;
          const ix_mat view = in.view();
          device.call(&ix_backend::embedding_backward, ids.data(), &view, got.data(), kVocabulary);
          CHECK(got == want, "%s width %d count %d", dtype_text(dtype), int(width), int(count));
          for (const int32_t bad : {-1, 29}) {
            const ix_mat one = in.view(0, 1);
            CHECK(device.attempt(&ix_backend::embedding_backward, &bad, &one, got.data(), kVocabulary) == IX_INVALID &&
                      got == want,
                  "id %d", bad);
          }
        });
      }
    }
  }
}

TEST(backward_scatter_rows) {
  Random random(510);
  for (const int32_t dtype : {IX_F32, IX_BF16}) {
    for (const int64_t width : {1, 5, 64, 131}) {
      Matrix in = Matrix::random(random, dtype, 90, width, 100, 1);
      std::vector<int32_t> rows;
      for (int i = 0; i < 90; ++i) rows.push_back(static_cast<int32_t>(random.below(60)));  // some of 70 rows, repeated
      const Matrix before = Matrix::random(random, IX_F32, 70, width, 1, 3);
      for_each_kernels([&](KernelDevice& device) {
        for (const int32_t accumulate : {0, 1}) {
          std::vector<float> want;
          for (const double x : all_values(before)) want.push_back(accumulate ? static_cast<float>(x) : 0.0f);
          want = added(want, in, rows);
          Matrix out = before;
          const ix_mat in_view = in.view(), out_view = out.view();
          device.call(&ix_backend::scatter_rows, &in_view, rows.data(), &out_view, accumulate);
          CHECK(out.intact(), "scatter wrote between rows");
          CHECK(all_values(out) == widened(want), "%s width %d accumulate %d", dtype_text(dtype), int(width),
                accumulate);
        }
        Matrix half(IX_BF16, 70, width), wide(IX_F32, 70, width + 1);
        const ix_mat in_view = in.view(), half_view = half.view(), wide_view = wide.view();
        for (const ix_mat* bad : {&half_view, &wide_view})
          CHECK(device.attempt(&ix_backend::scatter_rows, &in_view, rows.data(), bad, 1) == IX_INVALID,
                "a result of another kind");
      });
    }
  }
}

TEST(backward_cast_rounds_to_nearest) {
  Random random(520);
  for (const int64_t width : {1, 15, 64, 203}) {
    for (const int32_t from : {IX_F32, IX_BF16}) {
      for (const int32_t to : {IX_F32, IX_BF16}) {
        Matrix in = Matrix::random(random, from, 21, width, 1e3, 2);
        for_each_kernels([&](KernelDevice& device) {
          Matrix out(to, 21, width, 1), short_out(to, 20, width);
          const ix_mat in_view = in.view(), out_view = out.view(), short_view = short_out.view();
          device.call(&ix_backend::cast, &in_view, &out_view);
          CHECK(out.intact(), "cast wrote between rows");
          for (int64_t r = 0; r < 21; ++r)
            for (int64_t c = 0; c < width; ++c)
              CHECK(out(r, c) == static_cast<double>(rounded(in(r, c), to)), "%s to %s: %.9g became %.9g",
                    dtype_text(from), dtype_text(to), in(r, c), out(r, c));
          CHECK(device.attempt(&ix_backend::cast, &in_view, &short_view) == IX_INVALID, "other height");
        });
      }
    }
  }
}

TEST(backward_fill_zero) {
  for_each_kernels([](KernelDevice& device) {
    std::vector<float> values(101, 5.0f);
    device.call(&ix_backend::fill_zero, values.data() + 1, size_t{99} * sizeof(float));
    device.call(&ix_backend::fill_zero, nullptr, size_t{0});
    CHECK(values.front() == 5 && values.back() == 5, "neighbours stay");
    for (size_t i = 1; i < 100; ++i) CHECK(values[i] == 0, "value %zu", i);
  });
}
