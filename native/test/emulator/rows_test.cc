// Operations that treat rows by themselves, sums over rows, the optimisers: the emulated GPU against the CPU.
#include <tuple>

#include "support.h"

using namespace implex;
using namespace implex::test;

namespace {

constexpr int32_t kTypes[] = {IX_F32, IX_BF16};

std::string shape_text(int64_t rows, int64_t cols, int32_t in, int32_t out) {
  return std::to_string(rows) + " x " + std::to_string(cols) + " " + dtype_text(in) + " to " + dtype_text(out);
}

}  // namespace

TEST(gpu_norm) {
  Random random(1);
  for (const int64_t cols : {7, 64, 80, 512, 516, 1030}) {
    for (const int64_t gap : {0, 3}) {
      for (const int32_t kind : {IX_NORM_RMS, IX_NORM_LAYER}) {
        for (const int32_t in_type : kTypes) {
          for (const int32_t out_type : kTypes) {
            const int64_t rows = 11;
            Matrix in = Matrix::random(random, in_type, rows, cols, 2, gap);
            Matrix grad = Matrix::random(random, out_type, rows, cols, 1, gap);
            const std::vector<float> gamma = random_vector(random, cols), beta = random_vector(random, cols);
            const Matrix start = Matrix::random(random, in_type, rows, cols, 1, gap);
            struct Result {
              Matrix out, in_grad;
              std::vector<float> gamma_grad, beta_grad;
            };
            const auto [want, got] = on_both([&](TableDevice& d) {
              Result r = {Matrix(out_type, rows, cols, gap), start, std::vector<float>(cols, 0.5f),
                          std::vector<float>(cols, 0.25f)};
              const ix_norm norm = {kind, gamma.data(), kind == IX_NORM_LAYER ? beta.data() : nullptr, 1e-5f};
              const ix_mat i = in.view(), o = r.out.view(), g = grad.view(), ig = r.in_grad.view();
              d.call(&ix_backend::norm, &norm, &i, &o);
              d.call(&ix_backend::norm_backward, &norm, &i, &g, &ig, int32_t{1}, r.gamma_grad.data(),
                     kind == IX_NORM_LAYER ? r.beta_grad.data() : nullptr);
              return r;
            });
            const std::string what = shape_text(rows, cols, in_type, out_type);
            check_close(got.out, want.out, allowed(out_type), "norm " + what);
            check_close(got.in_grad, want.in_grad, allowed(in_type), "norm_backward " + what);
            check_close(got.gamma_grad, want.gamma_grad, 3e-6, "gamma's gradient " + what);
            check_close(got.beta_grad, want.beta_grad, 3e-6, "beta's gradient " + what);
          }
        }
      }
    }
  }
}

// Many rows: sums of several levels. in_grad is the memory of grad, as for the norms of heads.
TEST(gpu_norm_backward_in_place) {
  Random random(2);
  for (const int32_t dtype : kTypes) {
    const int64_t rows = 64 * 64 + 70, cols = 20;
    Matrix in = Matrix::random(random, dtype, rows, cols, 2);
    const Matrix grad = Matrix::random(random, dtype, rows, cols);
    const std::vector<float> gamma = random_vector(random, cols);
    struct Result {
      Matrix grad;
      std::vector<float> gamma_grad;
    };
    const auto [want, got] = on_both([&](TableDevice& d) {
      Result r = {grad, std::vector<float>(cols)};
      const ix_norm norm = {IX_NORM_RMS, gamma.data(), nullptr, 1e-5f};
      const ix_mat i = in.view(), g = r.grad.view();
      d.call(&ix_backend::norm_backward, &norm, &i, &g, &g, int32_t{0}, r.gamma_grad.data(), nullptr);
      return r;
    });
    check_close(got.grad, want.grad, allowed(dtype), "in place");
    check_close(got.gamma_grad, want.gamma_grad, 2e-5, "gamma's gradient");
  }
}

