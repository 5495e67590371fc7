// The two read-outs over a pass: log-probs of named tokens, and the linear head.
#include "reward/readout.h"

#include <algorithm>

namespace implex {

namespace {

int32_t index_of(const std::vector<int32_t>& sorted, int32_t value) {
  return static_cast<int32_t>(std::lower_bound(sorted.begin(), sorted.end(), value) - sorted.begin());
}

void sort_unique(std::vector<int32_t>& values) {
  std::sort(values.begin(), values.end());
  values.erase(std::unique(values.begin(), values.end()), values.end());
}

void upload(Device& device, void* to, const void* from, size_t bytes) {
  device.call(&ix_backend::upload, to, from, bytes);
}

}  // namespace

LogprobPlan LogprobPlan::of(const std::vector<int32_t>& predictors, std::vector<int32_t> targets) {
  LogprobPlan plan;
  plan.rows = predictors;
  sort_unique(plan.rows);
  plan.sources.reserve(predictors.size());
  for (const int32_t token : predictors) plan.sources.push_back(index_of(plan.rows, token));
  plan.targets = std::move(targets);
  return plan;
}

void LogprobReadout::place(Arena::Plan& plan) {
  const auto rows = static_cast<int64_t>(plan_.rows.size());
  const auto count = static_cast<int64_t>(plan_.targets.size());
  const int64_t width = model_.spec().hidden_size;
  sources_ = static_cast<int32_t*>(plan.take(plan_.sources.size() * sizeof(int32_t)));
  targets_ = static_cast<int32_t*>(plan.take(plan_.targets.size() * sizeof(int32_t)));
  logp_ = static_cast<float*>(plan.take(plan_.targets.size() * sizeof(float)));
  normed_ = plan.matrix(model_.dtype(), rows, width);
  hidden_ = plan.matrix(model_.dtype(), count, width);
  if (!training_) return;
  lse_ = static_cast<float*>(plan.take(plan_.targets.size() * sizeof(float)));
  hidden_grad_ = plan.matrix(DType::kF32, count, width);
  normed_grad_ = plan.matrix(DType::kF32, rows, width);
}

size_t LogprobReadout::bytes(const Transformer& model, int64_t rows, int64_t predictions, bool training) {
  const size_t width = static_cast<size_t>(model.spec().hidden_size);
  const size_t n = static_cast<size_t>(predictions);
  const size_t r = static_cast<size_t>(rows);
  const size_t scoring = n * 12 + (n + r) * width * dtype_size(model.dtype());
  return (training ? scoring + n * 4 + (n + r) * width * sizeof(float) : scoring) + 8 * 256;
}

std::vector<float> LogprobReadout::forward(const RaggedBatch& batch, Transformer::Keep keep, const CancelFlag& cancel) {
  const ix_weight* unembedding = model_.weights().logits_weight(model_.spec());
  if (unembedding == nullptr)
    throw Error(ErrorCode::kTensorMissing,
                "the checkpoint has no unembedding (lm_head): it is no language model, so it has no log-probs");
  if (plan_.targets.empty()) return {};
  training_ = keep != Transformer::Keep::kNothing;
  stream_ = model_.forward(batch, plan_.rows, *this, keep, cancel);
  Device& d = model_.device();
  upload(d, sources_, plan_.sources.data(), plan_.sources.size() * sizeof(int32_t));
  upload(d, targets_, plan_.targets.data(), plan_.targets.size() * sizeof(int32_t));
  model_.logit_rows(stream_, normed_);
  d.call(&ix_backend::gather_rows, &normed_, sources_, &hidden_);
  d.call(&ix_backend::linear_logprob, &hidden_, unembedding, targets_, model_.logit_soft_cap(), logp_, lse_);
  std::vector<float> logp(plan_.targets.size());
  d.call(&ix_backend::download, logp.data(), logp_, logp.size() * sizeof(float));
  return logp;
}

void LogprobReadout::backward(const std::vector<float>& grad, const TransformerGradients& gradients,
                              const CancelFlag& cancel) {
  if (plan_.targets.empty()) return;
  Device& d = model_.device();
  const bool tied = model_.spec().tied_embedding;
  upload(d, logp_, grad.data(), grad.size() * sizeof(float));
  d.call(&ix_backend::linear_logprob_backward, &hidden_, model_.weights().logits_weight(model_.spec()), targets_,
         model_.logit_soft_cap(), lse_, logp_, &hidden_grad_, tied ? gradients.embedding : gradients.unembedding);
  d.call(&ix_backend::scatter_rows, &hidden_grad_, sources_, &normed_grad_, 0);
  model_.logit_rows_backward(stream_, normed_grad_, model_.result_gradient(), gradients.final_norm);
  model_.backward(gradients, cancel);
}

HiddenReadout::HiddenReadout(Transformer& model, std::vector<int32_t> tokens)
    : model_(model), tokens_(std::move(tokens)), rows_(tokens_) {
  sort_unique(rows_);
}

void HiddenReadout::place(Arena::Plan& plan) {
  normed_ = plan.matrix(DType::kF32, static_cast<int64_t>(rows_.size()), model_.spec().hidden_size);
}

std::vector<float> HiddenReadout::forward(const RaggedBatch& batch, const CancelFlag& cancel) {
  const ix_mat stream = model_.forward(batch, rows_, *this, Transformer::Keep::kNothing, cancel);
  Device& d = model_.device();
  const ix_norm norm = model_.weights().final_norm.table(model_.spec());
  d.call(&ix_backend::norm, &norm, &stream, &normed_);
  const auto width = static_cast<size_t>(model_.spec().hidden_size);
  std::vector<float> rows(rows_.size() * width);
  d.call(&ix_backend::download, rows.data(), normed_.data, rows.size() * sizeof(float));
  std::vector<float> hidden;
  hidden.reserve(tokens_.size() * width);
  for (const int32_t token : tokens_) {
    const auto row = rows.begin() + static_cast<std::ptrdiff_t>(static_cast<size_t>(index_of(rows_, token)) * width);
    hidden.insert(hidden.end(), row, row + static_cast<std::ptrdiff_t>(width));
  }
  return hidden;
}

LinearReadout::LinearReadout(Transformer& model, std::vector<const float*> heads, std::vector<TokenSpan> spans)
    : model_(model), heads_(std::move(heads)), spans_(std::move(spans)) {
  for (const TokenSpan& span : spans_)
    for (int32_t i = 0; i < span.count; ++i) rows_.push_back(span.first + i);
  sort_unique(rows_);
  for (const TokenSpan& span : spans_) {
    first_.push_back(index_of(rows_, span.first));
    count_.push_back(span.count);
  }
}

void LinearReadout::place(Arena::Plan& plan) {
  rewards_ = static_cast<float*>(plan.take(spans_.size() * sizeof(float)));
  row_grad_ = static_cast<float*>(plan.take(rows_.size() * sizeof(float)));
}

std::vector<float> LinearReadout::forward(const RaggedBatch& batch, Transformer::Keep keep, const CancelFlag& cancel) {
  stream_ = model_.forward(batch, rows_, *this, keep, cancel);
  Device& d = model_.device();
  const ix_norm norm = model_.weights().final_norm.table(model_.spec());
  std::vector<float> rewards(spans_.size() * heads_.size());
  std::vector<float> of_row(spans_.size());
  for (size_t h = 0; h < heads_.size(); ++h) {
    d.call(&ix_backend::linear_reward, &norm, &stream_, heads_[h], first_.data(), count_.data(),
           static_cast<int32_t>(spans_.size()), rewards_);
    d.call(&ix_backend::download, of_row.data(), rewards_, of_row.size() * sizeof(float));
    for (size_t s = 0; s < of_row.size(); ++s) rewards[s * heads_.size() + h] = of_row[s];
  }
  return rewards;
}

void LinearReadout::backward(const std::vector<float>& grad, const TransformerGradients& gradients, float* head_grad,
                             const CancelFlag& cancel) {
  // The mean over a span shares its gradient out evenly; a row in several spans gets the sum.
  std::vector<float> row_grad(rows_.size(), 0.0f);
  for (size_t s = 0; s < spans_.size(); ++s)
    for (int32_t i = 0; i < count_[s]; ++i)
      row_grad[static_cast<size_t>(first_[s] + i)] += grad[s] / static_cast<float>(count_[s]);
  Device& d = model_.device();
  upload(d, row_grad_, row_grad.data(), row_grad.size() * sizeof(float));
  const ix_norm norm = model_.weights().final_norm.table(model_.spec());
  const ix_mat result = model_.result_gradient();
  d.call(&ix_backend::linear_reward_backward, &norm, &stream_, heads_.front(), row_grad_, &result,
         gradients.final_norm.gamma, gradients.final_norm.beta, head_grad);
  model_.backward(gradients, cancel);
}

}  // namespace implex
