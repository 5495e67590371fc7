// Accuracy of e^x and of the activations, sampled densely over their range. reference.h states and explains the bounds.
#include <limits>

#include "reference.h"

using namespace implex;
using namespace implex::test;

namespace {

// Numbers of both signs: evenly in the interesting range, and evenly in the exponent beyond it.
std::vector<float> samples(double low, double high, int count) {
  std::vector<float> values;
  for (int i = 0; i <= count; ++i) values.push_back(static_cast<float>(low + (high - low) * i / count));
  for (double magnitude = 1e-38; magnitude < 1e30; magnitude *= 1.37) {
    values.push_back(static_cast<float>(magnitude));
    values.push_back(static_cast<float>(-magnitude));
  }
  values.push_back(0.0f);
  values.push_back(-0.0f);
  return values;
}

double ulp(double value) { return std::ldexp(1.0, std::max(-126, std::ilogb(value)) - 23); }

}  // namespace

// fold_logits with one logit x <= 0, a maximum of 0 and a sum of 0 leaves exactly the kernels' e^x.
TEST(exp_accuracy) {
  for_each_kernels([](KernelDevice& device) {
    double worst = 0;
    const auto kernel_exp = [&](float x) {
      float maximum = 0, sum = 0;
      device.kernels().fold_logits(&x, 1, &maximum, &sum);
      CHECK(maximum == 0, "maximum moved to %g", static_cast<double>(maximum));
      return sum;
    };
    for (int i = 0; i <= 800000; ++i) {
      const float x = static_cast<float>(-87.33 * i / 800000);
      const double want = std::exp(static_cast<double>(x));
      const double error = std::fabs(static_cast<double>(kernel_exp(x)) - want) / ulp(want);
      worst = std::max(worst, error);
      CHECK(error <= 2, "e^%.9g is off by %.3g ulp", static_cast<double>(x), error);
    }
    CHECK(kernel_exp(0.0f) == 1.0f && kernel_exp(-1e-30f) == 1.0f, "e^0 must be 1");
    for (const float x : {-87.4f, -88.0f, -104.0f, -1e4f, -1e30f, -3e38f, -std::numeric_limits<float>::infinity()})
      CHECK(kernel_exp(x) == 0.0f, "e^%g must vanish", static_cast<double>(x));
    CHECK(std::isnan(kernel_exp(std::numeric_limits<float>::quiet_NaN())), "NaN must stay");
  });
}

TEST(activation_accuracy) {
  const char* names[] = {"none", "silu", "gelu", "gelu_tanh"};
  for (int32_t activation = IX_ACT_NONE; activation <= IX_ACT_GELU_TANH; ++activation) {
    for (auto [low, high] : {std::pair{-16.0, 16.0}, std::pair{-120.0, 120.0}}) {
      const std::vector<float> x = samples(low, high, 60000);
      const std::vector<float> ones(x.size(), 1.0f);
      for_each_kernels([&](KernelDevice& device) {
        std::vector<float> gated(x.size()), alone(x.size());
        const int64_t n = static_cast<int64_t>(x.size());
        device.kernels().glu_row(x.data(), ones.data(), IX_F32, n, activation, gated.data());
        device.kernels().glu_row(x.data(), nullptr, IX_F32, n, activation, alone.data());
        CHECK(std::memcmp(gated.data(), alone.data(), x.size() * 4) == 0, "%s differs between its two uses",
              names[activation]);
        for (size_t i = 0; i < x.size(); ++i) {
          const double at = static_cast<double>(x[i]);
          const double want = reference_activation(activation, at);
          const double error = std::fabs(static_cast<double>(gated[i]) - want);
          CHECK(error <= activation_bound(activation, at) + 1e-44,
                "%s(%.9g) is %.9g, want %.9g: off by %.3g, allowed %.3g", names[activation], at,
                static_cast<double>(gated[i]), want, error, activation_bound(activation, at));
        }
        for (const float special : {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity()}) {
          float out;
          device.kernels().glu_row(&special, nullptr, IX_F32, 1, activation, &out);
          CHECK(std::isnan(special) ? std::isnan(out) : out == special, "%s(%g) is %g", names[activation],
                static_cast<double>(special), static_cast<double>(out));
        }
      });
    }
  }
}