TEST(gpu_glu) {
  Random random(3);
  for (const int64_t cols : {5, 64, 1500}) {
    for (const int32_t dtype : kTypes) {
      for (const int32_t activation : {IX_ACT_NONE, IX_ACT_SILU, IX_ACT_GELU, IX_ACT_GELU_TANH}) {
        for (const bool gated : {false, true}) {
          Matrix gate = Matrix::random(random, dtype, 3, cols, 4, 4), up = Matrix::random(random, dtype, 3, cols),
                 grad = Matrix::random(random, dtype, 3, cols);
          struct Result {
            Matrix out, gate_grad, up_grad;
          };
          const auto [want, got] = on_both([&](TableDevice& d) {
            Result r = {Matrix(dtype, 3, cols, 1), Matrix(dtype, 3, cols), Matrix(dtype, 3, cols)};
            const ix_mat g = gate.view(), u = up.view(), o = r.out.view(), x = grad.view(), gg = r.gate_grad.view(),
                         ug = r.up_grad.view();
            const ix_mat* none = nullptr;
            d.call(&ix_backend::glu, activation, &g, gated ? &u : none, &o);
            d.call(&ix_backend::glu_backward, activation, &g, gated ? &u : none, &x, &gg, gated ? &ug : none);
            return r;
          });
          const std::string what = "activation " + std::to_string(activation);
          check_close(got.out, want.out, allowed(dtype), what);
          check_close(got.gate_grad, want.gate_grad, allowed(dtype), what + " backward");
          if (gated) check_close(got.up_grad, want.up_grad, allowed(dtype), what + " backward, up");
        }
      }
    }
  }
}

TEST(gpu_rope_embedding_gather_cast) {
  Random random(4);
  const std::vector<ix_segment> segments = {{0, 9, -1}, {9, 4, 0}, {13, 6, -1}};
  const std::vector<int32_t> rows = {3, 9, 12, 18};
  for (const int32_t dtype : kTypes) {
    for (const int64_t head_dim : {64, 10}) {
      const int32_t rotary = head_dim == 64 ? 64 : 4;
      const std::vector<float> cosines = random_vector(random, 20 * rotary / 2),
                               sines = random_vector(random, 20 * rotary / 2);
      const Matrix x = Matrix::random(random, dtype, 19, 3 * head_dim, 1, 2);
      const Matrix table = Matrix::random(random, dtype, 30, 3 * head_dim);
      struct Result {
        Matrix all, some, embedded, narrow;
      };
      const auto [want, got] = on_both([&](TableDevice& d) {
        Result r = {x, Matrix(dtype, 4, 3 * head_dim, 2), Matrix(IX_F32, 4, 3 * head_dim),
                    Matrix(IX_BF16, 4, 3 * head_dim, 5)};
        const TableBatch batch(d, segments);
        const TableWeight weight(d, dtype, table);
        ix_rope rope = {cosines.data(), sines.data(), 3, static_cast<int32_t>(head_dim), rotary, 0};
        const ix_mat a = r.all.view(), s = r.some.view(), e = r.embedded.view(), n = r.narrow.view();
        const int32_t* every = nullptr;
        d.call(&ix_backend::gather_rows, &a, rows.data(), &s);
        d.call(&ix_backend::rope, batch.get(), &rope, every, &a);
        rope.inverse = 1;
        d.call(&ix_backend::rope, batch.get(), &rope, rows.data(), &s);
        d.call(&ix_backend::embedding, weight.get(), rows.data(), &e);
        d.call(&ix_backend::cast, &s, &n);
        return r;
      });
      check_close(got.all, want.all, allowed(dtype), "rope");
      check_close(got.some, want.some, allowed(dtype), "rope of rows");
      check_close(got.embedded, want.embedded, 0, "embedding");
      check_close(got.narrow, want.narrow, 6e-3, "cast");
    }
  }
}

TEST(gpu_scatter) {
  Random random(5);
  for (const int32_t dtype : kTypes) {
    for (const int64_t cols : {3, 1030}) {
      Matrix in = Matrix::random(random, dtype, 300, cols);
      std::vector<int32_t> rows;
      for (int i = 0; i < 300; ++i) rows.push_back(static_cast<int32_t>(random.below(i % 3 == 0 ? 3 : 40)));
      struct Result {
        Matrix out, added;
        std::vector<float> table;
      };
      const auto [want, got] = on_both([&](TableDevice& d) {
        Random same(6);
        Result r = {Matrix(IX_F32, 40, cols, 2), Matrix::random(same, IX_F32, 40, cols),
                    std::vector<float>(static_cast<size_t>(40 * cols), 0.5f)};
        const ix_mat i = in.view(), o = r.out.view(), a = r.added.view();
        d.call(&ix_backend::scatter_rows, &i, rows.data(), &o, int32_t{0});
        d.call(&ix_backend::scatter_rows, &i, rows.data(), &a, int32_t{1});
        d.call(&ix_backend::embedding_backward, rows.data(), &i, r.table.data(), int64_t{40});
        return r;
      });
      // The order of the additions is the same, so the bits are.
      check_close(got.out, want.out, 0, "scatter_rows");
      check_close(got.added, want.added, 0, "scatter_rows, adding");
      check_close(got.table, want.table, 0, "embedding_backward");
    }
  }
}

