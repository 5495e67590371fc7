// The read-outs: log-probabilities and rewards, forward and backward.
#include <numeric>

#include "parity/placed.h"

using namespace implex;
using namespace implex::test;

namespace {

struct Head {
  int64_t n, v, d;
};
// Vocabularies as ragged as real ones (128256 = 4008 * 32, 50304 = 393 * 128, 151936 = 1187 * 128), scaled down, and
// past the CPU's chunk of 2048.
constexpr Head kHeads[] = {{1, 4008, 64},   {127, 1187, 96}, {129, 393, 80}, {300, 2051, 48},
                           {16, 4500, 256}, {5, 1, 64},      {33, 130, 127}, {2, 7, 2048}};

std::string head_text(int32_t dtype, const Head& h) {
  return text("%s %lldx%lldx%lld", dtype_text(dtype), (long long)h.n, (long long)h.v, (long long)h.d);
}

struct LogprobInputs {
  Matrix hidden, weight;
  std::vector<int32_t> targets;
};

LogprobInputs logprob_inputs(Random& random, int32_t dtype, const Head& h, double scale) {
  LogprobInputs in = {random_matrix(random, dtype, h.n, h.d, 1, 8),
                      random_matrix(random, dtype, h.v, h.d, scale * std::pow(static_cast<double>(h.d), -0.5)),
                      random_ids(random, h.n, h.v)};
  in.targets.back() = static_cast<int32_t>(h.v - 1);
  return in;
}

Outputs run_logprob(Device& d, const Matrix& hidden, const PlacedWeight& weight, const std::vector<int32_t>& targets,
                    bool with_lse, float cap = 0) {
  const Placed x(d, hidden);
  const Ids ids(d, targets);
  const Result logp(d, IX_F32, hidden.rows(), 1), lse(d, IX_F32, hidden.rows(), 1);
  d.call(&ix_backend::linear_logprob, x.mat(), weight.get(), ids.get(), cap, logp.floats(),
         with_lse ? lse.floats() : nullptr);
  Outputs out = {{"logp", logp.read()}};
  if (with_lse) out.push_back({"lse", lse.read()});
  return out;
}

}  // namespace

PARITY(linear_logprob, values) {
  Random random(301);
  for (const int32_t dtype : {IX_F32, IX_BF16}) {
    for (const Head& h : kHeads) {
      for (const double scale : {1.0, 40.0}) {  // 40: logits of tens, a softmax near one-hot
        const LogprobInputs in = logprob_inputs(random, dtype, h, scale);
        for (const bool with_lse : {true, false}) {
          // bf16 operands are the same on both sides and logits stay f32, so the bound is f32's.
          lab.check(head_text(dtype, h) + text(", logits of %g", scale), kLogprob, [&](Device& d) {
            const PlacedWeight weight(d, in.weight);
            return run_logprob(d, in.hidden, weight, in.targets, with_lse);
          });
        }
      }
    }
  }
}

// Caps far below the logits' spread, about as large, and above all.
PARITY(linear_logprob, caps) {
  Random random(307);
  for (const int32_t dtype : {IX_F32, IX_BF16}) {
    for (const Head& h : kHeads) {
      const LogprobInputs in = logprob_inputs(random, dtype, h, 6);
      for (const float cap : {0.5f, 3.0f, 30.0f})
        lab.check(head_text(dtype, h) + text(", cap %g", static_cast<double>(cap)), kLogprob, [&](Device& d) {
          const PlacedWeight weight(d, in.weight);
          return run_logprob(d, in.hidden, weight, in.targets, true, cap);
        });
    }
  }
}

PARITY(linear_logprob, rows) {
  Random random(302);
  for (const int32_t dtype : {IX_F32, IX_BF16}) {
    for (const Head& h : {Head{300, 2051, 64}, {600, 517, 80}}) {
      const LogprobInputs in = logprob_inputs(random, dtype, h, 2);
      const PlacedWeight weight(lab.subject(), in.weight);
      for (const float cap : {0.0f, 1.5f})
        lab.check_rows(head_text(dtype, h) + text(", cap %g", static_cast<double>(cap)), h.n,
                       [&](Device& d, const std::vector<int32_t>& rows) {
                         return run_logprob(d, pick(in.hidden, rows), weight, pick(in.targets, rows), true, cap);
                       });
    }
  }
}

