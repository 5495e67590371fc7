// One micro-batch: forward, losses, backward. One step: norm, clip, update, refresh.
#include "train/trainer.h"

#include <algorithm>
#include <cmath>

#include "reward/readout.h"

namespace implex {

namespace {

ParameterChoice choice_of(const TrainOptions& options) {
  ParameterChoice choice;
  choice.frozen = options.frozen;
  choice.uses_head = options.objective == Objective::kExplicit;
  choice.uses_unembedding = !choice.uses_head;
  return choice;
}

int moments_of(const OptimizerOptions& o) {
  if (o.kind == OptimizerKind::kAdamW) return 2;
  return (o.kind == OptimizerKind::kRmsProp ? 1 : 0) + (o.momentum > 0 ? 1 : 0);
}

// Copies parameters into the flat array as they are loaded; allocates it at the first.
class ParameterSink : public WeightSink {
 public:
  ParameterSink(Device& device, Parameters& parameters, int moments) : parameters_(parameters) {
    parameters.allocate(device, moments);
  }
  void take(const std::string& role, int64_t first, int64_t count, int64_t cols, const float* values) override {
    if (const ParameterEntry* entry = parameters_.find(role))
      parameters_.upload(*entry, first * cols, values, count * cols);
  }

 private:
  Parameters& parameters_;
};

RewardModel load_model(const std::shared_ptr<Device>& device, const ModelSpec& spec, DType dtype,
                       Parameters& parameters, int moments, const CancelFlag& cancel) {
  ParameterSink sink(*device, parameters, moments);
  return RewardModel(device, spec, dtype, &sink, cancel);
}

void require(bool holds, const char* message) {
  if (!holds) throw Error(ErrorCode::kConfigInvalid, message);
}

}  // namespace

Trainer::Trainer(const ModelSpec& spec, const LoadOptions& load, const TrainOptions& options, const CancelFlag& cancel)
    : device_(open_device(load)),
      options_(options),
      parameters_((validate(spec), spec), choice_of(options)),
      model_(load_model(device_, spec, load.dtype, parameters_, moments_of(options.optimizer), cancel)) {
  gradients_ = parameters_.gradient_table(spec);
  if (options.objective == Objective::kExplicit) {
    if (!options.head.empty()) model_.set_head(options.head);
    require(model_.has_head(),
            "an explicit reward model needs a head: the checkpoint has no score.weight and none was given");
    if (const ParameterEntry* entry = parameters_.find("head")) {
      std::vector<float> head(static_cast<size_t>(spec.hidden_size));
      device_->call(&ix_backend::download, static_cast<void*>(head.data()),
                    static_cast<const void*>(model_.head().data()), head.size() * sizeof(float));
      parameters_.upload(*entry, 0, head.data(), entry->count());
    }
  } else {
    require(model_.has_unembedding(),
            "this objective needs log-probs, and the checkpoint has no unembedding (lm_head)");
  }
  if (options.objective == Objective::kGenerative) {
    const int64_t vocabulary = spec.vocabulary();
    require(options.yes_token >= 0 && options.yes_token < vocabulary && options.no_token >= 0 &&
                options.no_token < vocabulary,
            "the generative objective needs the token ids of \"Yes\" and \"No\"");
  }
}

Transformer::Keep Trainer::keep(bool gradients) const {
  if (!gradients) return Transformer::Keep::kNothing;
  return options_.recompute ? Transformer::Keep::kLayerInputs : Transformer::Keep::kAll;
}

TrainResult Trainer::accumulate(const TrainRequest& request, bool gradients, const CancelFlag& cancel) {
  cancel.check();
  const ModelSpec& spec = model_.transformer().spec();
  const RaggedBatch batch(request.tokens, request.segments, spec.vocabulary(), spec.max_positions);
  check_scored(batch, request.scored);
  const size_t per_pair = options_.objective == Objective::kSft ? 1 : 2;
  const size_t pairs = request.scored.size() / per_pair;
  if (pairs == 0 || request.scored.size() % per_pair != 0)
    throw Error(ErrorCode::kBatchInvalid, "a training batch needs whole pairs");
  if ((!request.reference.empty() && request.reference.size() != request.scored.size()) ||
      (!request.margin.empty() && request.margin.size() != pairs))
    throw Error(ErrorCode::kBatchInvalid, "reference or margin does not match the pairs");
  return options_.objective == Objective::kExplicit ? explicit_pass(request, batch, gradients, cancel)
                                                    : logprob_pass(request, batch, gradients, cancel);
}

std::vector<double> Trainer::pair_losses(const TrainRequest& request, TrainResult* result) {
  std::vector<double> grad(result->rewards.size());
  for (size_t pair = 0; pair < result->rewards.size() / 2; ++pair) {
    const double margin = request.margin.empty() ? 0 : request.margin[pair];
    const PairLoss loss = options_.loss(result->rewards[2 * pair], result->rewards[2 * pair + 1], margin);
    // An infinite reward may leave the loss finite: -ln σ(∞) = 0.
    if (!std::isfinite(loss.loss) || !std::isfinite(result->rewards[2 * pair]) ||
        !std::isfinite(result->rewards[2 * pair + 1]))
      report_not_finite(pair);
    result->losses.push_back(loss.loss);
    grad[2 * pair] = loss.chosen_grad * request.scale;
    grad[2 * pair + 1] = loss.rejected_grad * request.scale;
  }
  return grad;
}

TrainResult Trainer::explicit_pass(const TrainRequest& request, const RaggedBatch& batch, bool gradients,
                                   const CancelFlag& cancel) {
  std::vector<TokenSpan> spans;
  for (const int32_t s : request.scored) {
    const ix_segment& segment = batch.segments()[static_cast<size_t>(s)];
    spans.push_back(options_.pool_mean ? TokenSpan{segment.start, segment.length} : TokenSpan{batch.last_token(s), 1});
  }
  LinearReadout readout(model_.transformer(), model_.head().as<float>(), std::move(spans));
  TrainResult result;
  for (const float reward : readout.forward(batch, keep(gradients), cancel))
    result.rewards.push_back(static_cast<double>(reward));
  const std::vector<double> grad = pair_losses(request, &result);
  if (gradients) {
    incomplete_ = true;
    readout.backward({grad.begin(), grad.end()}, gradients_, parameters_.gradient_of("head"), cancel);
    incomplete_ = false;
  }
  return result;
}

// The implicit reward's loss couples the two sums over tokens, so all log-probs of the micro-batch come first, then
// each pair's margin, and the head's backward recomputes its logits by chunks with every token's share of the gradient
// known.
TrainResult Trainer::logprob_pass(const TrainRequest& request, const RaggedBatch& batch, bool gradients,
                                  const CancelFlag& cancel) {
  const bool generative = options_.objective == Objective::kGenerative;
  std::vector<int32_t> predictors, targets;
  std::vector<size_t> end;  // of each scored segment's predictions
  for (const int32_t s : request.scored) {
    if (generative) {
      predictors.insert(predictors.end(), 2, batch.last_token(s));
      targets.push_back(options_.yes_token);
      targets.push_back(options_.no_token);
    } else {
      append_predictions(batch, s, &predictors, &targets);
    }
    end.push_back(targets.size());
  }
  LogprobReadout readout(model_.transformer(), LogprobPlan::of(predictors, std::move(targets)));
  const std::vector<float> logp = readout.forward(batch, keep(gradients), cancel);
  std::vector<float> grad(logp.size(), 0.0f);
  TrainResult result;

  if (generative) {
    for (size_t i = 0; i < request.scored.size(); ++i) {
      const bool chosen = i % 2 == 0;
      const size_t at = 2 * i + (chosen ? 0 : 1);
      result.rewards.push_back(std::exp(static_cast<double>(logp[2 * i])));
      // The mean over both responses of a pair.
      const double loss = -0.5 * static_cast<double>(logp[at]);
      if (!std::isfinite(loss)) report_not_finite(i / 2);
      if (chosen) {
        result.losses.push_back(loss);
      } else {
        result.losses.back() += loss;
      }
      grad[at] = static_cast<float>(-0.5 * request.scale);
    }
  } else {
    std::vector<double> slope;  // d reward / d log-prob
    size_t begin = 0;
    for (size_t i = 0; i < end.size(); ++i) {
      double sum = 0;
      for (size_t j = begin; j < end[i]; ++j) sum += static_cast<double>(logp[j]);
      if (options_.objective == Objective::kSft) {
        if (!std::isfinite(sum)) report_not_finite(i);
        result.losses.push_back(-sum);
        result.rewards.push_back(sum);
        slope.push_back(1);
      } else {
        const double tokens = static_cast<double>(end[i] - begin);
        const double factor = options_.length_normalized ? options_.beta / std::max(1.0, tokens) : options_.beta;
        result.rewards.push_back(factor * (sum - (request.reference.empty() ? 0.0 : request.reference[i])));
        slope.push_back(factor);
      }
      begin = end[i];
    }
    std::vector<double> reward_grad(end.size(), -request.scale);
    if (options_.objective == Objective::kImplicit) reward_grad = pair_losses(request, &result);
    begin = 0;
    for (size_t i = 0; i < end.size(); ++i) {
      for (size_t j = begin; j < end[i]; ++j) grad[j] = static_cast<float>(reward_grad[i] * slope[i]);
      begin = end[i];
    }
  }
  if (gradients) {
    incomplete_ = true;
    readout.backward(grad, gradients_, cancel);
    incomplete_ = false;
  }
  return result;
}

void Trainer::report_not_finite(size_t pair) {
  std::string where;
  for (const ParameterEntry& entry : parameters_.entries()) {
    double sum = 0;
    device_->call(&ix_backend::sum_of_squares, static_cast<const float*>(parameters_.values() + entry.offset),
                  entry.count(), &sum);
    if (!std::isfinite(sum)) {
      where = "parameter " + entry.role;
      break;
    }
  }
  if (where.empty()) where = model_.transformer().first_bad_activation();
  if (where.empty()) where = "the loss itself";
  throw Error(ErrorCode::kNotFinite, "the loss of pair " + std::to_string(pair) +
                                         " of the micro-batch is not finite; the first tensor that went bad is " +
                                         where);
}

double Trainer::step(double learning_rate, double max_norm) {
  require(std::isfinite(learning_rate) && std::isfinite(max_norm), "learning rate and gradient norm must be finite");
  if (incomplete_)
    throw Error(ErrorCode::kAborted,
                "a backward pass of this step did not finish, so its gradients are incomplete; zero them and begin the "
                "step again");
  double sum = 0;
  device_->call(&ix_backend::sum_of_squares, static_cast<const float*>(parameters_.gradients()), parameters_.size(),
                &sum);
  if (!std::isfinite(sum)) {
    for (const ParameterEntry& entry : parameters_.entries()) {
      double part = 0;
      device_->call(&ix_backend::sum_of_squares, static_cast<const float*>(parameters_.gradients() + entry.offset),
                    entry.count(), &part);
      if (!std::isfinite(part)) throw Error(ErrorCode::kNotFinite, "the gradient of " + entry.role + " is not finite");
    }
    throw Error(ErrorCode::kNotFinite, "the gradient's norm overflows");
  }
  const double norm = std::sqrt(sum);
  const OptimizerOptions& o = options_.optimizer;
  ix_optimizer table = {};
  table.kind = o.kind == OptimizerKind::kAdamW ? IX_ADAMW : o.kind == OptimizerKind::kRmsProp ? IX_RMSPROP : IX_SGD;
  table.learning_rate = static_cast<float>(learning_rate);
  table.weight_decay = static_cast<float>(o.weight_decay);
  table.epsilon = static_cast<float>(o.epsilon);
  table.beta1 = static_cast<float>(o.beta1);
  table.beta2 = static_cast<float>(o.beta2);
  table.momentum = static_cast<float>(o.momentum);
  table.gradient_scale = max_norm > 0 ? static_cast<float>(std::min(1.0, max_norm / (norm + 1e-6))) : 1.0f;
  table.step = ++steps_;
  device_->call(&ix_backend::optimizer_step, static_cast<const ix_optimizer*>(&table), parameters_.size(),
                parameters_.values(), static_cast<const float*>(parameters_.gradients()), parameters_.first(),
                parameters_.second());
  parameters_.refresh(model_.transformer().mutable_weights(), model_.head());
  zero_gradients();
  return norm;
}

void Trainer::zero_gradients() {
  device_->call(&ix_backend::fill_zero, static_cast<void*>(parameters_.gradients()),
                static_cast<size_t>(parameters_.size()) * sizeof(float));
  incomplete_ = false;
}

std::vector<float> Trainer::parameter(const std::string& role) const {
  const ParameterEntry* entry = parameters_.find(role);
  if (entry == nullptr) throw Error(ErrorCode::kConfigInvalid, role + " is not trained");
  return parameters_.download(*entry, parameters_.values());
}

std::vector<float> Trainer::gradient(const std::string& role) const {
  const ParameterEntry* entry = parameters_.find(role);
  if (entry == nullptr) throw Error(ErrorCode::kConfigInvalid, role + " is not trained");
  return parameters_.download(*entry, parameters_.gradients());
}

TrainMemory Trainer::memory(int64_t tokens, int64_t rows) const {
  const Transformer& t = const_cast<RewardModel&>(model_).transformer();
  const int moments = moments_of(options_.optimizer);
  TrainMemory m;
  m.weights = model_.weight_bytes();
  m.parameters = Parameters::bytes(parameters_.size(), 0);
  m.moments = Parameters::bytes(parameters_.size(), moments) - m.parameters;
  m.activations =
      t.pass_bytes(tokens, rows, options_.recompute ? Transformer::Keep::kLayerInputs : Transformer::Keep::kAll);
  // A row predicts once, but Yes and No at the end of a verification prompt, and at the end of a shared prompt each
  // response's first token.
  m.activations += options_.objective == Objective::kExplicit ? LinearReadout::bytes(rows)
                                                              : LogprobReadout::bytes(t, rows, 2 * rows, true);
  return m;
}

}  // namespace implex
