// The trainer: steps that train, clipping, refusals that name what is wrong, cancellation, memory known beforehand.
#include <algorithm>
#include <chrono>
#include <limits>
#include <set>
#include <thread>

#include "core/error.h"
#include "train_support.h"

using namespace implex;
using namespace implex::test;

namespace {

struct Setup {
  explicit Setup(const TinyOptions& options, uint64_t seed) : tiny(make_tiny_model(options, seed, folder)) {
    Random random(seed + 1);
    batch = random_train_batch(random, tiny.spec);
    all = objectives(tiny.spec);
  }
  TemporaryFolder folder;
  TinyModel tiny;
  TrainBatch batch;
  std::vector<NamedOptions> all;
};

double total(const std::vector<double>& values) {
  double sum = 0;
  for (const double x : values) sum += x;
  return sum;
}

// The tokens whose last hidden state a batch's loss reads.
std::set<int32_t> rows_of(const TrainRequest& request, const TrainOptions& options) {
  std::set<int32_t> rows;
  for (const int32_t s : request.scored) {
    const Segment& own = request.segments[static_cast<size_t>(s)];
    const bool last = options.objective == Objective::kGenerative ||
                      (options.objective == Objective::kExplicit && options.pooling == Pooling::kLast);
    if (last) rows.insert(own.start + own.length - 1);
    if (options.objective == Objective::kExplicit && options.pooling == Pooling::kMean)
      for (int32_t i = 0; i < own.length; ++i) rows.insert(own.start + i);
    if (options.objective != Objective::kImplicit && options.objective != Objective::kSft) continue;
    for (int32_t i = 1; i < own.length; ++i) rows.insert(own.start + i - 1);
    if (own.parent < 0) continue;
    const Segment& prompt = request.segments[static_cast<size_t>(own.parent)];
    rows.insert(prompt.start + prompt.length - 1);
  }
  return rows;
}

// Overwrites one value of a parameter, in the flat array and in what the model computes with.
void set_value(Trainer& trainer, const std::string& role, int64_t at, float value) {
  const Parameters& p = trainer.parameters();
  trainer.model().transformer().device().call(&ix_backend::upload, p.values() + p.find(role)->offset + at, &value,
                                              sizeof value);
  Transformer& model = trainer.model().transformer();
  p.refresh(model.spec(), model.mutable_weights(), trainer.model().head());
}

// Of the error that `call` throws.
template <typename F>
ErrorFields fields_of(const F& call) {
  try {
    call();
  } catch (const Error& error) {
    return error.fields();
  }
  return {};
}

}  // namespace

// Every tensor of a model has a place, a trained one a gradient in it, and the memory that the places make is what the
// trainer takes.
TEST(trainer_places_are_the_models_tensors) {
  for (const TinyOptions& options : tiny_shapes()) {
    const Setup s(options, 990);
    const ModelSpec& spec = s.tiny.spec;
    std::set<std::string> roles;
    for (const TensorPlace& place : tensor_places(spec))
      CHECK(roles.insert(place.role).second, "%s: %s has two places", options.name, place.role.c_str());
    for (const WeightSource& source : spec.weights)
      CHECK(source.role == "head" || roles.count(source.role) == 1, "%s: no place for %s", options.name,
            source.role.c_str());
    for (const size_t o : {0, 2}) {  // explicit, implicit
      const TrainOptions& train = s.all[o].options;
      const std::unique_ptr<Trainer> trainer = make_trainer(spec, train);
      TransformerGradients table = trainer->parameters().gradient_table(spec);
      std::map<std::string, float*> found;
      visit_tensors(spec, table, [&](const TensorPlace& place, float* gradient) {
        if (gradient != nullptr) found[place.role] = gradient;
      });
      size_t expected = 0;
      for (const ParameterEntry& entry : trainer->parameters().entries()) {
        if (entry.role == "head") continue;
        ++expected;
        CHECK(found[entry.role] == trainer->parameters().gradient_of(entry.role), "%s: the gradient of %s",
              options.name, entry.role.c_str());
      }
      CHECK(found.size() == expected, "%s: %zu gradients for %zu parameters", options.name, found.size(), expected);
      const TrainMemory least = least_memory(spec, DType::kF32, train), whole = trainer->memory(1, 1);
      CHECK(least.parameters == whole.parameters && least.moments == whole.moments && least.saving == whole.saving &&
                least.weights <= whole.weights && least.weights == least.saving && least.activations == 0,
            "%s: the memory that is foreseen", options.name);
    }
  }
}

