// Gradients of whole models: every parameter, shape and objective against central differences of the double-precision
// reference's loss; and the same gradients however a batch is cut up or the pass is arranged.
#include <algorithm>

#include "core/error.h"
#include "reward/readout.h"
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

// (L(w + h d) - L(w - h d)) / 2h for each objective, d a direction in one parameter.
std::vector<double> slopes(const Setup& s, const std::string& role, const std::vector<double>& direction) {
  constexpr double kStep = 1e-5;
  const auto losses = [&](double step) {
    TinyModel moved = s.tiny;
    std::vector<double>& w = moved.weights.at(role);
    for (size_t i = 0; i < w.size(); ++i) w[i] += step * direction[i];
    return reference_losses(Reference(moved, DType::kF32), s.batch, s.all);
  };
  std::vector<double> up = losses(kStep);
  const std::vector<double> down = losses(-kStep);
  for (size_t i = 0; i < up.size(); ++i) up[i] = (up[i] - down[i]) / (2 * kStep);
  return up;
}

}  // namespace

// With d of random signs, g · d is a sum of n terms of random sign, of size ‖g‖. f32 leaves each element of g with a
// relative error of about 1e-6 of its size (and more where it cancels), which adds up likewise: far below the allowed
// 2e-5 ‖g‖. Gradients that vanish (a key's bias shifts all scores of a query alike) are bounded by the largest of the
// kind instead.
TEST(backward_model_f32) {
  for (const TinyOptions& options : tiny_shapes()) {
    const Setup s(options, 900);
    Random random(902);
    std::map<std::string, std::vector<double>> directions, expected;
    for (const auto& [role, values] : s.tiny.weights) {
      for (size_t i = 0; i < values.size(); ++i) directions[role].push_back(random.below(2) ? 1 : -1);
      expected[role] = slopes(s, role, directions[role]);
    }
    const std::vector<double> losses = reference_losses(Reference(s.tiny, DType::kF32), s.batch, s.all);
    for (const cpu::KernelTable* kernels : cpu::available_kernels()) {
      for (size_t o = 0; o < s.all.size(); ++o) {
        const std::string name = std::string(options.name) + " " + s.all[o].name + " " + kernels->name;
        const std::unique_ptr<Trainer> trainer =
            make_trainer(s.tiny.spec, s.all[o].options, DType::kF32, kernels->name);
        const TrainRequest request = for_objective(s.batch, s.all[o].options.objective);
        const TrainResult result = accumulate(*trainer, request);
        double loss = 0;
        for (const double x : result.losses) loss += x * request.scale;
        CHECK(std::fabs(loss - losses[o]) <= 1e-5 * std::fabs(losses[o]), "%s: loss %.9g, want %.9g", name.c_str(),
              loss, losses[o]);
        const Arrays gradients = gradients_of(*trainer);
        CHECK(gradients.count("head") == (s.all[o].options.objective == Objective::kExplicit ? 1u : 0u), "%s: the head",
              name.c_str());
        double largest = 0;
        for (const auto& [role, gradient] : gradients) largest = std::max(largest, norm_of(gradient));
        for (const auto& [role, gradient] : gradients) {
          CHECK(expected.count(role) == 1 && gradient.size() == directions.at(role).size(), "%s: %s has %zu values",
                name.c_str(), role.c_str(), gradient.size());
          double slope = 0;
          for (size_t i = 0; i < gradient.size(); ++i)
            slope += static_cast<double>(gradient[i]) * directions.at(role)[i];
          const double want = expected.at(role)[o], bound = 2e-5 * norm_of(gradient) + 2e-7 * largest + 1e-9;
          CHECK(std::fabs(slope - want) <= bound, "%s: %s has slope %.9g, differences give %.9g, allowed %.3g",
                name.c_str(), role.c_str(), slope, want, bound);
        }
        // Nothing that the loss depends on is left out.
        const bool adapters = !options.spec.adapters.empty();
        for (const auto& [role, want] : expected)
          if (!adapters || role.find(".lora_") != std::string::npos)
            CHECK(gradients.count(role) == 1 || want[o] == 0, "%s: %s is not trained", name.c_str(), role.c_str());
      }
    }
  }
}