TEST(gpu_linear_reward) {
  Random random(7);
  for (const int64_t cols : {48, 700}) {
    for (const int32_t kind : {IX_NORM_RMS, IX_NORM_LAYER}) {
      Matrix in = Matrix::random(random, IX_F32, 75, cols, 3);
      const std::vector<float> gamma = random_vector(random, cols), beta = random_vector(random, cols),
                               head = random_vector(random, cols), row_grad = random_vector(random, 75);
      const std::vector<int32_t> first = {0, 3, 74, 0}, count = {3, 70, 1, 75};
      struct Result {
        std::vector<float> reward, gamma, beta, head;
        Matrix grad;
      };
      const auto [want, got] = on_both([&](TableDevice& d) {
        Result r = {std::vector<float>(4), std::vector<float>(cols, 1.0f), std::vector<float>(cols),
                    std::vector<float>(cols), Matrix(IX_F32, 75, cols)};
        const ix_norm norm = {kind, gamma.data(), beta.data(), 1e-5f};
        const ix_mat i = in.view(), g = r.grad.view();
        d.call(&ix_backend::linear_reward, &norm, &i, head.data(), first.data(), count.data(), int32_t{4},
               r.reward.data());
        d.call(&ix_backend::linear_reward_backward, &norm, &i, head.data(), row_grad.data(), &g, r.gamma.data(),
               r.beta.data(), r.head.data());
        return r;
      });
      check_close(got.reward, want.reward, 3e-6, "linear_reward");
      check_close(got.grad, want.grad, 3e-6, "linear_reward_backward");
      check_close(got.gamma, want.gamma, 5e-6, "gamma's gradient");
      check_close(got.beta, want.beta, 5e-6, "beta's gradient");
      check_close(got.head, want.head, 5e-6, "the head's gradient");
    }
  }
}

TEST(gpu_scaled_add) {
  Random random(13);
  for (const int64_t cols : {5, 64, 1030, 2100}) {
    for (const int32_t in_type : kTypes) {
      for (const int32_t out_type : kTypes) {
        for (const bool with_residual : {false, true}) {
          Matrix in = Matrix::random(random, in_type, 9, cols, 2, 4),
                 residual = Matrix::random(random, IX_F32, 9, cols);
          const auto [want, got] = on_both([&](TableDevice& d) {
            Matrix out(out_type, 9, cols, cols == 64 ? 4 : 1);
            const ix_mat i = in.view(), r = residual.view(), o = out.view();
            d.call(&ix_backend::scaled_add, &i, 0.3f, with_residual ? &r : static_cast<const ix_mat*>(nullptr), &o);
            return out;
          });
          check_close(got, want, allowed(out_type), "scaled_add " + shape_text(9, cols, in_type, out_type));
        }
      }
    }
    // Into the residual, and into the input.
    Matrix in = Matrix::random(random, IX_F32, 9, cols);
    const Matrix residual = Matrix::random(random, IX_F32, 9, cols);
    const auto [want, got] = on_both([&](TableDevice& d) {
      Matrix sum = residual, scaled = in;
      const ix_mat i = in.view(), s = sum.view(), x = scaled.view();
      d.call(&ix_backend::scaled_add, &i, -1.5f, &s, &s);
      d.call(&ix_backend::scaled_add, &x, 0.22f, static_cast<const ix_mat*>(nullptr), &x);
      return std::pair(sum, scaled);
    });
    check_close(got.first, want.first, 3e-6, "scaled_add into the residual");
    check_close(got.second, want.second, 3e-6, "scaled_add in place");
  }
}

