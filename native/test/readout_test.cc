// linear_logprob and linear_reward: accuracy against double, extreme logits, bits independent of the batch.
#include "reference.h"

using namespace implex;
using namespace implex::test;

namespace {

struct Logprobs {
  std::vector<double> want, bound;
};

// A logit is off by at most (D + 2) u of the sum of |h w|; both the target's and the log-sum-exp move by no more than
// the largest of these. The sum of exponentials adds 64 terms a lane and 8 tiles a chunk in f32, e^x to 2 ulp, its
// argument rounded once: 100 u. Then f32 output.
Logprobs reference_logprobs(const Matrix& hidden, const Matrix& weight, const std::vector<int32_t>& targets) {
  Logprobs r;
  for (int64_t i = 0; i < hidden.rows(); ++i) {
    std::vector<double> logits;
    double top = -1e300, slack = 0, sum = 0;
    for (int64_t j = 0; j < weight.rows(); ++j) {
      double logit = 0, magnitude = 0;
      for (int64_t d = 0; d < hidden.cols(); ++d)
        logit += hidden(i, d) * weight(j, d), magnitude += std::fabs(hidden(i, d) * weight(j, d));
      logits.push_back(logit);
      top = std::max(top, logit);
      slack = std::max(slack, static_cast<double>(hidden.cols() + 2) * kU * magnitude);
    }
    for (const double logit : logits) sum += std::exp(logit - top);
    const double logp = logits[static_cast<size_t>(targets[static_cast<size_t>(i)])] - top - std::log(sum);
    r.want.push_back(logp);
    r.bound.push_back(1.01 * (2 * slack + 100 * kU + kU * std::fabs(logp)));
  }
  return r;
}

std::vector<float> logprobs(KernelDevice& device, Matrix& hidden, const Weight& weight,
                            const std::vector<int32_t>& targets, int64_t first, int64_t count) {
  std::vector<float> out(static_cast<size_t>(count));
  const ix_mat view = hidden.view(first, count);
  device.call(&ix_backend::linear_logprob, &view, weight.get(), targets.data() + first, 0.0f, out.data(), nullptr);
  return out;
}

void check_logprobs(int64_t n, int64_t vocabulary, int64_t width, int32_t dtype, double scale, uint64_t seed) {
  Random random(seed);
  Matrix hidden = Matrix::random(random, dtype, n, width, scale, 1);
  const Matrix w = Matrix::random(random, dtype, vocabulary, width, 1);
  std::vector<int32_t> targets;
  for (int64_t i = 0; i < n; ++i)
    targets.push_back(static_cast<int32_t>(i == 0 ? vocabulary - 1 : i == 1 ? 0 : random.below(vocabulary)));
  const Logprobs reference = reference_logprobs(hidden, w, targets);
  for_each_kernels([&](KernelDevice& device) {
    const Weight weight(device, dtype, w);
    const std::vector<float> got = logprobs(device, hidden, weight, targets, 0, n);
    for (size_t i = 0; i < got.size(); ++i) {
      CHECK(std::fabs(static_cast<double>(got[i]) - reference.want[i]) <= reference.bound[i],
            "%s N %d V %d D %d scale %g row %d: %.9g, want %.9g, allowed %.3g", dtype_text(dtype), int(n),
            int(vocabulary), int(width), scale, int(i), static_cast<double>(got[i]), reference.want[i],
            reference.bound[i]);
      CHECK(got[i] <= 0, "a log-prob of %g", static_cast<double>(got[i]));
    }
  });
}

}  // namespace

TEST(linear_logprob_shapes) {
  uint64_t seed = 60;
  for (const int64_t vocabulary : {1, 5, 63, 64, 65, 300, 2047, 2048, 2049, 4500})
    for (const int64_t width : {1, 17, 64})
      for (const int32_t dtype : {IX_F32, IX_BF16}) {
        ++seed;
        check_logprobs(1 + static_cast<int64_t>(seed % 5), vocabulary, width, dtype, 2, seed);
      }
  for (const int64_t n : {95, 96, 97, 200}) check_logprobs(n, 130, 33, n % 2 ? IX_F32 : IX_BF16, 3, ++seed);
}

// Logits of about ±80 (e^x near both ends of f32) and ±10⁴ (most terms vanish, rescaling by zero).
TEST(linear_logprob_extreme_logits) {
  uint64_t seed = 90;
  for (const double scale : {80.0, 1e4}) {
    for (const int32_t dtype : {IX_F32, IX_BF16}) {
      check_logprobs(9, 4100, 1, dtype, scale, ++seed);
      check_logprobs(9, 4100, 8, dtype, scale, ++seed);
    }
  }
}

// All logits equal: ln(1/V), the same for every target.
TEST(linear_logprob_uniform) {
  for_each_kernels([](KernelDevice& device) {
    Matrix hidden(IX_F32, 1, 3), w(IX_F32, 5000, 3);
    for (int64_t c = 0; c < 3; ++c) hidden.set(0, c, 1e3);
    for (int64_t r = 0; r < 5000; ++r)
      for (int64_t c = 0; c < 3; ++c) w.set(r, c, 1.0);
    const Weight weight(device, IX_F32, w);
    for (const int32_t target : {0, 2047, 2048, 4999}) {
      const double got = static_cast<double>(logprobs(device, hidden, weight, {target}, 0, 1)[0]);
      CHECK(std::fabs(got + std::log(5000.0)) < 1e-6, "target %d: %.9g", target, got);
    }
  });
}

