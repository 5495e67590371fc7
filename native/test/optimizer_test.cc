// Optimiser steps against PyTorch's rules in double, and the sum of squares.
#include <limits>

#include "gradient_check.h"

using namespace implex;
using namespace implex::test;

namespace {

struct State {
  std::vector<double> parameters, first, second;
};

// torch.optim.AdamW, RMSprop and SGD (not foreach, not centered, no dampening or nesterov).
void reference_step(const ix_optimizer& o, const std::vector<float>& gradients, State& s) {
  const auto as_double = [](float x) { return static_cast<double>(x); };
  const double lr = as_double(o.learning_rate), decay = as_double(o.weight_decay), eps = as_double(o.epsilon);
  const double beta1 = as_double(o.beta1), beta2 = as_double(o.beta2), momentum = as_double(o.momentum);
  const double step = static_cast<double>(o.step);
  for (size_t i = 0; i < gradients.size(); ++i) {
    double& p = s.parameters[i];
    double g = as_double(gradients[i]) * as_double(o.gradient_scale);
    if (o.kind == IX_ADAMW) {
      p *= 1 - lr * decay;
      s.first[i] = beta1 * s.first[i] + (1 - beta1) * g;
      s.second[i] = beta2 * s.second[i] + (1 - beta2) * g * g;
      const double root = std::sqrt(s.second[i]) / std::sqrt(1 - std::pow(beta2, step));
      p -= lr / (1 - std::pow(beta1, step)) * s.first[i] / (root + eps);
      continue;
    }
    g += decay * p;
    double update = g;
    if (o.kind == IX_RMSPROP) {
      s.first[i] = beta2 * s.first[i] + (1 - beta2) * g * g;
      update = g / (std::sqrt(s.first[i]) + eps);
      if (momentum > 0) update = s.second[i] = momentum * s.second[i] + update;
    } else if (momentum > 0) {
      update = s.first[i] = o.step == 1 ? g : momentum * s.first[i] + g;
    }
    p -= lr * update;
  }
}

std::string describe(const ix_optimizer& o) {
  return text("kind %d decay %g momentum %g scale %g", o.kind, static_cast<double>(o.weight_decay),
              static_cast<double>(o.momentum), static_cast<double>(o.gradient_scale));
}

void check_optimizer(ix_optimizer o, int64_t count, uint64_t seed) {
  constexpr int kSteps = 5;
  Random random(seed);
  const std::vector<float> start = random_vector(random, count);
  std::vector<std::vector<float>> gradients;
  for (int i = 0; i < kSteps; ++i) {
    gradients.push_back(random_vector(random, count, 1, 3));  // so large that decay cannot cancel them
    for (float& g : gradients.back()) g = random.below(2) ? g : -g;
    gradients.back()[0] = 0;  // never a gradient: the parameter only decays
  }
  for_each_kernels([&](KernelDevice& device) {
    const auto size = static_cast<size_t>(count);
    const bool two = o.kind == IX_ADAMW || (o.kind == IX_RMSPROP && o.momentum > 0);
    const bool one = two || o.kind == IX_RMSPROP || o.momentum > 0;
    std::vector<float> parameters = start, first(one ? size : 0), second(two ? size : 0);
    State want = {widened(start), std::vector<double>(size), std::vector<double>(size)};
    for (o.step = 1; o.step <= kSteps; ++o.step) {
      const std::vector<float>& g = gradients[static_cast<size_t>(o.step - 1)];
      device.call(&ix_backend::optimizer_step, &o, count, parameters.data(), g.data(), one ? first.data() : nullptr,
                  two ? second.data() : nullptr);
      reference_step(o, g, want);
      // Each step rounds a handful of times: the parameter, and an update of size lr · |update| with moments that carry
      // the roundings of the steps before.
      for (size_t i = 0; i < size; ++i) {
        const double moved = std::fabs(want.parameters[i] - static_cast<double>(start[i]));
        const double bound = static_cast<double>(o.step) * 4 * kU *
                                 (std::fabs(want.parameters[i]) + std::fabs(static_cast<double>(start[i]))) +
                             60 * kU * (moved + static_cast<double>(o.learning_rate) * 8);
        CHECK(std::fabs(static_cast<double>(parameters[i]) - want.parameters[i]) <= bound,
              "%s step %d at %zu: %.9g, want %.9g, allowed %.3g", describe(o).c_str(), int(o.step), i,
              static_cast<double>(parameters[i]), want.parameters[i], bound);
      }
    }
    for (size_t i = 0; i < size; ++i) {
      if (one)
        CHECK(std::fabs(static_cast<double>(first[i]) - want.first[i]) <= 60 * kU * (std::fabs(want.first[i]) + 3),
              "%s first moment at %zu: %.9g, want %.9g", describe(o).c_str(), i, static_cast<double>(first[i]),
              want.first[i]);
      if (two)
        CHECK(std::fabs(static_cast<double>(second[i]) - want.second[i]) <= 60 * kU * (std::fabs(want.second[i]) + 3),
              "%s second moment at %zu: %.9g, want %.9g", describe(o).c_str(), i, static_cast<double>(second[i]),
              want.second[i]);
    }
  });
}

}  // namespace

