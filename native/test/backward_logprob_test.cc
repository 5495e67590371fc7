// Backward of the fused log-prob head: accuracy across chunks of rows and vocabulary, extreme and saturated logits.
#include "gradient_check.h"

using namespace implex;
using namespace implex::test;

namespace {

struct Problem {
  Matrix hidden, weight;
  std::vector<int32_t> targets;
  std::vector<float> grad;
};

Problem random_problem(int64_t n, int64_t vocabulary, int64_t width, int32_t dtype, double scale, uint64_t seed) {
  Random random(seed);
  Problem p = {Matrix::random(random, dtype, n, width, scale, 1),
               Matrix::random(random, dtype, vocabulary, width, 1),
               {},
               random_vector(random, n)};
  for (int64_t i = 0; i < n; ++i)
    p.targets.push_back(static_cast<int32_t>(i == 0 ? vocabulary - 1 : i == 1 ? 0 : random.below(vocabulary)));
  return p;
}

struct Expected {
  Bounded hidden, weight;
  std::vector<float> lse;
};

// d logp[i] / d logit[j] = 1[j = target] - p. In f32 a logit is off by (D + 2) u of the sum of |h w| and the given
// ln sum exp is rounded, which moves p, or 1 - p at the target, by p times as much; products then take the gradient of
// a logit in the weight's dtype, and sum it over the vocabulary or the rows.
Expected expected_gradients(const Problem& p) {
  const int64_t n = p.hidden.rows(), vocabulary = p.weight.rows(), width = p.hidden.cols();
  const int32_t dtype = p.hidden.dtype();
  const std::vector<double> h = all_values(p.hidden), w = all_values(p.weight);
  Expected e = {Bounded(h.size()), Bounded(w.size()), {}};
  std::vector<double> logits(static_cast<size_t>(vocabulary)), slack(logits.size());
  for (int64_t i = 0; i < n; ++i) {
    double top = -1e300, sum = 0;
    for (int64_t j = 0; j < vocabulary; ++j) {
      double logit = 0, magnitude = 0;
      for (int64_t d = 0; d < width; ++d) {
        const double product = h[static_cast<size_t>(i * width + d)] * w[static_cast<size_t>(j * width + d)];
        logit += product, magnitude += std::fabs(product);
      }
      logits[static_cast<size_t>(j)] = logit;
      slack[static_cast<size_t>(j)] = static_cast<double>(width + 2) * kU * magnitude;
      top = std::max(top, logit);
    }
    for (const double logit : logits) sum += std::exp(logit - top);
    const double lse = top + std::log(sum), g = static_cast<double>(p.grad[static_cast<size_t>(i)]);
    e.lse.push_back(static_cast<float>(lse));
    for (int64_t j = 0; j < vocabulary; ++j) {
      const auto jj = static_cast<size_t>(j);
      const bool target = p.targets[static_cast<size_t>(i)] == j;
      const double z = logits[jj] - lse, share = std::exp(z);
      const double dz = g * (target ? -std::expm1(z) : -share);
      const double error = std::fabs(g) * share * (slack[jj] + 2 * kU * (std::fabs(lse) + std::fabs(z))) +
                           8 * kU * std::fabs(dz) + (dtype == IX_BF16 ? kUBf16 * std::fabs(dz) : 0) + 1e-37;
      for (int64_t d = 0; d < width; ++d) {
        const auto at = static_cast<size_t>(i * width + d), to = static_cast<size_t>(j * width + d);
        e.hidden.value[at] += dz * w[to];
        e.hidden.bound[at] += std::fabs(w[to]) * (error + static_cast<double>(vocabulary + 2) * kU * std::fabs(dz));
        e.weight.value[to] += dz * h[at];
        e.weight.bound[to] += std::fabs(h[at]) * (error + static_cast<double>(n + 2) * kU * std::fabs(dz));
      }
    }
  }
  return e;
}

void check(Problem& p, double gradient_before, const char* name) {
  Expected want = expected_gradients(p);
  const int64_t n = p.hidden.rows(), vocabulary = p.weight.rows(), width = p.hidden.cols();
  for (size_t i = 0; i < want.weight.value.size(); ++i) {
    want.weight.value[i] += gradient_before;
    // Added to once for each chunk of 1024 rows.
    want.weight.bound[i] +=
        static_cast<double>(1 + n / 1024) * kU * (std::fabs(want.weight.value[i]) + std::fabs(gradient_before));
  }
  const std::string what =
      text("%s %s N %d V %d D %d", name, dtype_text(p.hidden.dtype()), int(n), int(vocabulary), int(width));
  for_each_kernels([&](KernelDevice& device) {
    const Weight weight(device, p.hidden.dtype(), p.weight, true);
    Matrix hidden_grad(IX_F32, n, width, 2);
    std::vector<float> weight_grad(static_cast<size_t>(vocabulary * width), static_cast<float>(gradient_before));
    const auto run = [&](int64_t first, int64_t count, Matrix& to, float* to_weight) {
      const ix_mat h = p.hidden.view(first, count), g = to.view(first, count);
      device.call(&ix_backend::linear_logprob_backward, &h, weight.get(), p.targets.data() + first, 0.0f,
                  want.lse.data() + first, p.grad.data() + first, &g, to_weight);
    };
    run(0, n, hidden_grad, weight_grad.data());
    check_within((what + " hidden").c_str(), hidden_grad, want.hidden);
    check_within((what + " weight").c_str(), weight_grad, want.weight);
    Matrix alone(IX_F32, n, width, 2);
    run(0, n, alone, nullptr);
    for (int64_t row = 0; row < n; ++row)
      CHECK(alone.same_row(row, hidden_grad, row), "%s: row %d differs when the weight's gradient is not wanted",
            what.c_str(), int(row));
    for (int64_t row = 0; row < n; row += 1 + n / 9) run(row, 1, alone, nullptr);
    for (int64_t row = 0; row < n; ++row)
      CHECK(alone.same_row(row, hidden_grad, row), "%s: row %d differs from itself alone", what.c_str(), int(row));
  });
}

}  // namespace

