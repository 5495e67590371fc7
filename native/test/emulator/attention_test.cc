// Attention, forward and backward, and products: the emulated GPU against the CPU; the same bits however a sequence is
// split and whatever rows are asked for.
#include <limits>
#include <tuple>

#include "support.h"

using namespace implex;
using namespace implex::test;

namespace {

struct Heads {
  int32_t heads, kv_heads, head_dim;
  int32_t window = 0;
  float cap = 0;
};

ix_attention shape_of(const Heads& h) {
  return {h.heads,  h.kv_heads, h.head_dim, static_cast<float>(1 / std::sqrt(static_cast<double>(h.head_dim))),
          h.window, h.cap};
}

struct Result {
  Matrix out, q_grad, k_grad, v_grad;
  std::vector<float> lse;
};

Result run(TableDevice& d, const std::vector<ix_segment>& segments, const Heads& h, int32_t dtype, uint64_t seed,
           const std::vector<int32_t>* rows, int64_t gap) {
  Random random(seed);
  int64_t tokens = 0;
  for (const ix_segment& s : segments) tokens += s.length;
  Matrix q_all = Matrix::random(random, dtype, tokens, h.heads * h.head_dim),
         k = Matrix::random(random, dtype, tokens, h.kv_heads * h.head_dim, 1, gap),
         v = Matrix::random(random, dtype, tokens, h.kv_heads * h.head_dim, 1, gap),
         grad_all = Matrix::random(random, dtype, tokens, h.heads * h.head_dim);
  const int64_t count = rows != nullptr ? static_cast<int64_t>(rows->size()) : tokens;
  Matrix q(dtype, count, q_all.cols(), gap), grad(dtype, count, q_all.cols(), gap);
  for (int64_t i = 0; i < count; ++i) {
    for (int64_t c = 0; c < q.cols(); ++c) {
      const int64_t token = rows != nullptr ? (*rows)[static_cast<size_t>(i)] : i;
      q.set(i, c, q_all(token, c));
      grad.set(i, c, grad_all(token, c));
    }
  }
  Result r = {Matrix(dtype, count, q.cols(), gap), Matrix(dtype, count, q.cols(), gap),
              Matrix(dtype, tokens, k.cols(), gap), Matrix(dtype, tokens, k.cols(), gap),
              std::vector<float>(static_cast<size_t>(count * h.heads))};
  const TableBatch batch(d, segments);
  const ix_attention shape = shape_of(h);
  const ix_mat qv = q.view(), kv = k.view(), vv = v.view(), ov = r.out.view(), gv = grad.view(), qg = r.q_grad.view(),
               kg = r.k_grad.view(), vg = r.v_grad.view();
  const int32_t* named = rows != nullptr ? rows->data() : nullptr;
  d.call(&ix_backend::attention, batch.get(), &shape, &qv, named, &kv, &vv, &ov, r.lse.data());
  d.call(&ix_backend::attention_backward, batch.get(), &shape, &qv, named, &kv, &vv, &ov, r.lse.data(), &gv, &qg, &kg,
         &vg);
  return r;
}

void compare(const std::vector<ix_segment>& segments, const Heads& h, int32_t dtype, const std::vector<int32_t>* rows,
             int64_t gap) {
  const auto [want, got] = on_both([&](TableDevice& d) { return run(d, segments, h, dtype, 9, rows, gap); });
  const std::string what = std::string(dtype_text(dtype)) + " heads of " + std::to_string(h.head_dim) + ", window " +
                           std::to_string(h.window) + ", cap " + std::to_string(h.cap) + " ";
  check_close(got.out, want.out, allowed(dtype), what + "out");
  check_close(got.lse, want.lse, 2e-6, what + "lse");
  check_close(got.q_grad, want.q_grad, allowed(dtype), what + "q_grad");
  check_close(got.k_grad, want.k_grad, allowed(dtype), what + "k_grad");
  check_close(got.v_grad, want.v_grad, allowed(dtype), what + "v_grad");
}

const std::vector<ix_segment> kSegments = {{0, 30, -1},  {30, 1, 0},   {31, 14, 0},
                                           {45, 70, -1}, {115, 66, 3}, {181, 3, 3}};

}  // namespace