TEST(optimizer_rules) {
  uint64_t seed = 800;
  for (const int64_t count : {1, 7, 1000, 16384, 40003}) {  // blocks are of 16384
    for (const float decay : {0.0f, 0.1f}) {
      for (const float scale : {1.0f, 0.25f}) {
        if (count > 1000 && scale == 1.0f) continue;
        check_optimizer({IX_ADAMW, 1e-3f, decay, 1e-8f, 0.9f, 0.999f, 0, scale, 0}, count, ++seed);
        for (const float momentum : {0.0f, 0.9f}) {
          check_optimizer({IX_RMSPROP, 1e-3f, decay, 1e-8f, 0, 0.99f, momentum, scale, 0}, count, ++seed);
          check_optimizer({IX_SGD, 1e-2f, decay, 0, 0, 0, momentum, scale, 0}, count, ++seed);
        }
      }
    }
  }
}

// The first AdamW step moves every parameter by the learning rate whatever its gradient's size, until epsilon matters.
TEST(optimizer_first_adamw_step) {
  for_each_kernels([](KernelDevice& device) {
    const ix_optimizer o = {IX_ADAMW, 0.01f, 0, 1e-8f, 0.9f, 0.999f, 0, 1, 1};
    std::vector<float> parameters(6), first(6), second(6);
    const std::vector<float> gradients = {1e-4f, -1e-4f, 1.0f, -1e4f, 0.0f, 1e-8f};
    device.call(&ix_backend::optimizer_step, &o, int64_t{6}, parameters.data(), gradients.data(), first.data(),
                second.data());
    const double want[] = {-0.01 / 1.0001, 0.01 / 1.0001, -0.01, 0.01, 0, -0.005};
    for (size_t i = 0; i < 6; ++i)
      CHECK(std::fabs(static_cast<double>(parameters[i]) - want[i]) <= 1e-7 * 0.01 * 10, "%zu: %.9g, want %.9g", i,
            static_cast<double>(parameters[i]), want[i]);
    ix_optimizer unknown = o;
    unknown.kind = 3;
    CHECK(device.attempt(&ix_backend::optimizer_step, &unknown, int64_t{6}, parameters.data(), gradients.data(),
                         first.data(), second.data()) == IX_INVALID,
          "an optimiser that does not exist");
  });
}

TEST(sum_of_squares_is_double_and_not_finite_when_a_value_is_not) {
  Random random(820);
  for (const int64_t count : {0, 1, 5, 64, 16384, 16385, 50001}) {
    std::vector<float> values = random_vector(random, count, -1e3, 1e3);
    double want = 0;
    for (const double x : widened(values)) want += x * x;
    for_each_kernels([&](KernelDevice& device) {
      const auto sum = [&] {
        double result = -1;
        device.call(&ix_backend::sum_of_squares, values.data(), count, &result);
        return result;
      };
      CHECK(std::fabs(sum() - want) <= 1e-12 * want, "%d values: %.17g, want %.17g", int(count), sum(), want);
      for (const size_t at : {size_t{0}, values.size() / 2, values.size() - 1}) {
        if (count == 0) break;
        const float before = values[at];
        for (const float bad : {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity(),
                                -std::numeric_limits<float>::infinity()}) {
          values[at] = bad;
          CHECK(!std::isfinite(sum()), "%g at %zu of %d", static_cast<double>(bad), at, int(count));
        }
        values[at] = 3e38f;  // its square is no f32
        CHECK(std::isfinite(sum()) && sum() > 8e76, "a large value: %g", sum());
        values[at] = before;
      }
    });
  }
}
