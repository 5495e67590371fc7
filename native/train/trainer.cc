// One micro-batch: forward, losses, backward. One step: norm, clip, update, refresh.
#include "train/trainer.h"

#include <algorithm>
#include <cmath>
#include <unordered_map>
#include <utility>

#include "model/tensors.h"
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
  saving_bytes_ = least_memory(spec, load.dtype, options).saving;
  if (options.objective == Objective::kExplicit) {
    if (!options.head.empty()) model_.set_head(options.head);
    require(model_.has_head(),
            "an explicit reward model needs a head: the checkpoint has no score.weight and none was given");
    if (const ParameterEntry* entry = parameters_.find("head")) {
      std::vector<float> head(static_cast<size_t>(spec.hidden_size));
      device_->call(&ix_backend::download, head.data(), model_.head().data(), head.size() * sizeof(float));
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

void Trainer::add_loss(double loss, TrainResult* result) {
  if (!std::isfinite(loss)) report_not_finite(result->losses.size());
  result->losses.push_back(loss);
}

std::vector<double> Trainer::bradley_terry(const TrainRequest& request, TrainResult* result) {
  const std::vector<double>& rewards = result->rewards;
  std::vector<double> grad;
  for (size_t pair = 0; pair < rewards.size() / 2; ++pair) {
    const double chosen = rewards[2 * pair];
    const double rejected = rewards[2 * pair + 1];
    const PairLoss loss = options_.loss(chosen, rejected, request.margin.empty() ? 0 : request.margin[pair]);
    // An infinite reward may leave the loss finite: -ln σ(∞) = 0.
    if (!std::isfinite(chosen) || !std::isfinite(rejected)) report_not_finite(pair);
    add_loss(loss.loss, result);
    grad.push_back(loss.chosen_grad * request.scale);
    grad.push_back(loss.rejected_grad * request.scale);
  }
  return grad;
}

std::vector<double> Trainer::supervised(const TrainRequest& request, TrainResult* result) {
  std::vector<double> grad;
  for (const double logprob : result->rewards) {
    const SequenceLoss loss = sft_loss(logprob);
    add_loss(loss.loss, result);
    grad.push_back(loss.grad * request.scale);
  }
  return grad;
}

std::vector<float> Trainer::generative(const TrainRequest& request, const std::vector<float>& logp,
                                       TrainResult* result) {
  std::vector<float> grad(logp.size(), 0.0f);
  for (size_t at = 0; at < logp.size(); at += 4) {  // Yes and No of the chosen response, then of the rejected one
    const size_t yes = at, no = at + 3;
    const PairLoss loss = generative_loss(static_cast<double>(logp[yes]), static_cast<double>(logp[no]));
    add_loss(loss.loss, result);
    for (const size_t response : {at, at + 2}) result->rewards.push_back(std::exp(static_cast<double>(logp[response])));
    grad[yes] = static_cast<float>(loss.chosen_grad * request.scale);
    grad[no] = static_cast<float>(loss.rejected_grad * request.scale);
  }
  return grad;
}

TrainResult Trainer::explicit_pass(const TrainRequest& request, const RaggedBatch& batch, bool gradients,
                                   const CancelFlag& cancel) {
  std::vector<TokenSpan> spans;
  for (const int32_t s : request.scored) {
    const ix_segment& segment = batch.segments()[static_cast<size_t>(s)];
    spans.push_back(options_.pooling == Pooling::kMean ? TokenSpan{segment.start, segment.length}
                                                       : TokenSpan{batch.last_token(s), 1});
  }
  LinearReadout readout(model_.transformer(), {model_.head().as<float>()}, std::move(spans));
  TrainResult result;
  for (const float reward : readout.forward(batch, keep(gradients), cancel))
    result.rewards.push_back(static_cast<double>(reward));
  const std::vector<double> grad = bradley_terry(request, &result);
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
  TrainResult result;
  std::vector<float> grad;
  if (generative) {
    grad = this->generative(request, logp, &result);
  } else {
    const bool implicit = options_.objective == Objective::kImplicit;
    std::vector<double> slope;  // d reward / d log-prob
    size_t begin = 0;
    for (size_t i = 0; i < end.size(); ++i) {
      double sum = 0;
      for (size_t j = begin; j < end[i]; ++j) sum += static_cast<double>(logp[j]);
      double factor = 1;
      if (implicit) {
        const double tokens = static_cast<double>(end[i] - begin);
        factor = options_.length_normalized ? options_.beta / std::max(1.0, tokens) : options_.beta;
        sum = factor * (sum - (request.reference.empty() ? 0.0 : request.reference[i]));
      }
      result.rewards.push_back(sum);
      slope.push_back(factor);
      begin = end[i];
    }
    const std::vector<double> reward_grad = implicit ? bradley_terry(request, &result) : supervised(request, &result);
    for (size_t i = 0; i < end.size(); ++i) grad.resize(end[i], static_cast<float>(reward_grad[i] * slope[i]));
  }
  if (gradients) {
    incomplete_ = true;
    readout.backward(grad, gradients_, cancel);
    incomplete_ = false;
  }
  return result;
}

void Trainer::report_not_finite(size_t pair) {
  ErrorFields fields = {.pair = static_cast<int64_t>(pair)};
  for (const ParameterEntry& entry : parameters_.entries()) {
    double sum = 0;
    device_->call(&ix_backend::sum_of_squares, parameters_.values() + entry.offset, entry.count(), &sum);
    if (!std::isfinite(sum)) {
      fields.parameter = entry.role;
      break;
    }
  }
  if (fields.parameter.empty()) fields.tensor = model_.transformer().first_bad_activation();
  const std::string where = !fields.parameter.empty() ? "parameter " + fields.parameter
                            : !fields.tensor.empty()  ? fields.tensor
                                                      : "the loss itself";
  throw Error(ErrorCode::kNotFinite,
              "the loss of pair " + std::to_string(pair) +
                  " of the micro-batch is not finite; the first tensor that went bad is " + where,
              std::move(fields));
}

double Trainer::step(double learning_rate, double max_norm) {
  require(std::isfinite(learning_rate) && std::isfinite(max_norm), "learning rate and gradient norm must be finite");
  if (incomplete_)
    throw Error(ErrorCode::kAborted,
                "a backward pass of this step did not finish, so its gradients are incomplete; zero them and begin the "
                "step again");
  double sum = 0;
  device_->call(&ix_backend::sum_of_squares, parameters_.gradients(), parameters_.size(), &sum);
  if (!std::isfinite(sum)) {
    for (const ParameterEntry& entry : parameters_.entries()) {
      double part = 0;
      device_->call(&ix_backend::sum_of_squares, parameters_.gradients() + entry.offset, entry.count(), &part);
      if (!std::isfinite(part))
        throw Error(ErrorCode::kNotFinite, "the gradient of " + entry.role + " is not finite",
                    {.step = steps_ + 1, .parameter = entry.role});
    }
    throw Error(ErrorCode::kNotFinite, "the gradient's norm overflows", {.step = steps_ + 1});
  }
  const double norm = std::sqrt(sum);
  const OptimizerOptions& o = options_.optimizer;
  ix_optimizer table = {};
  table.kind = o.kind == OptimizerKind::kAdamW ? IX_ADAMW : o.kind == OptimizerKind::kRmsProp ? IX_RMSPROP : IX_SGD;
  table.learning_rate = static_cast<float>(learning_rate);
  table.epsilon = static_cast<float>(o.epsilon);
  table.beta1 = static_cast<float>(o.beta1);
  table.beta2 = static_cast<float>(o.beta2);
  table.momentum = static_cast<float>(o.momentum);
  table.gradient_scale = max_norm > 0 ? static_cast<float>(std::min(1.0, max_norm / (norm + 1e-6))) : 1.0f;
  table.step = ++steps_;
  // Without decay no parameter is treated differently.
  const DecayOn on = o.weight_decay > 0 ? o.weight_decay_on : DecayOn::kAll;
  const auto from = [](float* array, int64_t offset) { return array == nullptr ? nullptr : array + offset; };
  for (const DecayRange& range : parameters_.decay_ranges(on)) {
    table.weight_decay = range.decays ? static_cast<float>(o.weight_decay) : 0.0f;
    device_->call(&ix_backend::optimizer_step, &table, range.count, parameters_.values() + range.offset,
                  parameters_.gradients() + range.offset, from(parameters_.first(), range.offset),
                  from(parameters_.second(), range.offset));
  }
  parameters_.refresh(model_.transformer().spec(), model_.transformer().mutable_weights(), model_.head());
  zero_gradients();
  return norm;
}

void Trainer::zero_gradients() {
  device_->call(&ix_backend::fill_zero, parameters_.gradients(),
                static_cast<size_t>(parameters_.size()) * sizeof(float));
  incomplete_ = false;
}

std::vector<float> Trainer::parameter(const std::string& role) const {
  const ParameterEntry* entry = parameters_.find(role);
  if (entry == nullptr) throw Error(ErrorCode::kConfigInvalid, role + " is not trained", {.parameter = role});
  return parameters_.download(*entry, parameters_.values());
}

std::vector<float> Trainer::gradient(const std::string& role) const {
  const ParameterEntry* entry = parameters_.find(role);
  if (entry == nullptr) throw Error(ErrorCode::kConfigInvalid, role + " is not trained", {.parameter = role});
  return parameters_.download(*entry, parameters_.gradients());
}

TrainMemory least_memory(const ModelSpec& spec, DType dtype, const TrainOptions& options) {
  validate(spec);
  std::unordered_map<std::string, int64_t> elements = {{"head", spec.hidden_size}};
  for (const TensorPlace& place : tensor_places(spec)) elements.emplace(place.role, place.rows * place.cols);
  size_t all = 0;
  for (const WeightSource& source : spec.weights) {
    if (const auto found = elements.find(source.role); found != elements.end())
      all += static_cast<size_t>(found->second);
  }
  const Parameters parameters(spec, choice_of(options));
  TrainMemory m;
  m.weights = all * dtype_size(dtype);
  m.parameters = Parameters::bytes(parameters.size(), 0);
  m.moments = Parameters::bytes(parameters.size(), moments_of(options.optimizer)) - m.parameters;
  m.saving = all * sizeof(float);
  return m;
}

TrainMemory Trainer::memory(int64_t tokens, int64_t rows) const {
  const Transformer& t = model_.transformer();
  const int moments = moments_of(options_.optimizer);
  TrainMemory m;
  m.weights = model_.weight_bytes();
  m.parameters = Parameters::bytes(parameters_.size(), 0);
  m.moments = Parameters::bytes(parameters_.size(), moments) - m.parameters;
  m.saving = saving_bytes_;
  m.activations =
      t.pass_bytes(tokens, rows, options_.recompute ? Transformer::Keep::kLayerInputs : Transformer::Keep::kAll);
  // A row predicts once, but Yes and No at the end of a verification prompt, and at the end of a shared prompt each
  // response's first token.
  m.activations += options_.objective == Objective::kExplicit ? LinearReadout::bytes(rows)
                                                              : LogprobReadout::bytes(t, rows, 2 * rows, true);
  return m;
}

}  // namespace implex
