// The losses. Bradley-Terry: values, gradients by central differences, large margins, symmetries.
#include "reward/loss.h"

#include <cmath>

#include "gradient_check.h"

using namespace implex;
using namespace implex::test;

TEST(loss_values) {
  const BradleyTerry plain;
  CHECK(std::fabs(plain(0.3, 0.3, 0).loss - std::log(2.0)) < 1e-15, "a tie costs ln 2");
  CHECK(plain(1.5, 0.5, 1).loss == plain(0, 0, 0).loss, "only the difference minus the margin counts");
  CHECK(std::fabs(plain(1, 0, 0).loss - std::log1p(std::exp(-1.0))) < 1e-15, "ln(1 + e^-1)");
  const BradleyTerry smooth = {0.1, 0.5};
  const double want = 0.9 * std::log1p(std::exp(-2.0)) + 0.1 * (2 + std::log1p(std::exp(-2.0))) + 0.5 * 16;
  CHECK(std::fabs(smooth(3, 1, 0).loss - want) < 1e-14, "smoothing and centering: %.17g, want %.17g",
        smooth(3, 1, 0).loss, want);
}

TEST(loss_gradients) {
  Random random(700);
  for (const double smoothing : {0.0, 0.1, 0.49}) {
    for (const double centering : {0.0, 0.02}) {
      const BradleyTerry loss = {smoothing, centering};
      for (int i = 0; i < 50; ++i) {
        const double range = i % 2 ? 3 : 20, margin = i % 3 ? random.uniform(-2, 2) : 0;
        const std::vector<double> x = {random.uniform(-range, range), random.uniform(-range, range)};
        const PairLoss pair = loss(x[0], x[1], margin);
        check_differences(
            "loss", [&](const std::vector<double>& v) { return loss(v[0], v[1], margin).loss; }, x,
            {pair.chosen_grad, pair.rejected_grad}, 701);
      }
    }
  }
}

TEST(loss_large_margins) {
  for (const double smoothing : {0.0, 0.1}) {
    const BradleyTerry loss = {smoothing, 0};
    for (const double d : {40.0, 710.0, 1e3, 1e6}) {
      const PairLoss right = loss(d, 0, 0), wrong = loss(-d, 0, 0);
      CHECK(std::fabs(right.loss - smoothing * d) <= 1e-15 * d, "%g: %g", d, right.loss);
      CHECK(std::fabs(wrong.loss - (1 - smoothing) * d) <= 1e-15 * d, "%g: %g", -d, wrong.loss);
      CHECK(std::fabs(right.chosen_grad - smoothing) < 1e-15 && std::fabs(wrong.chosen_grad - (smoothing - 1)) < 1e-15,
            "%g: %g and %g", d, right.chosen_grad, wrong.chosen_grad);
    }
  }
  // Far right, the gradient still has its digits: -σ(-d) = -e^-d.
  const double grad = BradleyTerry{}(50, 0, 0).chosen_grad;
  CHECK(std::fabs(grad + std::exp(-50.0)) < 1e-14 * std::exp(-50.0), "%g", grad);
}

TEST(loss_symmetries) {
  Random random(710);
  for (int i = 0; i < 100; ++i) {
    const double chosen = random.uniform(-5, 5), rejected = random.uniform(-5, 5), shift = random.uniform(-50, 50);
    const BradleyTerry loss = {0.2, 0};
    const PairLoss pair = loss(chosen, rejected, 0), shifted = loss(chosen + shift, rejected + shift, 0);
    CHECK(std::fabs(pair.loss - shifted.loss) < 1e-12 && std::fabs(pair.chosen_grad - shifted.chosen_grad) < 1e-12,
          "a shift of both rewards");
    CHECK(pair.chosen_grad == -pair.rejected_grad, "what one reward gains the other loses");
    // Swapped with the labels swapped.
    const PairLoss swapped = BradleyTerry{0.8, 0}(rejected, chosen, 0);
    CHECK(std::fabs(pair.loss - swapped.loss) < 1e-14 && std::fabs(pair.chosen_grad - swapped.rejected_grad) < 1e-14,
          "swapped: %.17g and %.17g", pair.loss, swapped.loss);
  }
}

TEST(loss_of_log_probs) {
  const PairLoss generative = generative_loss(std::log(0.25), std::log(0.5));
  CHECK(std::fabs(generative.loss - 0.5 * std::log(8.0)) < 1e-15, "the mean of both: %.17g", generative.loss);
  check_differences(
      "generative", [&](const std::vector<double>& v) { return generative_loss(v[0], v[1]).loss; }, {-0.7, -2.5},
      {generative.chosen_grad, generative.rejected_grad}, 720);
  CHECK(sft_loss(-12.5).loss == 12.5 && sft_loss(-12.5).grad == -1, "-ln p");
  for (const double bad : {-HUGE_VAL, std::nan("")})
    CHECK(!std::isfinite(generative_loss(bad, 0).loss) && !std::isfinite(generative_loss(0, bad).loss) &&
              !std::isfinite(sft_loss(bad).loss),
          "what is not finite stays so");
}
