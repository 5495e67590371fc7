// Scoring requests checked, turned into read-outs, run, and summed.
#include "reward/reward_model.h"

#include <cmath>

#include "backend_loader.h"
#include "reward/readout.h"

namespace implex {

namespace {

void check_read_at(const ScoreRequest& request, const RaggedBatch& batch) {
  if (request.read_at.empty()) return;
  const Readout r = request.readout;
  if (r != Readout::kRewardLast && r != Readout::kNextToken && r != Readout::kHiddenLast)
    throw Error(ErrorCode::kBatchInvalid, "tokens to read at are for read-outs of single tokens");
  if (!request.scored.empty())
    throw Error(ErrorCode::kBatchInvalid, "a batch is read at its scored segments or at named tokens, not at both");
  for (const int32_t token : request.read_at) {
    if (token < 0 || static_cast<size_t>(token) >= batch.tokens().size())
      throw Error(ErrorCode::kBatchInvalid, "token " + std::to_string(token) + " to read at does not exist");
  }
}

// Where a read-out of single tokens reads.
std::vector<int32_t> places(const ScoreRequest& request, const RaggedBatch& batch) {
  if (!request.read_at.empty()) return request.read_at;
  std::vector<int32_t> tokens;
  tokens.reserve(request.scored.size());
  for (const int32_t s : request.scored) tokens.push_back(batch.last_token(s));
  return tokens;
}

}  // namespace

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
  check_read_at(request, batch);
  if (request.scored.empty() && request.read_at.empty()) return {};
  ScoreResult result = read_out(request, batch, cancel);
  for (const std::vector<int64_t>& load : transformer_.expert_load())
    for (const int64_t tokens : load) result.expert_load.push_back(static_cast<double>(tokens));
  return result;
}

ScoreResult RewardModel::read_out(const ScoreRequest& request, const RaggedBatch& batch, const CancelFlag& cancel) {
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
  const auto width = static_cast<size_t>(transformer_.spec().hidden_size);
  if (weight.empty() || weight.size() % width != 0)
    throw Error(ErrorCode::kTensorShape, "the head has " + std::to_string(weight.size()) +
                                             " values, the model's hidden size is " +
                                             std::to_string(transformer_.spec().hidden_size));
  for (const float value : weight)
    if (!std::isfinite(value)) throw Error(ErrorCode::kWeightNotFinite, "the head holds a value that is not finite");
  std::vector<DeviceBuffer> rows;
  for (size_t at = 0; at < weight.size(); at += width) {
    const auto row = weight.begin() + static_cast<std::ptrdiff_t>(at);
    rows.push_back(
        DeviceBuffer::of(transformer_.device(), std::vector<float>(row, row + static_cast<std::ptrdiff_t>(width))));
  }
  heads_ = std::move(rows);
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
  std::vector<int32_t> wanted = {request.target_token};
  if (request.other_token != -1) wanted.push_back(request.other_token);
  for (const int32_t token : wanted) {
    if (token < 0 || token >= transformer_.spec().vocabulary())
      throw Error(ErrorCode::kTokenRange, "target token " + std::to_string(token) +
                                              " is outside the model's vocabulary of " +
                                              std::to_string(transformer_.spec().vocabulary()));
  }
  std::vector<int32_t> predictors, targets;
  for (const int32_t place : places(request, batch)) {
    for (const int32_t token : wanted) {
      predictors.push_back(place);
      targets.push_back(token);
    }
  }
  LogprobReadout readout(transformer_, LogprobPlan::of(predictors, std::move(targets)));
  ScoreResult result;
  for (const float logp : readout.forward(batch, Transformer::Keep::kNothing, cancel))
    result.values.push_back(std::exp(static_cast<double>(logp)));
  return result;
}

ScoreResult RewardModel::hidden(const ScoreRequest& request, const RaggedBatch& batch, const CancelFlag& cancel) {
  HiddenReadout readout(transformer_, places(request, batch));
  ScoreResult result;
  for (const float value : readout.forward(batch, cancel)) result.values.push_back(static_cast<double>(value));
  return result;
}

ScoreResult RewardModel::reward(const ScoreRequest& request, const RaggedBatch& batch, const CancelFlag& cancel) {
  if (!has_head()) throw Error(ErrorCode::kTensorMissing, "the model has no reward head (score.weight)");
  std::vector<TokenSpan> spans;
  if (request.readout == Readout::kRewardLast) {
    for (const int32_t token : places(request, batch)) spans.push_back({token, 1});
  } else {
    for (const int32_t s : request.scored) {
      const ix_segment& segment = batch.segments()[static_cast<size_t>(s)];
      if (request.readout == Readout::kRewardMean) spans.push_back({segment.start, segment.length});
      if (request.readout == Readout::kRewardTokens)
        for (int32_t i = 0; i < segment.length; ++i) spans.push_back({segment.start + i, 1});
    }
  }
  std::vector<const float*> heads;
  for (const DeviceBuffer& row : heads_) heads.push_back(row.as<float>());
  LinearReadout readout(transformer_, std::move(heads), std::move(spans));
  ScoreResult result;
  for (const float value : readout.forward(batch, Transformer::Keep::kNothing, cancel))
    result.values.push_back(static_cast<double>(value));
  return result;
}

}  // namespace implex