TEST(backward_logprob_formulas) {
  const Problem p = random_problem(4, 9, 5, IX_F32, 1, 600);
  const Expected e = expected_gradients(p);
  std::vector<double> x = all_values(p.hidden), gradient = e.hidden.value;
  for (const double w : all_values(p.weight)) x.push_back(w);
  gradient.insert(gradient.end(), e.weight.value.begin(), e.weight.value.end());
  const auto value = [&](const std::vector<double>& v) {
    double total = 0;
    for (size_t i = 0; i < 4; ++i) {
      double sum = 0, at_target = 0;
      for (size_t j = 0; j < 9; ++j) {
        double logit = 0;
        for (size_t d = 0; d < 5; ++d) logit += v[i * 5 + d] * v[20 + j * 5 + d];
        sum += std::exp(logit);
        if (static_cast<size_t>(p.targets[i]) == j) at_target = logit;
      }
      total += static_cast<double>(p.grad[i]) * (at_target - std::log(sum));
    }
    return total;
  };
  check_differences("log-prob", value, x, gradient, 601);
}

TEST(backward_logprob_shapes) {
  uint64_t seed = 610;
  for (const int64_t vocabulary : {1, 5, 63, 65, 300, 2047, 2048, 2049, 4501}) {
    for (const int32_t dtype : {IX_F32, IX_BF16}) {
      ++seed;
      Problem p = random_problem(1 + static_cast<int64_t>(seed % 5), vocabulary, seed % 3 ? 17 : 40, dtype, 2, seed);
      check(p, seed % 2 ? 0 : 0.75, "shapes");
    }
  }
  for (const int64_t n : {95, 96, 97, 200, 1024, 1025, 2100}) {
    Problem p = random_problem(n, 67, 9, n % 2 ? IX_F32 : IX_BF16, 3, ++seed);
    check(p, 0.5, "rows");
  }
  Problem both = random_problem(1030, 2101, 3, IX_F32, 2, ++seed);  // more than one chunk both ways
  check(both, 0, "both");
}