namespace {

// What the operations on experts leave, of `rows` rows from the first on.
struct Experts {
  std::vector<int32_t> experts;
  std::vector<float> weights, weights_grad;
  Matrix out, in_grad, logits_grad;
};

struct ExpertsInputs {
  Matrix logits, values, residual, grad;
  int32_t count, normalize, grad_type;
};

Experts run_experts(TableDevice& d, ExpertsInputs& in, int64_t rows) {
  const int64_t cols = in.values.cols(), places = rows * in.count;
  const size_t some = static_cast<size_t>(places);
  Experts r = {std::vector<int32_t>(some),         std::vector<float>(some),
               std::vector<float>(some),           Matrix(IX_F32, rows, cols, 1),
               Matrix(in.grad_type, places, cols), Matrix(IX_F32, rows, in.logits.cols(), 2)};
  // Any order of the places will do: backwards.
  std::vector<int32_t> where(some);
  for (size_t i = 0; i < some; ++i) where[i] = static_cast<int32_t>(some - 1 - i);
  const ix_mat logits = in.logits.view(0, rows), values = in.values.view(0, places),
               residual = in.residual.view(0, rows), grad = in.grad.view(0, rows), out = r.out.view(),
               in_grad = r.in_grad.view(), logits_grad = r.logits_grad.view();
  d.call(&ix_backend::top_experts, &logits, in.count, in.normalize, r.experts.data(), r.weights.data());
  d.call(&ix_backend::combine_experts, &values, where.data(), r.weights.data(), in.count,
         in.normalize != 0 ? &residual : static_cast<const ix_mat*>(nullptr), &out);
  d.call(&ix_backend::combine_experts_backward, &grad, &values, where.data(), r.weights.data(), in.count, &in_grad,
         r.weights_grad.data());
  d.call(&ix_backend::top_experts_backward, &logits, in.count, in.normalize, r.experts.data(), r.weights_grad.data(),
         &logits_grad);
  return r;
}

ExpertsInputs experts_inputs(Random& random, int64_t rows, int64_t all, int32_t count, int64_t cols, int32_t normalize,
                             int32_t grad_type) {
  ExpertsInputs in = {Matrix::random(random, IX_F32, rows, all, 4, 1),
                      Matrix::random(random, IX_F32, rows * count, cols),
                      Matrix::random(random, IX_F32, rows, cols),
                      Matrix::random(random, IX_F32, rows, cols),
                      count,
                      normalize,
                      grad_type};
  for (int64_t i = 0; i < all; ++i) in.logits.set(0, i, 0.5);                           // equals
  for (int64_t i = 0; i < all; ++i) in.logits.set(rows / 2, i, i % 3 == 1 ? 90 : -90);  // far apart
  return in;
}

}  // namespace

TEST(gpu_experts) {
  Random random(14);
  for (const auto& [all, count, cols] : {std::tuple{8, 2, 64}, {128, 8, 1030}, {3, 3, 7}, {60, 40, 16}, {1, 1, 5}}) {
    for (const int32_t normalize : {0, 1}) {
      for (const int32_t grad_type : kTypes) {
        ExpertsInputs in = experts_inputs(random, 11, all, count, cols, normalize, grad_type);
        const auto [want, got] = on_both([&](TableDevice& d) { return run_experts(d, in, 11); });
        const std::string what = text("%d of %d experts, %d columns, normalize %d: ", count, all, cols, normalize);
        CHECK(got.experts == want.experts, "%sother experts", what.c_str());
        check_close(got.weights, want.weights, 1e-6, what + "weights");
        check_close(got.out, want.out, 3e-6, what + "combine_experts");
        check_close(got.in_grad, want.in_grad, allowed(grad_type), what + "in_grad");
        check_close(got.weights_grad, want.weights_grad, 3e-6, what + "weights_grad");
        // One expert, or all of them normalized to 1 by one, has no gradient but rounding's.
        if (all > 1) check_close(got.logits_grad, want.logits_grad, 1e-5, what + "logits_grad");
      }
    }
  }
}

TEST(gpu_experts_same_bits_alone) {
  TableDevice gpu(emulated_backend());
  Random random(15);
  ExpertsInputs in = experts_inputs(random, 13, 64, 6, 300, 1, IX_BF16);
  const Experts all = run_experts(gpu, in, 13);
  for (const int64_t rows : {1, 2, 7}) {
    const Experts some = run_experts(gpu, in, rows);
    for (int64_t i = 0; i < rows; ++i) {
      CHECK(some.logits_grad.cols() == all.logits_grad.cols(), "a test's fault");
      for (int64_t k = 0; k < 6; ++k) {
        const size_t at = static_cast<size_t>(i * 6 + k);
        CHECK(some.experts[at] == all.experts[at] && some.weights[at] == all.weights[at], "row %d", int(i));
      }
    }
  }
}