TEST(gpu_attention) {
  for (const int32_t head_dim : {64, 80, 96, 128, 256}) compare(kSegments, {2, 1, head_dim}, IX_BF16, nullptr, 0);
}

// Sequences of several blocks of 64 keys, windows shorter than a block, of one, and longer, which reach into the parent
// and leave whole blocks out.
const std::vector<ix_segment> kLong = {{0, 150, -1}, {150, 41, 0}, {191, 3, 0}, {194, 70, -1}};

TEST(gpu_attention_windows) {
  for (const int32_t head_dim : {64, 80, 96, 128, 256})
    for (const int32_t window : {head_dim == 80 ? 2 : 7, 64, head_dim == 64 ? 100 : 70})
      compare(kLong, {2, 1, head_dim, window}, IX_BF16, nullptr, 0);
}

TEST(gpu_attention_caps) {
  for (const int32_t head_dim : {64, 80, 96, 128, 256})
    compare(kSegments, {2, 1, head_dim, head_dim % 32 == 0 ? 0 : 33, 0.75f}, IX_BF16, nullptr, 0);
  compare(kSegments, {1, 1, 64, 0, 50}, IX_BF16, nullptr, 0);
}

TEST(gpu_attention_plain_windows_and_caps) {
  for (const int32_t window : {2, 20, 32, 33, 90}) compare(kLong, {2, 1, 20, window}, IX_F32, nullptr, 3);
  compare(kLong, {2, 2, 20, 0, 0.75f}, IX_F32, nullptr, 3);
  compare(kLong, {4, 2, 20, 40, 0.75f}, IX_F32, nullptr, 0);
  compare(kLong, {2, 2, 20, 40, 0.75f}, IX_BF16, nullptr, 1);
}

// Rows that ascend with gaps, and share a block with rows far away, whose windows begin elsewhere.
TEST(gpu_attention_windows_of_rows) {
  std::vector<int32_t> rows = {0, 3, 66, 149, 150, 190, 193, 194, 263};
  for (int32_t i = 5; i < 260; i += 11) rows.push_back(i);
  for (const int32_t window : {9, 64}) compare(kLong, {4, 2, 64, window, 2}, IX_BF16, &rows, 0);
  compare(kLong, {2, 1, 20, 9, 2}, IX_F32, &rows, 0);
}

// A window that reaches over everything is none, and a cap leaves an uncapped model's bits alone.
TEST(gpu_attention_window_of_everything) {
  TableDevice gpu(emulated_backend());
  for (const int32_t head_dim : {64, 24}) {
    const Result none = run(gpu, kSegments, {2, 1, head_dim, 0}, IX_BF16, 12, nullptr, 0);
    for (const int32_t window : {136, std::numeric_limits<int32_t>::max()}) {
      const Result all = run(gpu, kSegments, {2, 1, head_dim, window}, IX_BF16, 12, nullptr, 0);
      for (int64_t row = 0; row < 184; ++row)
        CHECK(all.out.same_row(row, none.out, row) && all.q_grad.same_row(row, none.q_grad, row) &&
                  all.k_grad.same_row(row, none.k_grad, row) && all.v_grad.same_row(row, none.v_grad, row),
              "window %d: row %d has other bits", window, static_cast<int>(row));
    }
  }
}