// What the model computes with is what the flat arrays hold, after loading and after steps: a score by the trained
// model is that of the reference with the trained parameters.
TEST(trainer_steps_reach_the_model) {
  for (const TinyOptions& options : tiny_shapes()) {
    const Setup s(options, 1000);
    for (const size_t o : {1, 2}) {  // explicit mean, implicit
      const std::unique_ptr<Trainer> trainer = make_trainer(s.tiny.spec, s.all[o].options);
      const Arrays start = parameters_of(*trainer);
      for (const auto& [role, values] : start)
        CHECK(widened_equal(values, s.tiny.weights.at(role)), "%s: %s is not what the file holds", options.name,
              role.c_str());
      const TrainRequest request = for_objective(s.batch, s.all[o].options.objective);
      const double before = total(accumulate(*trainer, request, false).losses);
      for (int i = 0; i < 3; ++i) {
        accumulate(*trainer, request);
        trainer->step(1e-3, 0);
        for (const auto& [role, gradient] : gradients_of(*trainer))
          CHECK(norm_of(gradient) == 0, "%s: %s keeps a gradient after a step", options.name, role.c_str());
      }
      CHECK(trainer->steps() == 3, "%d steps", int(trainer->steps()));
      TinyModel trained = s.tiny;
      for (const auto& [role, values] : parameters_of(*trainer))
        trained.weights[role].assign(values.begin(), values.end());
      const double after = total(accumulate(*trainer, request, false).losses);
      const double want = reference_losses(Reference(trained, DType::kF32), s.batch, {s.all[o]})[0] / request.scale;
      CHECK(std::fabs(after - want) <= 1e-5 * want, "%s %s: %.9g, the reference says %.9g", options.name, s.all[o].name,
            after, want);
      CHECK(after < before, "%s %s: three steps took the loss from %g to %g", options.name, s.all[o].name, before,
            after);
    }
  }
}

// As names say: what transformers' Trainer decays.
bool is_matrix(const std::string& role) {
  return role.find("norm") == std::string::npos && role.find("_bias") == std::string::npos;
}

// One step per optimiser, against the rule applied to the gradient by hand; the norm and its clipping.
void check_steps(const TinyOptions& shape) {
  const Setup s(shape, 1010);
  const TrainRequest request = for_objective(s.batch, Objective::kExplicit);
  const std::pair<double, DecayOn> kCases[] = {
      {0.0, DecayOn::kAll}, {0.01, DecayOn::kAll}, {1e6, DecayOn::kAll}, {0.01, DecayOn::kMatrices}};
  for (const OptimizerKind kind : {OptimizerKind::kAdamW, OptimizerKind::kRmsProp, OptimizerKind::kSgd}) {
    for (const auto& [max_norm, on] : kCases) {
      TrainOptions options = s.all[0].options;
      options.optimizer.kind = kind;
      options.optimizer.weight_decay = 0.1;
      options.optimizer.weight_decay_on = on;
      if (kind == OptimizerKind::kRmsProp) options.optimizer.beta2 = 0.99;
      if (kind != OptimizerKind::kAdamW) options.optimizer.momentum = 0.9;
      const std::unique_ptr<Trainer> trainer = make_trainer(s.tiny.spec, options);
      accumulate(*trainer, request);
      const Arrays gradients = gradients_of(*trainer), before = parameters_of(*trainer);
      double squares = 0;
      for (const auto& [role, gradient] : gradients) squares += norm_of(gradient) * norm_of(gradient);
      const double norm = std::sqrt(squares), lr = 0.01;
      CHECK(std::fabs(trainer->step(lr, max_norm) - norm) <= 1e-9 * norm, "the norm before clipping");
      const double scale = max_norm > 0 ? std::min(1.0, max_norm / (norm + 1e-6)) : 1;
      CHECK(max_norm != 0.01 || scale < 1, "clipping is tried");
      for (const auto& [role, values] : parameters_of(*trainer)) {
        const double decay = on == DecayOn::kAll || is_matrix(role) ? 0.1 : 0;
        for (size_t i = 0; i < values.size(); ++i) {
          const double p = static_cast<double>(before.at(role)[i]),
                       g = static_cast<double>(gradients.at(role)[i]) * scale;
          const double decayed = g + decay * p;
          double want = p - lr * decayed;
          double sensitivity = lr;
          if (kind == OptimizerKind::kAdamW) want = p * (1 - lr * decay) - lr * g / (std::fabs(g) + 1e-8);
          if (kind == OptimizerKind::kRmsProp) {
            const double root = 0.1 * std::fabs(decayed) + 1e-8;
            want = p - lr * decayed / root;
            sensitivity = lr / root;  // a small difference of gradient and decay is divided by itself
          }
          const double bound =
              4 * kU * std::fabs(p) + 20 * kU * lr * 10 + sensitivity * 8 * kU * (std::fabs(g) + std::fabs(p));
          CHECK(std::fabs(static_cast<double>(values[i]) - want) <= bound, "kind %d %s %zu: %.9g, want %.9g", int(kind),
                role.c_str(), i, static_cast<double>(values[i]), want);
        }
      }
    }
  }
}

