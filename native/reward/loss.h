// Losses over rewards, with their gradients; double precision, on the host: a batch has few of them.
#pragma once

namespace implex {

struct PairLoss {
  double loss = 0;
  double chosen_grad = 0;  // d loss / d reward of the chosen response
  double rejected_grad = 0;
};

struct BradleyTerry {
  double label_smoothing = 0;  // ε in [0, 0.5): (1 - ε) -ln σ(d) + ε -ln σ(-d)
  double centering = 0;        // c ≥ 0: + c (r⁺ + r⁻)², which keeps rewards near zero (arXiv 2312.09244)

  // d = r⁺ - r⁻ - margin. Loss of one pair (arXiv 2507.07981, section 2).
  PairLoss operator()(double chosen, double rejected, double margin) const;
};

}  // namespace implex
