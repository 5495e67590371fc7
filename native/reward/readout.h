// Read-outs: what a reward model takes from the last hidden states of a batch, and the gradients that it sends back
// into them.
#pragma once

#include <cstdint>
#include <vector>

#include "core/cancel.h"
#include "core/ragged_batch.h"
#include "model/transformer.h"

namespace implex {

// ln p(token | everything before it), for tokens of a batch.
struct LogprobPlan {
  std::vector<int32_t> rows;     // tokens whose hidden state predicts something, ascending, unique
  std::vector<int32_t> sources;  // [N] index into rows: who predicts
  std::vector<int32_t> targets;  // [N] what is predicted

  // From predictor token and target of each prediction, in any order.
  static LogprobPlan of(const std::vector<int32_t>& predictors, std::vector<int32_t> targets);
};

class LogprobReadout : private Transformer::Layout {
 public:
  LogprobReadout(Transformer& model, LogprobPlan plan) : model_(model), plan_(std::move(plan)) {}

  // N log-probs, f32. Throws Error(kTensorMissing) when the checkpoint has no unembedding.
  std::vector<float> forward(const RaggedBatch& batch, Transformer::Keep keep, const CancelFlag& cancel);
  // After a forward that kept its activations: grad [N] is the loss gradient of each log-prob.
  void backward(const std::vector<float>& grad, const TransformerGradients& gradients, const CancelFlag& cancel);
  // Arena bytes of forward and backward beside the transformer's own.
  static size_t bytes(const Transformer& model, int64_t rows, int64_t predictions, bool training);

 private:
  void place(Arena::Plan& plan) override;

  Transformer& model_;
  LogprobPlan plan_;
  bool training_ = false;
  ix_mat stream_ = {};  // f32 [R, D], the transformer's result
  int32_t* sources_ = nullptr;
  int32_t* targets_ = nullptr;
  float* logp_ = nullptr;    // [N]; in the backward pass the gradient
  float* lse_ = nullptr;     // [N], training only, as what follows but one
  ix_mat normed_ = {};       // [R, D]
  ix_mat hidden_ = {};       // [N, D]
  ix_mat hidden_grad_ = {};  // f32 [N, D]
  ix_mat normed_grad_ = {};  // f32 [R, D]
};

// Hidden states after the final norm, f32, of named tokens in any order. Scoring only.
class HiddenReadout : private Transformer::Layout {
 public:
  HiddenReadout(Transformer& model, std::vector<int32_t> tokens);

  // [N, D] row-major.
  std::vector<float> forward(const RaggedBatch& batch, const CancelFlag& cancel);

 private:
  void place(Arena::Plan& plan) override;

  Transformer& model_;
  std::vector<int32_t> tokens_;  // [N]
  std::vector<int32_t> rows_;    // ascending, unique
  ix_mat normed_ = {};           // f32 [R, D]
};

// head · final norm of the hidden state, averaged over a span of tokens [first, first + count) of the batch; a head of
// several rows gives a value for each.
struct TokenSpan {
  int32_t first = 0;
  int32_t count = 0;
};

class LinearReadout : private Transformer::Layout {
 public:
  // heads: rows of the head, each on the device, [D].
  LinearReadout(Transformer& model, std::vector<const float*> heads, std::vector<TokenSpan> spans);

  // [spans, rows of the head]
  std::vector<float> forward(const RaggedBatch& batch, Transformer::Keep keep, const CancelFlag& cancel);
  // With one row: grad is the loss gradient of each reward. head_grad: device [D] or null.
  void backward(const std::vector<float>& grad, const TransformerGradients& gradients, float* head_grad,
                const CancelFlag& cancel);
  // Arena bytes beside the transformer's own, at most, for spans of so many tokens in all.
  static size_t bytes(int64_t rows) { return 2 * (static_cast<size_t>(rows) * sizeof(float) + 256); }

 private:
  void place(Arena::Plan& plan) override;

  Transformer& model_;
  std::vector<const float*> heads_;
  std::vector<TokenSpan> spans_;
  std::vector<int32_t> rows_;           // tokens that any span holds, ascending, unique
  std::vector<int32_t> first_, count_;  // each span among rows_
  ix_mat stream_ = {};
  float* rewards_ = nullptr;
  float* row_grad_ = nullptr;  // [R]
};

}  // namespace implex