TEST(trainer_step_is_the_optimisers_rule) {
  check_steps(tiny_shapes()[0]);
  check_steps(tiny_shapes()[4]);  // the one with biases everywhere
}

TEST(trainer_refuses_bad_requests) {
  const Setup s(tiny_shapes()[3], 1020);
  const std::unique_ptr<Trainer> trainer = make_trainer(s.tiny.spec, s.all[2].options);
  const TrainRequest good = for_objective(s.batch, Objective::kImplicit);
  accumulate(*trainer, good);
  const Arrays gradients = gradients_of(*trainer);
  const auto bad = [&](const auto& change) {
    TrainRequest request = good;
    change(request);
    return request;
  };
  CHECK_ERROR(ErrorCode::kBatchInvalid, accumulate(*trainer, bad([](TrainRequest& r) { r.scored.pop_back(); })),
              "whole pairs");
  CHECK_ERROR(ErrorCode::kBatchInvalid, accumulate(*trainer, bad([](TrainRequest& r) { r.scored.clear(); })),
              "whole pairs");
  CHECK_ERROR(ErrorCode::kBatchInvalid, accumulate(*trainer, bad([](TrainRequest& r) { r.scored[0] = 99; })), "99");
  CHECK_ERROR(ErrorCode::kBatchInvalid, accumulate(*trainer, bad([](TrainRequest& r) { r.margin.pop_back(); })),
              "margin");
  CHECK_ERROR(ErrorCode::kBatchInvalid, accumulate(*trainer, bad([](TrainRequest& r) { r.reference.pop_back(); })),
              "reference");
  CHECK_ERROR(ErrorCode::kBatchInvalid, accumulate(*trainer, bad([](TrainRequest& r) { r.segments[1].start += 1; })),
              "gaps");
  CHECK_ERROR(ErrorCode::kTokenRange, accumulate(*trainer, bad([](TrainRequest& r) { r.tokens[0] = 211; })), "211");
  CHECK_ERROR(
      ErrorCode::kNotFinite,
      accumulate(*trainer, bad([](TrainRequest& r) { r.reference[3] = std::numeric_limits<double>::quiet_NaN(); })),
      "pair 1");
  CHECK(gradients_of(*trainer) == gradients, "a refused batch changed the gradients");
  trainer->step(1e-3, 1);  // what was accumulated before is whole

  CHECK_ERROR(ErrorCode::kConfigInvalid, trainer->parameter("head"), "head is not trained");
  CHECK_ERROR(ErrorCode::kConfigInvalid, trainer->gradient("layers.9.q"), "layers.9.q is not trained");
}

TEST(trainer_refuses_options_that_do_not_fit) {
  TinyOptions bare = tiny_shapes()[3];
  bare.head = false;
  bare.unembedding = false;
  const Setup s(bare, 1030);
  CHECK_ERROR(ErrorCode::kConfigInvalid, make_trainer(s.tiny.spec, s.all[0].options), "head");
  CHECK_ERROR(ErrorCode::kConfigInvalid, make_trainer(s.tiny.spec, s.all[2].options), "unembedding");
  TrainOptions with_head = s.all[0].options;
  with_head.head.assign(40, 0.5f);
  CHECK(make_trainer(s.tiny.spec, with_head)->parameter("head") == with_head.head, "the head that was given");
  with_head.head.pop_back();
  CHECK_ERROR(ErrorCode::kTensorShape, make_trainer(s.tiny.spec, with_head), "hidden size");
  const Setup whole(tiny_shapes()[3], 1031);
  for (const auto& [yes, no] : {std::pair{-1, 0}, std::pair{0, -1}, std::pair{211, 0}, std::pair{0, 211}}) {
    TrainOptions generative = whole.all[4].options;
    generative.yes_token = yes;
    generative.no_token = no;
    CHECK_ERROR(ErrorCode::kConfigInvalid, make_trainer(whole.tiny.spec, generative), "Yes");
  }
  ModelSpec strange = whole.tiny.spec;
  strange.weights.push_back(strange.weights[0]);
  strange.weights.back().role = "layers.0.extra";
  CHECK_ERROR(ErrorCode::kConfigInvalid, make_trainer(strange, whole.all[2].options), "layers.0.extra");
}