// bf16 rounds weights and activations about ten times a layer, each by 2^-9 (root mean square 2^-10 of the value) and
// again on the way back: gradients of these models stay within a few percent of f32's.
TEST(backward_model_bf16) {
  for (const TinyOptions& options : tiny_shapes()) {
    uint64_t seed = 910;
    while (!same_experts_in_bf16(Setup(options, seed).tiny, Setup(options, seed).batch.sequences)) ++seed;
    const Setup s(options, seed);
    for (const NamedOptions& named : s.all) {
      const TrainRequest request = for_objective(s.batch, named.options.objective);
      const auto gradients = [&](DType dtype, const char* kernels) {
        const std::unique_ptr<Trainer> trainer = make_trainer(s.tiny.spec, named.options, dtype, kernels);
        accumulate(*trainer, request);
        return gradients_of(*trainer);
      };
      const Arrays exact = gradients(DType::kF32, nullptr);
      double largest = 0;
      for (const auto& [role, gradient] : exact) largest = std::max(largest, norm_of(gradient));
      for (const cpu::KernelTable* kernels : cpu::available_kernels()) {
        for (const auto& [role, gradient] : gradients(DType::kBf16, kernels->name)) {
          if (norm_of(exact.at(role)) < 1e-3 * largest) continue;  // vanishing, so nothing but rounding
          const double distance = relative_distance(gradient, exact.at(role));
          // An adapter's matrices have few elements, over which roundings average out less.
          CHECK(distance <= (role.find(".lora_") == std::string::npos ? 0.1 : 0.2),
                "%s %s %s: %s is off by %.3g of itself", options.name, named.name, kernels->name, role.c_str(),
                distance);
        }
      }
    }
  }
}

TEST(backward_model_arrangements) {
  for (const TinyOptions& options : tiny_shapes()) {
    const Setup s(options, 920);
    for (const DType dtype : {DType::kF32, DType::kBf16}) {
      for (const NamedOptions& named : s.all) {
        const std::string name = std::string(options.name) + " " + dtype_name(dtype) + " " + named.name;
        const Objective objective = named.options.objective;
        const std::unique_ptr<Trainer> trainer = make_trainer(s.tiny.spec, named.options, dtype);
        const auto gradients = [&](const std::vector<TrainBatch>& batches) {
          trainer->zero_gradients();
          for (const TrainBatch& batch : batches) accumulate(*trainer, for_objective(batch, objective));
          return gradients_of(*trainer);
        };
        const Arrays whole = gradients({s.batch});
        CHECK(gradients({s.batch}) == whole, "%s: a second run differs", name.c_str());

        // Recomputed activations have the same bits, so the gradients do too; for any objective's loss as well.
        TrainOptions recompute = named.options;
        recompute.recompute = true;
        const std::unique_ptr<Trainer> other = make_trainer(s.tiny.spec, recompute, dtype);
        const TrainRequest request = for_objective(s.batch, objective);
        const TrainResult kept = accumulate(*trainer, request, false), again = accumulate(*other, request);
        CHECK(gradients_of(*other) == whole, "%s: recomputing changes bits", name.c_str());
        CHECK(kept.losses == again.losses && kept.rewards == again.rewards, "%s: losses without gradients differ",
              name.c_str());
        CHECK(gradients_of(*trainer) == whole, "%s: a pass without gradients changed them", name.c_str());

        // Sums in another order: equal up to rounding, in bf16 that of the activations' gradients.
        double largest = 0;
        for (const auto& [role, gradient] : whole) largest = std::max(largest, norm_of(gradient));
        const auto check_close = [&](const char* what, const Arrays& got) {
          for (const auto& [role, gradient] : got) {
            const double bound = (dtype == DType::kF32 ? 1e-5 : 3e-2) * norm_of(whole.at(role)) +
                                 (dtype == DType::kF32 ? 1e-7 : 1e-3) * largest;
            std::vector<float> difference;
            for (size_t i = 0; i < gradient.size(); ++i) difference.push_back(gradient[i] - whole.at(role)[i]);
            CHECK(norm_of(difference) <= bound, "%s %s: %s differs by %.3g, allowed %.3g", name.c_str(), what,
                  role.c_str(), norm_of(difference), bound);
          }
        };
        check_close("own prompts", gradients({with_own_prompts(s.batch)}));
        check_close("micro-batches",
                    gradients({some_pairs(s.batch, 0, 1), some_pairs(s.batch, 1, 2), some_pairs(s.batch, 3, 1)}));
      }
    }
  }
}