// The log-sum-exp of the CPU on both sides: what is compared is this operation alone.
PARITY(linear_logprob_backward, values) {
  Random random(303);
  for (const int32_t dtype : {IX_F32, IX_BF16}) {
    for (const Head& h : kHeads) {
      const LogprobInputs in = logprob_inputs(random, dtype, h, 3);
      const Matrix grad = column(random, h.n), before = random_matrix(random, IX_F32, h.v, h.d, 0.1);
      const PlacedWeight reference(lab.reference(), in.weight);
      for (const auto& [frozen, cap] : {std::pair{false, 0.0f}, {true, 0.0f}, {false, 4.0f}}) {
        if (h.v == 1) continue;  // gradients of a certain outcome are 0: rounding has no scale there
        const Matrix lse = run_logprob(lab.reference(), in.hidden, reference, in.targets, true, cap)[1].values;
        lab.check(head_text(dtype, h) + text("%s, cap %g", frozen ? ", frozen" : "", static_cast<double>(cap)),
                  dtype == IX_F32 ? kF32Gradient : kBf16Terms, [&, frozen = frozen, cap = cap](Device& d) -> Outputs {
                    const PlacedWeight weight(d, in.weight, true);
                    const Placed x(d, in.hidden), l(d, lse), g(d, grad), w(d, before);
                    const Ids ids(d, in.targets);
                    const Result hidden_grad(d, IX_F32, h.n, h.d, 4);
                    d.call(&ix_backend::linear_logprob_backward, x.mat(), weight.get(), ids.get(), cap,
                           l.const_floats(), g.const_floats(), hidden_grad.mat(), frozen ? nullptr : w.floats());
                    return {{"hidden_grad", hidden_grad.read()}, {"weight_grad", w.read()}};
                  });
      }
    }
  }
}

PARITY(linear_logprob_backward, rows) {
  Random random(304);
  for (const int32_t dtype : {IX_F32, IX_BF16}) {
    const Head h = {300, 2051, 64};
    const LogprobInputs in = logprob_inputs(random, dtype, h, 2);
    const Matrix grad = column(random, h.n);
    const PlacedWeight weight(lab.subject(), in.weight, true);
    for (const float cap : {0.0f, 1.5f})
      lab.check_rows(head_text(dtype, h) + text(", cap %g", static_cast<double>(cap)), h.n,
                     [&](Device& d, const std::vector<int32_t>& rows) -> Outputs {
                       const Matrix hidden = pick(in.hidden, rows), some = pick(grad, rows);
                       const std::vector<int32_t> targets = pick(in.targets, rows);
                       const Matrix lse = run_logprob(d, hidden, weight, targets, true, cap)[1].values;
                       const Placed x(d, hidden), l(d, lse), g(d, some);
                       const Ids ids(d, targets);
                       const Result hidden_grad(d, IX_F32, hidden.rows(), h.d);
                       d.call(&ix_backend::linear_logprob_backward, x.mat(), weight.get(), ids.get(), cap,
                              l.const_floats(), g.const_floats(), hidden_grad.mat(), nullptr);
                       return {{"hidden_grad", hidden_grad.read()}};
                     });
  }
}

namespace {

struct RewardInputs {
  Matrix in, gamma, beta, head;
  int32_t kind;
};

Outputs run_reward(Device& d, const RewardInputs& r, const std::vector<int32_t>& first,
                   const std::vector<int32_t>& count) {
  const Placed x(d, r.in), g(d, r.gamma), b(d, r.beta), h(d, r.head);
  const ix_norm table = {r.kind, g.floats(), r.kind == IX_NORM_LAYER ? b.floats() : nullptr, 1e-5f};
  const auto groups = static_cast<int32_t>(first.size());
  const Result reward(d, IX_F32, groups, 1);
  d.call(&ix_backend::linear_reward, &table, x.mat(), h.const_floats(), first.data(), count.data(), groups,
         reward.floats());
  return {{"reward", reward.read()}};
}

RewardInputs reward_inputs(Random& random, int32_t kind, int64_t rows, int64_t width) {
  return {random_matrix(random, IX_F32, rows, width, 2, 3), column(random, width, 1, 1), column(random, width),
          column(random, width, std::pow(static_cast<double>(width), -0.5)), kind};
}

}  // namespace