TEST(gpu_attention_refuses) {
  TableDevice gpu(emulated_backend());
  Matrix q(IX_F32, 4, 32), k(IX_F32, 4, 16), out(IX_F32, 4, 32);
  const TableBatch batch(gpu, {{0, 4, -1}});
  const ix_mat qv = q.view(), kv = k.view(), ov = out.view();
  const auto code = [&](ix_attention shape) {
    return gpu.attempt(&ix_backend::attention, batch.get(), &shape, &qv, static_cast<const int32_t*>(nullptr), &kv, &kv,
                       &ov, static_cast<float*>(nullptr));
  };
  CHECK(code({2, 1, 16, 1, 3, 2}) == IX_OK, "a window and a cap");
  CHECK(code({2, 1, 16, 1, -1, 0}) == IX_INVALID, "a negative window");
  for (const float cap : {-1.0f, INFINITY, NAN}) CHECK(code({2, 1, 16, 1, 0, cap}) == IX_INVALID, "a cap of %g", cap);
}

TEST(gpu_attention_plain) {
  compare(kSegments, {4, 2, 20}, IX_F32, nullptr, 3);
  compare(kSegments, {2, 2, 20}, IX_BF16, nullptr, 1);
  compare(kSegments, {2, 1, 64}, IX_BF16, nullptr, 3);  // rows that are not aligned
}

TEST(gpu_attention_rows) {
  std::vector<int32_t> rows;
  for (int32_t i = 40; i < 184; i += i < 110 ? 3 : 1) rows.push_back(i);
  rows.push_back(60);  // out of order
  rows.push_back(59);
  for (const int32_t dtype : {IX_F32, IX_BF16}) compare(kSegments, {4, 2, 64}, dtype, &rows, 0);
}

TEST(gpu_attention_split_anywhere) {
  TableDevice gpu(emulated_backend());
  constexpr int32_t kLength = 140;
  for (const Heads& h : {Heads{2, 1, 64}, {2, 1, 24}, {2, 1, 64, 10}, {2, 1, 64, 70, 2}, {2, 1, 24, 37, 2}}) {
    const Result whole = run(gpu, {{0, kLength, -1}}, h, IX_BF16, 10, nullptr, 0);
    for (const int32_t split : {1, 63, 64, 100}) {
      const Result parts = run(gpu, {{0, split, -1}, {split, kLength - split, 0}}, h, IX_BF16, 10, nullptr, 0);
      for (int32_t row = 0; row < kLength; ++row) {
        CHECK(parts.out.same_row(row, whole.out, row), "split at %d: token %d differs", split, row);
        CHECK(parts.q_grad.same_row(row, whole.q_grad, row), "split at %d: q_grad of token %d differs", split, row);
      }
    }
    const std::vector<int32_t> rows = {0, 17, 64, 90, 139};
    const Result some = run(gpu, {{0, kLength, -1}}, h, IX_BF16, 10, &rows, 0);
    for (size_t i = 0; i < rows.size(); ++i)
      CHECK(some.out.same_row(static_cast<int64_t>(i), whole.out, rows[i]), "row %d alone differs", rows[i]);
  }
}