// A frozen part has no gradient and changes no bit of the others'.
TEST(backward_model_frozen_parts) {
  for (const TinyOptions& options : tiny_shapes()) {
    if (!options.spec.adapters.empty()) continue;  // freeze all but themselves
    const Setup s(options, 930);
    for (const size_t o : {0, 2}) {  // explicit, implicit
      const NamedOptions& named = s.all[o];
      const TrainRequest request = for_objective(s.batch, named.options.objective);
      const std::unique_ptr<Trainer> full = make_trainer(s.tiny.spec, named.options);
      accumulate(*full, request);
      const Arrays whole = gradients_of(*full);
      for (int mask = 1; mask < 32; ++mask) {
        TrainOptions frozen = named.options;
        frozen.frozen = {(mask & 1) != 0, (mask & 2) != 0, (mask & 4) != 0, (mask & 8) != 0, (mask & 16) != 0};
        const std::string name = text("%s %s frozen %d", options.name, named.name, mask);
        const bool tied = s.tiny.spec.tied_embedding;
        Arrays want;
        for (const auto& [role, gradient] : whole) {
          const bool norm = role.find("norm") != std::string::npos;
          const bool is_frozen = role == "embedding"     ? (mask & 1) || (tied && (mask & 2))
                                 : role == "unembedding" ? (mask & 2) != 0
                                 : role == "head"        ? (mask & 16) != 0
                                 : norm                  ? (mask & 8) != 0
                                                         : (mask & 4) != 0;
          if (!is_frozen) want[role] = gradient;
        }
        if (want.empty()) {
          CHECK_ERROR(ErrorCode::kConfigInvalid, make_trainer(s.tiny.spec, frozen), "frozen");
          continue;
        }
        const std::unique_ptr<Trainer> trainer = make_trainer(s.tiny.spec, frozen);
        accumulate(*trainer, request);
        CHECK(gradients_of(*trainer) == want, "%s: gradients differ", name.c_str());
        for (const auto& [role, gradient] : whole)
          if (want.count(role) == 0) CHECK_ERROR(ErrorCode::kConfigInvalid, trainer->gradient(role), "not trained");
        if (o != 0 || mask != 15) continue;
        // Only the head is left: a step moves it, and changes no bit of the log-probs.
        ScoreRequest score;
        score.tokens = request.tokens;
        score.segments = request.segments;
        score.scored = request.scored;
        CancelFlag cancel;
        const std::vector<float> head = trainer->parameter("head");
        const ScoreResult before = trainer->model().score(score, cancel);
        trainer->step(0.01, 0);
        CHECK(trainer->parameter("head") != head && trainer->model().score(score, cancel).values == before.values,
              "%s: a step with only the head trained", name.c_str());
      }
    }
  }
}

// A pass that stops before the first layers gives the layers above the same bits.
TEST(backward_model_stops_early) {
  for (const TinyOptions& options : tiny_shapes()) {
    const Setup s(options, 940);
    const int64_t layers = s.tiny.spec.layer_count();
    for (const bool recompute : {false, true}) {
      TrainOptions train = s.all[5].options;
      train.recompute = recompute;
      const std::unique_ptr<Trainer> trainer = make_trainer(s.tiny.spec, train);
      CancelFlag cancel;
      const TrainRequest request = for_objective(s.batch, Objective::kSft);
      accumulate(*trainer, request);
      const Arrays whole = gradients_of(*trainer);
      for (int64_t first = 0; first <= layers; ++first) {
        trainer->zero_gradients();
        TransformerGradients table = trainer->parameters().gradient_table(s.tiny.spec);
        table.first_layer = first;
        if (first > 0 && !s.tiny.spec.tied_embedding) table.embedding = nullptr;
        const RaggedBatch batch(request.tokens, request.segments, s.tiny.spec.vocabulary(), s.tiny.spec.max_positions);
        std::vector<int32_t> predictors, targets;
        for (const int32_t segment : request.scored) append_predictions(batch, segment, &predictors, &targets);
        const std::vector<float> grad(targets.size(), static_cast<float>(-request.scale));
        LogprobReadout readout(trainer->model().transformer(), LogprobPlan::of(predictors, std::move(targets)));
        readout.forward(batch, recompute ? Transformer::Keep::kLayerInputs : Transformer::Keep::kAll, cancel);
        readout.backward(grad, table, cancel);
        for (const auto& [role, gradient] : gradients_of(*trainer)) {
          const bool below = role == "embedding"             ? first > 0
                             : role.rfind("layers.", 0) == 0 ? std::stoll(role.substr(7)) < first
                                                             : false;
          if (role == "embedding" && s.tiny.spec.tied_embedding && first > 0) continue;  // the unembedding's share only
          if (below)
            CHECK(norm_of(gradient) == 0, "%s: %s below layer %d", options.name, role.c_str(), int(first));
          else
            CHECK(gradient == whole.at(role), "%s: %s differs when stopping at layer %d", options.name, role.c_str(),
                  int(first));
        }
      }
    }
  }
}

TEST(backward_model_added_tokens) {
  for (const TinyOptions& options : tiny_shapes()) {
    if (options.spec.added_tokens == 0) continue;
    const Setup s(options, 950);
    const std::unique_ptr<Trainer> trainer = make_trainer(s.tiny.spec, s.all[0].options);
    accumulate(*trainer, for_objective(s.batch, Objective::kExplicit));
    const std::vector<float> gradient = trainer->gradient("embedding");
    const auto width = static_cast<size_t>(s.tiny.spec.hidden_size);
    for (int64_t token = 0; token < s.tiny.spec.vocabulary(); ++token) {
      bool used = false;
      for (const std::vector<int32_t>& sequence : s.batch.sequences)
        used |= std::find(sequence.begin(), sequence.end(), static_cast<int32_t>(token)) != sequence.end();
      const auto row = gradient.begin() + static_cast<int64_t>(static_cast<size_t>(token) * width);
      CHECK((norm_of({row, row + static_cast<int64_t>(width)}) > 0) == used, "%s: token %d", options.name, int(token));
    }
  }
}
