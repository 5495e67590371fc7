// The losses. Bradley-Terry is written so that neither large margin overflows or loses its digits.
#include "reward/loss.h"

#include <cmath>

namespace implex {

namespace {

// -ln σ(x) = ln(1 + e^-x).
double negative_log_sigmoid(double x) { return x > 0 ? std::log1p(std::exp(-x)) : -x + std::log1p(std::exp(x)); }
double sigmoid(double x) { return x >= 0 ? 1 / (1 + std::exp(-x)) : std::exp(x) / (1 + std::exp(x)); }

}  // namespace

PairLoss BradleyTerry::operator()(double chosen, double rejected, double margin) const {
  const double d = chosen - rejected - margin;
  const double sum = chosen + rejected;
  PairLoss pair;
  pair.loss = (1 - label_smoothing) * negative_log_sigmoid(d) + label_smoothing * negative_log_sigmoid(-d) +
              centering * sum * sum;
  const double slope = label_smoothing * sigmoid(d) - (1 - label_smoothing) * sigmoid(-d);
  pair.chosen_grad = slope + 2 * centering * sum;
  pair.rejected_grad = -slope + 2 * centering * sum;
  return pair;
}

PairLoss generative_loss(double chosen_yes, double rejected_no) {
  return {-0.5 * chosen_yes + -0.5 * rejected_no, -0.5, -0.5};
}

SequenceLoss sft_loss(double logprob) { return {-logprob, -1}; }

}  // namespace implex
