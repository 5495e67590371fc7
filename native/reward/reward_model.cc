// Scoring requests checked, turned into read-outs, run, and summed.
#include "reward/reward_model.h"

#include <cmath>

#include "backend_loader.h"
#include "reward/readout.h"

namespace implex {

void append_predictions(const RaggedBatch& batch, int32_t s, std::vector<int32_t>* predictors,
                        std::vector<int32_t>* targets) {
  const ix_segment& segment = batch.segments()[static_cast<size_t>(s)];
  const int32_t before = batch.predecessor(s);
  for (int32_t i = before < 0 ? 1 : 0; i < segment.length; ++i) {
    predictors->push_back(i == 0 ? before : segment.start + i - 1);
    targets->push_back(batch.tokens()[static_cast<size_t>(segment.start + i)]);
  }
}

void check_scored(const RaggedBatch& batch, const std::vector<int32_t>& scored) {
  for (const int32_t segment : scored) {
    if (segment < 0 || static_cast<size_t>(segment) >= batch.segments().size())
      throw Error(ErrorCode::kBatchInvalid, "scored segment " + std::to_string(segment) + " does not exist");
  }
}

std::shared_ptr<Device> open_device(const LoadOptions& options) {
  if (options.dtype != DType::kF32 && options.dtype != DType::kBf16)
    throw Error(ErrorCode::kTensorDtype, "a model's weights are held as f32 or bf16");
  return std::make_shared<Device>(load_backend(options.device, options.device_path));
}

RewardModel::RewardModel(std::shared_ptr<Device> device, const ModelSpec& spec, DType dtype, WeightSink* sink,
                         const CancelFlag& cancel)
    : transformer_(std::move(device), spec, dtype, sink, cancel) {
  if (!transformer_.weights().head.empty()) set_head(transformer_.weights().head);
}

RewardModel::RewardModel(const RewardModel& base, const ModelSpec& spec, const CancelFlag& cancel)
    : transformer_(base.transformer_, spec, cancel) {
  if (!transformer_.weights().head.empty()) set_head(transformer_.weights().head);
}

ScoreResult RewardModel::score(const ScoreRequest& request, const CancelFlag& cancel) {
  cancel.check();
  const RaggedBatch batch(request.tokens, request.segments, transformer_.spec().vocabulary(),
                          transformer_.spec().max_positions);
  check_scored(batch, request.scored);
  if (request.scored.empty()) return {};
  switch (request.readout) {
    case Readout::kLogprob:
      return logprob(request, batch, cancel);
    case Readout::kNextToken:
      return next_token(request, batch, cancel);
    case Readout::kHiddenLast:
      return hidden(request, batch, cancel);
    case Readout::kRewardLast:
    case Readout::kRewardMean:
    case Readout::kRewardTokens:
      break;
  }
  return reward(request, batch, cancel);
}

void RewardModel::set_head(const std::vector<float>& weight) {
  if (static_cast<int64_t>(weight.size()) != transformer_.spec().hidden_size)
    throw Error(ErrorCode::kTensorShape, "the head has " + std::to_string(weight.size()) +
                                             " values, the model's hidden size is " +
                                             std::to_string(transformer_.spec().hidden_size));
  for (const float value : weight)
    if (!std::isfinite(value)) throw Error(ErrorCode::kWeightNotFinite, "the head holds a value that is not finite");
  head_ = DeviceBuffer::of(transformer_.device(), weight);
}

ScoreResult RewardModel::logprob(const ScoreRequest& request, const RaggedBatch& batch, const CancelFlag& cancel) {
  std::vector<int32_t> predictors, targets;
  for (const int32_t s : request.scored) append_predictions(batch, s, &predictors, &targets);
  LogprobReadout readout(transformer_, LogprobPlan::of(predictors, std::move(targets)));
  const std::vector<float> logp = readout.forward(batch, Transformer::Keep::kNothing, cancel);
  ScoreResult result;
  size_t next = 0;
  for (const int32_t s : request.scored) {
    const int32_t length = batch.segments()[static_cast<size_t>(s)].length;
    const bool first = batch.predecessor(s) >= 0;
    if (!first && request.token_logprobs) result.token_logprobs.push_back(0.0f);
    double sum = 0;
    for (int32_t i = first ? 0 : 1; i < length; ++i) {
      sum += static_cast<double>(logp[next]);
      if (request.token_logprobs) result.token_logprobs.push_back(logp[next]);
      ++next;
    }
    result.values.push_back(sum);
  }
  return result;
}

ScoreResult RewardModel::next_token(const ScoreRequest& request, const RaggedBatch& batch, const CancelFlag& cancel) {
  if (request.target_token < 0 || request.target_token >= transformer_.spec().vocabulary())
    throw Error(ErrorCode::kTokenRange, "target token " + std::to_string(request.target_token) +
                                            " is outside the model's vocabulary of " +
                                            std::to_string(transformer_.spec().vocabulary()));
  std::vector<int32_t> predictors;
  for (const int32_t s : request.scored) predictors.push_back(batch.last_token(s));
  std::vector<int32_t> targets(predictors.size(), request.target_token);
  LogprobReadout readout(transformer_, LogprobPlan::of(predictors, std::move(targets)));
  ScoreResult result;
  for (const float logp : readout.forward(batch, Transformer::Keep::kNothing, cancel))
    result.values.push_back(std::exp(static_cast<double>(logp)));
  return result;
}

ScoreResult RewardModel::hidden(const ScoreRequest& request, const RaggedBatch& batch, const CancelFlag& cancel) {
  std::vector<int32_t> tokens;
  for (const int32_t s : request.scored) tokens.push_back(batch.last_token(s));
  HiddenReadout readout(transformer_, std::move(tokens));
  ScoreResult result;
  for (const float value : readout.forward(batch, cancel)) result.values.push_back(static_cast<double>(value));
  return result;
}

ScoreResult RewardModel::reward(const ScoreRequest& request, const RaggedBatch& batch, const CancelFlag& cancel) {
  if (!has_head()) throw Error(ErrorCode::kTensorMissing, "the model has no reward head (score.weight)");
  std::vector<TokenSpan> spans;
  for (const int32_t s : request.scored) {
    const ix_segment& segment = batch.segments()[static_cast<size_t>(s)];
    if (request.readout == Readout::kRewardMean) spans.push_back({segment.start, segment.length});
    if (request.readout == Readout::kRewardLast) spans.push_back({batch.last_token(s), 1});
    if (request.readout == Readout::kRewardTokens)
      for (int32_t i = 0; i < segment.length; ++i) spans.push_back({segment.start + i, 1});
  }
  LinearReadout readout(transformer_, head_.as<float>(), std::move(spans));
  ScoreResult result;
  for (const float value : readout.forward(batch, Transformer::Keep::kNothing, cancel))
    result.values.push_back(static_cast<double>(value));
  return result;
}

}  // namespace implex