// Logits of about ±80, near both ends of e^x in f32, and larger.
TEST(backward_logprob_extreme_logits) {
  uint64_t seed = 650;
  for (const double scale : {80.0, 1e3}) {
    for (const int32_t dtype : {IX_F32, IX_BF16}) {
      Problem p = random_problem(9, 2300, 1, dtype, scale, ++seed);
      check(p, 0, "extreme");
    }
  }
}

// A target whose probability is nearly 1, and ln sum exp nearly 0: 1 - p must keep its digits.
TEST(backward_logprob_saturated_target) {
  for_each_kernels([](KernelDevice& device) {
    for (const double gap : {5.0, 12.0, 16.0, 25.0, 60.0}) {
      Matrix hidden(IX_F32, 1, 1), w(IX_F32, 3, 1), hidden_grad(IX_F32, 1, 1);
      hidden.set(0, 0, 1);
      w.set(0, 0, -gap);
      w.set(1, 0, 0);
      w.set(2, 0, -gap);
      const Weight weight(device, IX_F32, w, true);
      const std::vector<int32_t> targets = {1};
      const std::vector<float> lse = {static_cast<float>(std::log1p(2 * std::exp(-gap)))}, grad = {1.0f};
      std::vector<float> weight_grad(3);
      const ix_mat h = hidden.view(), g = hidden_grad.view();
      device.call(&ix_backend::linear_logprob_backward, &h, weight.get(), targets.data(), 0.0f, lse.data(), grad.data(),
                  &g, weight_grad.data());
      const double rest = -std::expm1(-std::log1p(2 * std::exp(-gap)));
      CHECK(std::fabs(static_cast<double>(weight_grad[1]) - rest) <= 4 * kU * rest, "gap %g: %.9g, want %.9g", gap,
            static_cast<double>(weight_grad[1]), rest);
      CHECK(std::fabs(static_cast<double>(weight_grad[0]) + rest / 2) <= 20 * kU * rest, "gap %g: %.9g, want %.9g", gap,
            static_cast<double>(weight_grad[0]), -rest / 2);
    }
  });
}

TEST(backward_logprob_refuses_disagreeing_shapes) {
  for_each_kernels([](KernelDevice& device) {
    Random random(660);
    const Matrix values = Matrix::random(random, IX_F32, 10, 4);
    const Weight weight(device, IX_F32, values, true), frozen(device, IX_F32, values);
    Matrix hidden = Matrix::random(random, IX_F32, 2, 4), narrow = Matrix::random(random, IX_F32, 2, 3),
           half(IX_BF16, 2, 4), grad(IX_F32, 2, 4), more(IX_F32, 3, 4);
    const std::vector<int32_t> targets = {0, 9};
    const std::vector<float> numbers = {3.0f, 3.0f};
    const auto code = [&](ix_mat h, const Weight& w, ix_mat g) {
      return device.attempt(&ix_backend::linear_logprob_backward, &h, w.get(), targets.data(), 0.0f, numbers.data(),
                            numbers.data(), &g, nullptr);
    };
    CHECK(code(hidden.view(), weight, grad.view()) == IX_OK, "the right shapes");
    CHECK(code(hidden.view(0, 0), weight, grad.view(0, 0)) == IX_OK, "no rows");
    CHECK(code(hidden.view(), frozen, grad.view()) == IX_INVALID, "a weight that is not trainable");
    CHECK(code(narrow.view(), weight, grad.view()) == IX_INVALID, "other width");
    CHECK(code(hidden.view(), weight, half.view()) == IX_INVALID, "other dtype");
    CHECK(code(hidden.view(), weight, more.view()) == IX_INVALID, "other height");
  });
}