// A router that has overflowed: the choice stays within the experts, and the weights carry the NaN on.
TEST(gpu_experts_not_finite) {
  TableDevice gpu(emulated_backend());
  Matrix logits(IX_F32, 3, 5);
  for (int64_t i = 0; i < 5; ++i) {
    logits.set(0, i, NAN);
    logits.set(1, i, i == 2 ? NAN : static_cast<double>(i));
    logits.set(2, i, i == 3 ? INFINITY : -INFINITY);
  }
  const ix_mat z = logits.view();
  std::vector<int32_t> experts(9);
  std::vector<float> weights(9);
  gpu.call(&ix_backend::top_experts, &z, 3, 0, experts.data(), weights.data());
  CHECK((experts == std::vector<int32_t>{0, 1, 2, 4, 3, 1, 3, 0, 1}), "numbers first, then by index");
  for (size_t i = 0; i < 6; ++i) CHECK(std::isnan(weights[i]), "weight %zu is %g", i, static_cast<double>(weights[i]));
}

TEST(gpu_experts_refuses) {
  TableDevice gpu(emulated_backend());
  Matrix logits(IX_F32, 2, 4), half(IX_BF16, 2, 4), values(IX_F32, 4, 8), few(IX_F32, 3, 8), out(IX_F32, 2, 8);
  std::vector<int32_t> ids(10);
  std::vector<float> numbers(10);
  const ix_mat z = logits.view(), n = half.view(), v = values.view(), f = few.view(), o = out.view();
  const auto choose = [&](const ix_mat* from, int32_t count) {
    return gpu.attempt(&ix_backend::top_experts, from, count, 1, ids.data(), numbers.data());
  };
  CHECK(choose(&z, 4) == IX_OK && choose(&z, 5) == IX_INVALID && choose(&z, 0) == IX_INVALID, "how many");
  CHECK(choose(&n, 2) == IX_INVALID, "logits that are not f32");
  const auto combine = [&](const ix_mat* from, int32_t count) {
    return gpu.attempt(&ix_backend::combine_experts, from, ids.data(), numbers.data(), count,
                       static_cast<const ix_mat*>(nullptr), &o);
  };
  CHECK(combine(&v, 2) == IX_OK && combine(&f, 2) == IX_INVALID && combine(&v, 3) == IX_INVALID, "rows of places");
}

TEST(gpu_optimizers) {
  Random random(8);
  const int64_t count = 40000;
  const std::vector<float> gradients = random_vector(random, count), start = random_vector(random, count);
  for (const int32_t kind : {IX_ADAMW, IX_RMSPROP, IX_SGD}) {
    struct Result {
      std::vector<float> p, m, v;
      double sum = 0;
    };
    const auto [want, got] = on_both([&](TableDevice& d) {
      Result r = {start, std::vector<float>(count), std::vector<float>(count)};
      ix_optimizer o = {kind, 1e-2f, 0.1f, 1e-8f, 0.9f, 0.99f, 0.5f, 0.7f, 1};
      for (o.step = 1; o.step <= 3; ++o.step)
        d.call(&ix_backend::optimizer_step, &o, count, r.p.data(), gradients.data(), r.m.data(), r.v.data());
      d.call(&ix_backend::sum_of_squares, r.p.data(), count, &r.sum);
      return r;
    });
    check_close(got.p, want.p, 1e-6, "parameters");
    check_close(got.m, want.m, 1e-6, "first moments");
    check_close(got.v, want.v, 1e-6, "second moments");
    CHECK(std::fabs(got.sum - want.sum) <= 1e-6 * want.sum, "sum_of_squares");
  }
}

TEST(gpu_sum_of_squares_not_finite) {
  TableDevice gpu(emulated_backend());
  std::vector<float> values(20000, 1.0f);
  for (const float bad : {INFINITY, -INFINITY, NAN}) {
    values[17001] = bad;
    double sum = 0;
    gpu.call(&ix_backend::sum_of_squares, values.data(), int64_t{20000}, &sum);
    CHECK(!std::isfinite(sum), "%g is overlooked", static_cast<double>(bad));
  }
}