// A tree of segments has the same gradients whatever is before it in the batch.
TEST(gpu_attention_backward_beside_others) {
  TableDevice gpu(emulated_backend());
  Random random(11);
  const std::vector<ix_segment> alone = {{0, 70, -1}, {70, 30, 0}, {100, 9, 0}};
  std::vector<ix_segment> among = {{0, 41, -1}};
  for (ix_segment s : alone) among.push_back({s.start + 41, s.length, s.parent < 0 ? -1 : s.parent + 1});
  among.push_back({150, 33, -1});
  Matrix q = Matrix::random(random, IX_BF16, 183, 128), k = Matrix::random(random, IX_BF16, 183, 64),
         v = Matrix::random(random, IX_BF16, 183, 64), grad = Matrix::random(random, IX_BF16, 183, 128);
  const auto gradients = [&](const Heads& h, const std::vector<ix_segment>& segments, int64_t first, int64_t count) {
    Result r = {Matrix(IX_BF16, count, 128), Matrix(IX_BF16, count, 128), Matrix(IX_BF16, count, 64),
                Matrix(IX_BF16, count, 64), std::vector<float>(static_cast<size_t>(count * 2))};
    const TableBatch batch(gpu, segments);
    const ix_attention shape = shape_of(h);
    const ix_mat qv = q.view(first, count), kv = k.view(first, count), vv = v.view(first, count),
                 gv = grad.view(first, count), ov = r.out.view(), qg = r.q_grad.view(), kg = r.k_grad.view(),
                 vg = r.v_grad.view();
    const int32_t* all = nullptr;
    gpu.call(&ix_backend::attention, batch.get(), &shape, &qv, all, &kv, &vv, &ov, r.lse.data());
    gpu.call(&ix_backend::attention_backward, batch.get(), &shape, &qv, all, &kv, &vv, &ov, r.lse.data(), &gv, &qg, &kg,
             &vg);
    return r;
  };
  for (const Heads& h : {Heads{2, 1, 64}, {2, 1, 64, 20, 2}}) {
    const Result one = gradients(h, alone, 41, 109), all = gradients(h, among, 0, 183);
    for (int64_t i = 0; i < 109; ++i) {
      CHECK(one.q_grad.same_row(i, all.q_grad, i + 41), "q_grad of token %d", int(i));
      CHECK(one.k_grad.same_row(i, all.k_grad, i + 41), "k_grad of token %d", int(i));
      CHECK(one.v_grad.same_row(i, all.v_grad, i + 41), "v_grad of token %d", int(i));
    }
  }
}

TEST(gpu_products) {
  Random random(12);
  for (const int32_t dtype : {IX_F32, IX_BF16}) {
    for (const auto& [rows, in, out] : {std::tuple{70, 40, 72}, std::tuple{5, 13, 9}, std::tuple{1, 64, 130}}) {
      for (const int32_t out_type : {IX_F32, IX_BF16}) {
        for (const bool extra : {false, true}) {
          Matrix x = Matrix::random(random, dtype, rows, in), g = Matrix::random(random, dtype, rows, out),
                 residual = Matrix::random(random, IX_F32, rows, out, 1),
                 residual_in = Matrix::random(random, IX_F32, rows, in, 1);
          const Matrix w = Matrix::random(random, dtype, out, in);
          const std::vector<float> bias = random_vector(random, out);
          struct Products {
            Matrix y, x_grad;
            std::vector<float> w_grad, bias_grad;
          };
          const auto [want, got] = on_both([&](TableDevice& d) {
            Products r = {Matrix(out_type, rows, out), Matrix(out_type, rows, in),
                          std::vector<float>(static_cast<size_t>(out * in), 0.5f),
                          std::vector<float>(static_cast<size_t>(out), 0.5f)};
            const TableWeight weight(d, dtype, w);
            const ix_mat xv = x.view(), gv = g.view(), yv = r.y.view(), xg = r.x_grad.view(), rv = residual.view(),
                         ri = residual_in.view();
            const ix_epilogue epilogue = {extra ? bias.data() : nullptr, extra ? &rv : nullptr};
            d.call(&ix_backend::gemm, &xv, weight.get(), &epilogue, &yv);
            d.call(&ix_backend::gemm_backward_input, &gv, weight.get(), extra ? &ri : nullptr, &xg);
            d.call(&ix_backend::gemm_backward_weight, &gv, &xv, r.w_grad.data(), r.bias_grad.data());
            return r;
          });
          const std::string what = std::to_string(in) + " to " + std::to_string(out);
          check_close(got.y, want.y, allowed(out_type), "gemm " + what);
          check_close(got.x_grad, want.x_grad, allowed(out_type), "gemm_backward_input " + what);
          check_close(got.w_grad, want.w_grad, 3e-6, "gemm_backward_weight " + what);
          check_close(got.bias_grad, want.bias_grad, 3e-6, "bias " + what);
        }
      }
    }
  }
}