TEST(linear_logprob_rows_are_independent) {
  for (const int32_t dtype : {IX_F32, IX_BF16}) {
    Random random(61);
    Matrix hidden = Matrix::random(random, dtype, 200, 41, 2);
    const Matrix w = Matrix::random(random, dtype, 2300, 41, 1);
    std::vector<int32_t> targets;
    for (int i = 0; i < 200; ++i) targets.push_back(static_cast<int32_t>(random.below(2300)));
    for_each_kernels([&](KernelDevice& device) {
      const Weight weight(device, dtype, w);
      const std::vector<float> all = logprobs(device, hidden, weight, targets, 0, 200);
      for (int64_t i = 0; i < 200; ++i)
        CHECK(logprobs(device, hidden, weight, targets, i, 1)[0] == all[static_cast<size_t>(i)],
              "%s row %d alone differs", dtype_text(dtype), int(i));
      for (const int64_t count : {2, 5, 6, 7, 95, 96, 97, 131}) {
        const int64_t first = random.below(200 - count + 1);
        const std::vector<float> some = logprobs(device, hidden, weight, targets, first, count);
        CHECK(std::memcmp(some.data(), &all[static_cast<size_t>(first)], some.size() * sizeof(float)) == 0,
              "%s rows %d to %d differ", dtype_text(dtype), int(first), int(first + count));
      }
    });
  }
}

TEST(linear_logprob_refuses_bad_targets) {
  for_each_kernels([](KernelDevice& device) {
    Random random(62);
    Matrix hidden = Matrix::random(random, IX_F32, 1, 4), narrow = Matrix::random(random, IX_F32, 1, 3);
    const Weight weight(device, IX_F32, Matrix::random(random, IX_F32, 10, 4));
    float out;
    const auto code = [&](Matrix& m, int32_t target) {
      const ix_mat view = m.view();
      return device.attempt(&ix_backend::linear_logprob, &view, weight.get(), &target, 0.0f, &out, nullptr);
    };
    CHECK(code(hidden, 9) == IX_OK, "the last token");
    CHECK(code(hidden, 10) == IX_INVALID && code(hidden, -1) == IX_INVALID, "targets outside the vocabulary");
    CHECK(code(narrow, 0) == IX_INVALID, "another width");
  });
}

TEST(linear_reward_accuracy) {
  Random random(63);
  for (const int32_t kind : {IX_NORM_RMS, IX_NORM_LAYER}) {
    for (const int64_t width : {1, 19, 64, 131}) {
      Matrix in = Matrix::random(random, IX_F32, 60, width, 3, 1);
      const std::vector<float> gamma = random_vector(random, width, 0.5, 1.5), beta = random_vector(random, width),
                               head = random_vector(random, width);
      const std::vector<int32_t> first = {0, 0, 59, 7, 30}, count = {1, 60, 1, 20, 17};
      for_each_kernels([&](KernelDevice& device) {
        const ix_norm norm = {kind, gamma.data(), kind == IX_NORM_LAYER ? beta.data() : nullptr, 1e-6f};
        const ix_mat view = in.view();
        const auto rewards = [&](const ix_mat& m, const std::vector<int32_t>& f, const std::vector<int32_t>& c) {
          std::vector<float> out(f.size());
          device.call(&ix_backend::linear_reward, &norm, &m, head.data(), f.data(), c.data(),
                      static_cast<int32_t>(f.size()), out.data());
          return out;
        };
        const std::vector<float> got = rewards(view, first, count);
        for (size_t g = 0; g < first.size(); ++g) {
          double want = 0, bound = 0;
          for (int64_t row = first[g]; row < first[g] + count[g]; ++row) {
            const NormReference y =
                reference_norm(row_values(in, row), kind, gamma.data(), norm.beta, static_cast<double>(1e-6f));
            for (size_t d = 0; d < y.value.size(); ++d) {
              const double u = static_cast<double>(head[d]);
              want += u * y.value[d] / count[g];
              bound += (std::fabs(u) * y.bound[d] + static_cast<double>(width + 2) * kU * std::fabs(u * y.value[d])) /
                       count[g];
            }
          }
          bound += kU * std::fabs(want);
          CHECK(std::fabs(static_cast<double>(got[g]) - want) <= 1.01 * bound,
                "kind %d width %d group %d: %.9g, want %.9g, allowed %.3g", kind, int(width), int(g),
                static_cast<double>(got[g]), want, bound);
          // The same group alone, cut out of the batch.
          const ix_mat cut = in.view(first[g], count[g]);
          CHECK(rewards(cut, {0}, {count[g]})[0] == got[g], "group %d alone differs", int(g));
        }
        float out;
        for (const auto& [f, c] :
             {std::pair{-1, 1}, std::pair{60, 1}, std::pair{59, 2}, std::pair{0, 0}, std::pair{1, 2147483647}}) {
          const int32_t ff = f, cc = c;
          CHECK(device.attempt(&ix_backend::linear_reward, &norm, &view, head.data(), &ff, &cc, 1, &out) == IX_INVALID,
                "a group [%d, %d] outside the rows", f, c);
        }
      });
    }
  }
}
