// Losses over rewards and log-probs, with their gradients; double precision, on the host: a batch has few of them.
#pragma once

namespace implex {

struct PairLoss {
  double loss = 0;
  double chosen_grad = 0;  // d loss / d what was given of the chosen response
  double rejected_grad = 0;
};

struct BradleyTerry {
  double label_smoothing = 0;  // ε in [0, 0.5): (1 - ε) -ln σ(d) + ε -ln σ(-d)
  double centering = 0;        // c ≥ 0: + c (r⁺ + r⁻)², which keeps rewards near zero (arXiv 2312.09244)

  // d = r⁺ - r⁻ - margin. Loss of one pair (arXiv 2507.07981, section 2).
  PairLoss operator()(double chosen, double rejected, double margin) const;
};

// Generative: the mean of -ln p(Yes) at the end of the chosen response's verification prompt and -ln p(No) at the end
// of the rejected one's.
PairLoss generative_loss(double chosen_yes, double rejected_no);

struct SequenceLoss {
  double loss = 0;
  double grad = 0;  // d loss / d logprob
};

// Supervised fine-tuning: -ln π(response).
SequenceLoss sft_loss(double logprob);

}  // namespace implex