PARITY(linear_reward, values) {
  Random random(305);
  for (const int32_t kind : {IX_NORM_RMS, IX_NORM_LAYER}) {
    for (const int64_t width : {48, 127, 2048}) {
      const RewardInputs in = reward_inputs(random, kind, 140, width);
      lab.check(text("kind %d, width %lld, last rows", kind, (long long)width), kF32, [&](Device& d) {
        return run_reward(d, in, {0, 139, 70, 71}, {1, 1, 1, 1});
      });
      lab.check(text("kind %d, width %lld, means", kind, (long long)width), kF32, [&](Device& d) {
        return run_reward(d, in, {0, 1, 130, 2}, {1, 129, 10, 137});
      });
    }
    const RewardInputs in = reward_inputs(random, kind, 200, 771);
    lab.check_rows(text("kind %d", kind), 200, [&](Device& d, const std::vector<int32_t>& rows) {
      const RewardInputs some = {pick(in.in, rows), in.gamma, in.beta, in.head, kind};
      std::vector<int32_t> first(rows.size());
      std::iota(first.begin(), first.end(), 0);
      return run_reward(d, some, first, std::vector<int32_t>(rows.size(), 1));
    });
  }
}

PARITY(linear_reward_backward, values) {
  Random random(306);
  for (const int32_t kind : {IX_NORM_RMS, IX_NORM_LAYER}) {
    for (const auto& [rows, width] : {std::pair{1, 48}, {129, 127}, {300, 384}, {70, 2048}}) {
      const RewardInputs in = reward_inputs(random, kind, rows, width);
      const Matrix row_grad = column(random, rows), gamma_before = column(random, width),
                   beta_before = column(random, width), head_before = column(random, width);
      for (const bool frozen : {false, true}) {
        lab.check(text("kind %d, %dx%d", kind, rows, width) + (frozen ? ", frozen" : ""), kF32Gradient,
                  [&, rows = rows, width = width](Device& d) -> Outputs {
                    const Placed x(d, in.in), g(d, in.gamma), b(d, in.beta), h(d, in.head), y(d, row_grad),
                        gamma(d, gamma_before), beta(d, beta_before), head(d, head_before);
                    const ix_norm table = {kind, g.floats(), kind == IX_NORM_LAYER ? b.floats() : nullptr, 1e-5f};
                    const Result in_grad(d, IX_F32, rows, width, 2);
                    d.call(&ix_backend::linear_reward_backward, &table, x.mat(), h.const_floats(), y.const_floats(),
                           in_grad.mat(), frozen ? nullptr : gamma.floats(),
                           frozen || kind == IX_NORM_RMS ? nullptr : beta.floats(), frozen ? nullptr : head.floats());
                    return {{"in_grad", in_grad.read()},
                            {"gamma_grad", gamma.read()},
                            {"beta_grad", beta.read()},
                            {"head_grad", head.read()}};
                  });
      }
    }
    const RewardInputs in = reward_inputs(random, kind, 200, 771);
    const Matrix row_grad = column(random, 200);
    lab.check_rows(text("kind %d", kind), 200, [&](Device& d, const std::vector<int32_t>& rows) -> Outputs {
      const Matrix some = pick(in.in, rows), grads = pick(row_grad, rows);
      const Placed x(d, some), g(d, in.gamma), b(d, in.beta), h(d, in.head), y(d, grads);
      const ix_norm table = {kind, g.floats(), kind == IX_NORM_LAYER ? b.floats() : nullptr, 1e-5f};
      const Result in_grad(d, IX_F32, some.rows(), 771);
      d.call(&ix_backend::linear_reward_backward, &table, x.mat(), h.const_floats(), y.const_floats(), in_grad.mat(),
             nullptr, nullptr, nullptr);
      return {{"in_grad", in_grad.read()}};
    });
  }
}