// A value that is not finite is named where it is, or where its effects first show; the trainer works again once it is
// gone.
TEST(trainer_names_what_is_not_finite) {
  const float nan = std::numeric_limits<float>::quiet_NaN(), infinity = std::numeric_limits<float>::infinity();
  const Setup s(tiny_shapes()[2], 1040);
  for (const size_t o : {0, 2, 4, 5}) {
    const TrainRequest request = for_objective(s.batch, s.all[o].options.objective);
    for (const bool recompute : {false, true}) {
      TrainOptions options = s.all[o].options;
      options.recompute = recompute;
      const std::unique_ptr<Trainer> trainer = make_trainer(s.tiny.spec, options);
      accumulate(*trainer, request);
      const Arrays whole = gradients_of(*trainer);
      trainer->zero_gradients();
      for (const char* role :
           {"embedding", "layers.1.gate", "layers.2.o", "layers.0.attention_norm", "layers.1.q_bias", "final_norm"}) {
        for (const float value : {nan, infinity}) {
          // The first value of a token that is in the batch.
          const int64_t at = std::string(role) == "embedding" ? request.tokens[0] * s.tiny.spec.hidden_size : 0;
          const float kept = trainer->parameter(role)[static_cast<size_t>(at)];
          set_value(*trainer, role, at, value);
          CHECK_ERROR(ErrorCode::kNotFinite, accumulate(*trainer, request), std::string("parameter ") + role);
          const ErrorFields fields = fields_of([&] { accumulate(*trainer, request, false); });
          CHECK(fields.pair == 0 && fields.parameter == role && fields.tensor.empty() && !fields.step,
                "the fields name \"%s\" and \"%s\"", fields.parameter.c_str(), fields.tensor.c_str());
          set_value(*trainer, role, at, kept);
        }
      }
      trainer->zero_gradients();
      accumulate(*trainer, request);
      CHECK(gradients_of(*trainer) == whole, "%s: gradients differ after repair", s.all[o].name);
      trainer->step(1e-3, 1);
    }
  }
  // Finite parameters, but activations that overflow.
  const std::unique_ptr<Trainer> trainer = make_trainer(s.tiny.spec, s.all[2].options);
  for (int64_t i = 0; i < 40; ++i) set_value(*trainer, "layers.1.down", i, 3e38f);
  CHECK_ERROR(ErrorCode::kNotFinite, accumulate(*trainer, for_objective(s.batch, Objective::kImplicit)), "layer 1");
  const ErrorFields fields = fields_of([&] { accumulate(*trainer, for_objective(s.batch, Objective::kImplicit)); });
  CHECK(fields.pair && fields.parameter.empty() && fields.tensor == "the output of layer 1", "the field says \"%s\"",
        fields.tensor.c_str());
}

TEST(trainer_step_refuses_gradients_that_are_not_finite) {
  const Setup s(tiny_shapes()[0], 1050);
  const std::unique_ptr<Trainer> trainer = make_trainer(s.tiny.spec, s.all[0].options);
  TrainRequest request = for_objective(s.batch, Objective::kExplicit);
  accumulate(*trainer, request);
  const Arrays before = parameters_of(*trainer);
  const Parameters& p = trainer->parameters();
  const float nan = std::numeric_limits<float>::quiet_NaN();
  trainer->model().transformer().device().call(&ix_backend::upload, p.gradients() + p.find("layers.1.up")->offset + 5,
                                               &nan, sizeof nan);
  CHECK_ERROR(ErrorCode::kNotFinite, trainer->step(1e-3, 1), "layers.1.up");
  const ErrorFields fields = fields_of([&] { trainer->step(1e-3, 1); });
  CHECK(fields.step == 1 && fields.parameter == "layers.1.up" && !fields.pair, "the field says \"%s\"",
        fields.parameter.c_str());
  CHECK(parameters_of(*trainer) == before && trainer->steps() == 0, "a refused step changed something");
  trainer->zero_gradients();
  request.scale = 1e300;  // the loss is finite, its gradient is no f32
  accumulate(*trainer, request);
  CHECK_ERROR(ErrorCode::kNotFinite, trainer->step(1e-3, 1), "gradient of");
  trainer->zero_gradients();
  request.scale = 1;
  accumulate(*trainer, request);
  trainer->step(1e-3, 1);
  CHECK(trainer->steps() == 1, "one step");
}

