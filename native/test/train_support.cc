// Micro-batches, reference losses, trainers.
#include "train_support.h"

#include <cstdlib>

namespace implex::test {

TrainBatch random_train_batch(Random& random, const ModelSpec& spec) {
  TrainBatch batch;
  TrainRequest& r = batch.request;
  const auto add = [&](int32_t length, int32_t parent) {
    r.segments.push_back({static_cast<int32_t>(r.tokens.size()), length, parent});
    for (int32_t i = 0; i < length; ++i) r.tokens.push_back(static_cast<int32_t>(random.below(spec.vocabulary())));
    return static_cast<int32_t>(r.segments.size() - 1);
  };
  const int32_t lengths[][3] = {{5, 3, 2}, {1, 1, 4}, {3, 4, 4}, {0, 5, 6}};
  for (const auto& [prompt_length, chosen, rejected] : lengths) {
    const int32_t prompt = prompt_length == 0 ? -1 : add(prompt_length, -1);
    r.scored.push_back(add(chosen, prompt));
    r.scored.push_back(add(rejected, prompt));
    r.margin.push_back(random.uniform(-0.5, 0.5));
  }
  // Repeated ids, and added tokens: as input, as target, in a prompt.
  r.tokens[2] = r.tokens[0];
  r.tokens[3] = static_cast<int32_t>(spec.vocabulary() - 1);
  r.tokens[6] = static_cast<int32_t>(spec.vocabulary() - 1);
  r.tokens[8] = static_cast<int32_t>(spec.vocab_size - 1 + (spec.added_tokens > 0 ? 1 : 0));
  for (const int32_t s : r.scored) {
    const Segment& segment = r.segments[static_cast<size_t>(s)];
    std::vector<int32_t> sequence;
    if (segment.parent >= 0) {
      const Segment& prompt = r.segments[static_cast<size_t>(segment.parent)];
      sequence.assign(r.tokens.begin() + prompt.start, r.tokens.begin() + prompt.start + prompt.length);
    }
    batch.prompt_lengths.push_back(sequence.size());
    sequence.insert(sequence.end(), r.tokens.begin() + segment.start,
                    r.tokens.begin() + segment.start + segment.length);
    batch.sequences.push_back(sequence);
    r.reference.push_back(-static_cast<double>(segment.length) * random.uniform(2, 6));
  }
  r.scale = 1.0 / static_cast<double>(r.margin.size());
  return batch;
}

namespace {

TrainBatch rebuilt(const TrainBatch& batch, size_t first, size_t count, bool share) {
  TrainBatch result;
  TrainRequest& r = result.request;
  r.scale = batch.request.scale;
  for (size_t i = 2 * first; i < 2 * (first + count); ++i) {
    const std::vector<int32_t>& sequence = batch.sequences[i];
    const auto prompt_length = static_cast<int32_t>(batch.prompt_lengths[i]);
    const auto length = static_cast<int32_t>(sequence.size()) - prompt_length;
    int32_t prompt = -1;
    if (prompt_length > 0 && share && i % 2 == 1) {
      prompt = r.segments.back().parent;
    } else if (prompt_length > 0) {
      prompt = static_cast<int32_t>(r.segments.size());
      r.segments.push_back({static_cast<int32_t>(r.tokens.size()), prompt_length, -1});
      r.tokens.insert(r.tokens.end(), sequence.begin(), sequence.begin() + prompt_length);
    }
    r.scored.push_back(static_cast<int32_t>(r.segments.size()));
    r.segments.push_back({static_cast<int32_t>(r.tokens.size()), length, prompt});
    r.tokens.insert(r.tokens.end(), sequence.begin() + prompt_length, sequence.end());
    r.reference.push_back(batch.request.reference[i]);
    if (i % 2 == 0) r.margin.push_back(batch.request.margin[i / 2]);
    result.sequences.push_back(sequence);
    result.prompt_lengths.push_back(batch.prompt_lengths[i]);
  }
  return result;
}

}  // namespace

TrainBatch with_own_prompts(const TrainBatch& batch) { return rebuilt(batch, 0, batch.request.margin.size(), false); }
TrainBatch some_pairs(const TrainBatch& batch, size_t first, size_t count) {
  return rebuilt(batch, first, count, true);
}

TrainRequest for_objective(const TrainBatch& batch, Objective objective) {
  TrainRequest r = batch.request;
  if (objective != Objective::kImplicit) r.reference.clear();
  if (objective == Objective::kGenerative) r.margin.clear();
  if (objective == Objective::kSft) {
    r.margin.clear();
    std::vector<int32_t> chosen;
    for (size_t i = 0; i < r.scored.size(); i += 2) chosen.push_back(r.scored[i]);
    r.scored = chosen;
  }
  return r;
}

std::vector<NamedOptions> objectives(const ModelSpec& spec) {
  TrainOptions last;
  last.objective = Objective::kExplicit;
  last.loss = {0.1, 0.02};
  TrainOptions mean = last;
  mean.pooling = Pooling::kMean;
  TrainOptions implicit = last;
  implicit.objective = Objective::kImplicit;
  implicit.beta = 0.3;
  TrainOptions normalized = implicit;
  normalized.length_normalized = true;
  normalized.beta = 1.5;
  TrainOptions generative;
  generative.objective = Objective::kGenerative;
  generative.yes_token = static_cast<int32_t>(spec.vocabulary() - 1);
  generative.no_token = 17;
  TrainOptions sft;
  sft.objective = Objective::kSft;
  return {{"explicit last", last},    {"explicit mean", mean},
          {"implicit", implicit},     {"implicit normalized", normalized},
          {"generative", generative}, {"sft", sft}};
}

std::vector<double> reference_losses(const Reference& reference, const TrainBatch& batch,
                                     const std::vector<NamedOptions>& all) {
  struct Readout {
    double last, mean, logprob, yes, no, tokens;
  };
  const TrainOptions* generative = nullptr;
  for (const NamedOptions& named : all)
    if (named.options.objective == Objective::kGenerative) generative = &named.options;
  std::vector<Readout> readouts;
  for (size_t i = 0; i < batch.sequences.size(); ++i) {
    const std::vector<int32_t>& sequence = batch.sequences[i];
    const size_t prompt = batch.prompt_lengths[i];
    const std::vector<double> rewards = reference.rewards(sequence), logprobs = reference.logprobs(sequence);
    Readout r = {rewards.back(), 0, 0, 0, 0, static_cast<double>(sequence.size() - prompt - (prompt == 0 ? 1 : 0))};
    for (size_t t = prompt; t < sequence.size(); ++t) {
      r.mean += rewards[t] / static_cast<double>(sequence.size() - prompt);
      r.logprob += logprobs[t];
    }
    if (generative)
      (i % 2 == 0 ? r.yes : r.no) =
          reference.next_logprob(sequence, i % 2 == 0 ? generative->yes_token : generative->no_token);
    readouts.push_back(r);
  }
  std::vector<double> losses;
  for (const NamedOptions& named : all) {
    const TrainOptions& o = named.options;
    double total = 0;
    for (size_t pair = 0; pair < batch.request.margin.size(); ++pair) {
      const Readout &c = readouts[2 * pair], &r = readouts[2 * pair + 1];
      if (o.objective == Objective::kSft) {
        total -= c.logprob;
        continue;
      }
      if (o.objective == Objective::kGenerative) {
        total -= 0.5 * (c.yes + r.no);
        continue;
      }
      const auto reward = [&](const Readout& x, size_t i) {
        if (o.objective == Objective::kExplicit) return o.pooling == Pooling::kMean ? x.mean : x.last;
        return o.beta * (x.logprob - batch.request.reference[i]) / (o.length_normalized ? x.tokens : 1);
      };
      const double chosen = reward(c, 2 * pair), rejected = reward(r, 2 * pair + 1);
      const double d = chosen - rejected - batch.request.margin[pair], sum = chosen + rejected;
      total += (1 - o.loss.label_smoothing) * std::log1p(std::exp(-d)) +
               o.loss.label_smoothing * std::log1p(std::exp(d)) + o.loss.centering * sum * sum;
    }
    losses.push_back(total * batch.request.scale);
  }
  return losses;
}

std::unique_ptr<Trainer> make_trainer(const ModelSpec& spec, const TrainOptions& options, DType dtype,
                                      const char* kernels) {
  CancelFlag cancel;
  LoadOptions load;
  load.dtype = dtype;
  const char* before = std::getenv("IMPLEX_KERNELS");
  const std::string kept = before ? before : "";
  if (kernels) ::setenv("IMPLEX_KERNELS", kernels, 1);
  std::unique_ptr<Trainer> trainer;
  std::exception_ptr failure;
  try {
    trainer = std::make_unique<Trainer>(spec, load, options, cancel);
  } catch (...) {
    failure = std::current_exception();
  }
  if (kernels) before ? ::setenv("IMPLEX_KERNELS", kept.c_str(), 1) : ::unsetenv("IMPLEX_KERNELS");
  if (failure) std::rethrow_exception(failure);
  return trainer;
}

TrainResult accumulate(Trainer& trainer, const TrainRequest& request, bool gradients) {
  CancelFlag cancel;
  return trainer.accumulate(request, gradients, cancel);
}

Arrays gradients_of(const Trainer& trainer) {
  Arrays arrays;
  for (const ParameterEntry& entry : trainer.parameters().entries()) arrays[entry.role] = trainer.gradient(entry.role);
  return arrays;
}

Arrays parameters_of(const Trainer& trainer) {
  Arrays arrays;
  for (const ParameterEntry& entry : trainer.parameters().entries()) arrays[entry.role] = trainer.parameter(entry.role);
  return arrays;
}

double norm_of(const std::vector<float>& values) {
  double sum = 0;
  for (const float x : values) sum += static_cast<double>(x) * static_cast<double>(x);
  return std::sqrt(sum);
}

bool widened_equal(const std::vector<float>& a, const std::vector<double>& b) {
  return std::vector<double>(a.begin(), a.end()) == b;
}

double relative_distance(const std::vector<float>& a, const std::vector<float>& b) {
  std::vector<float> difference;
  for (size_t i = 0; i < a.size(); ++i) difference.push_back(a[i] - b[i]);
  return norm_of(difference) / norm_of(b);
}

}  // namespace implex::test