// Cancelled at any moment: either nothing was added, or step() refuses until the gradients are zeroed; then all is as
// before.
TEST(trainer_cancelled_anywhere) {
  TinyOptions options = tiny_shapes()[2];
  options.spec.layers.resize(6, options.spec.layers[0]);
  options.spec.max_positions = 1024;
  const TemporaryFolder folder;
  const TinyModel tiny = make_tiny_model(options, 1060, folder);
  Random random(1061);
  TrainRequest request;
  for (int i = 0; i < 600; ++i) request.tokens.push_back(static_cast<int32_t>(random.below(tiny.spec.vocabulary())));
  request.segments = {{0, 200, -1}, {200, 250, 0}, {450, 150, 0}};
  request.scored = {1, 2};
  const std::unique_ptr<Trainer> trainer = make_trainer(tiny.spec, objectives(tiny.spec)[2].options);
  CancelFlag cancelled;
  cancelled.cancel();
  CHECK_ERROR(ErrorCode::kAborted, trainer->accumulate(request, true, cancelled), "aborted");
  const auto start = std::chrono::steady_clock::now();
  accumulate(*trainer, request);
  const auto whole_time = std::chrono::steady_clock::now() - start;
  const Arrays whole = gradients_of(*trainer), parameters = parameters_of(*trainer);
  int forward = 0, backward = 0;
  for (int attempt = 0; attempt < 400 && (forward < 2 || backward < 2); ++attempt) {
    trainer->zero_gradients();
    CancelFlag cancel;
    std::thread killer([&] {
      std::this_thread::sleep_for(whole_time * (attempt % 12) / 12);
      cancel.cancel();
    });
    bool aborted = false;
    try {
      trainer->accumulate(request, true, cancel);
    } catch (const Error& error) {
      aborted = error.code() == ErrorCode::kAborted;
      CHECK(aborted, "%s", error.what());
    }
    killer.join();
    if (!aborted) continue;
    bool clean = true;
    for (const auto& [role, gradient] : gradients_of(*trainer)) clean &= norm_of(gradient) == 0;
    if (clean) {
      ++forward;
      accumulate(*trainer, request);
      CHECK(gradients_of(*trainer) == whole, "gradients after a cancelled forward pass");
      continue;
    }
    ++backward;
    CHECK_ERROR(ErrorCode::kAborted, trainer->step(1e-3, 1), "incomplete");
    CHECK_ERROR(ErrorCode::kAborted, trainer->step(1e-3, 1), "incomplete");  // until they are zeroed
    CHECK(parameters_of(*trainer) == parameters && trainer->steps() == 0, "a refused step changed something");
    trainer->zero_gradients();
    accumulate(*trainer, request);
    CHECK(gradients_of(*trainer) == whole, "gradients after a cancelled backward pass");
  }
  CHECK(forward > 0 && backward > 0, "cancelled %d times forward and %d times backward", forward, backward);
  trainer->step(1e-3, 1);
  CHECK(trainer->steps() == 1, "the trainer goes on");
}

// memory() says beforehand what a pass takes, and no pass takes more.
TEST(trainer_memory_is_known_before) {
  for (const TinyOptions& options : tiny_shapes()) {
    const Setup s(options, 1070);
    for (const NamedOptions& named : s.all) {
      for (const bool recompute : {false, true}) {
        TrainOptions train = named.options;
        train.recompute = recompute;
        const std::unique_ptr<Trainer> trainer = make_trainer(s.tiny.spec, train);
        const TrainRequest request = for_objective(s.batch, train.objective);
        const TrainMemory memory = trainer->memory(static_cast<int64_t>(request.tokens.size()),
                                                   static_cast<int64_t>(rows_of(request, train).size()));
        accumulate(*trainer, request);
        const size_t taken = trainer->model().transformer().arena_bytes();
        CHECK(taken <= memory.activations && memory.activations < 1.2 * static_cast<double>(taken),
              "%s %s: %zu bytes taken, %zu announced", options.name, named.name, taken, memory.activations);
        CHECK(memory.weights == trainer->model().weight_bytes() &&
                  memory.parameters == static_cast<size_t>(trainer->parameters().size()) * 8 &&
                  memory.moments == memory.parameters,
              "%s %s: weights, parameters, moments", options.name, named.name);
      }
    }
  }
}
