// Whole models: every shape and read-out against the double-precision reference, under every kernel set; the same bits
// in any batch; errors that leave a model usable.
#include <algorithm>
#include <cstdlib>
#include <limits>

#include "core/error.h"
#include "tiny_model.h"

using namespace implex;
using namespace implex::test;

namespace {

// Loads a model under one kernel set: devices opened while IMPLEX_KERNELS is set use it.
std::unique_ptr<RewardModel> load(const ModelSpec& spec, DType dtype, const char* kernels = nullptr) {
  CancelFlag cancel;
  LoadOptions options;
  options.dtype = dtype;
  const char* before = std::getenv("IMPLEX_KERNELS");
  const std::string kept = before ? before : "";
  if (kernels) ::setenv("IMPLEX_KERNELS", kernels, 1);
  std::unique_ptr<RewardModel> model;
  try {
    model = load_model(spec, options, cancel);
  } catch (...) {
    if (kernels) before ? ::setenv("IMPLEX_KERNELS", kept.c_str(), 1) : ::unsetenv("IMPLEX_KERNELS");
    throw;
  }
  if (kernels) before ? ::setenv("IMPLEX_KERNELS", kept.c_str(), 1) : ::unsetenv("IMPLEX_KERNELS");
  CHECK(!kernels || model->kernel_set() == kernels, "asked for %s kernels, got %s", kernels,
        model->kernel_set().c_str());
  return model;
}

ScoreResult score(RewardModel& model, const ScoreRequest& request) {
  CancelFlag cancel;
  return model.score(request, cancel);
}

struct Expected {
  std::vector<double> logprob, last, mean, next, scale;
  std::vector<std::vector<double>> tokens;
};

Expected expected_values(const TinyModel& tiny, const TinyBatch& batch, DType dtype, int32_t target) {
  const Reference reference(tiny, dtype);
  Expected e;
  for (size_t i = 0; i < batch.sequences.size(); ++i) {
    const auto prompt = static_cast<size_t>(batch.prompt_lengths[i]);
    const std::vector<double> logprobs = reference.logprobs(batch.sequences[i]);
    e.tokens.emplace_back(logprobs.begin() + static_cast<int64_t>(prompt), logprobs.end());
    double sum = 0;
    for (const double x : e.tokens.back()) sum += x;
    e.logprob.push_back(sum);
    const std::vector<double> rewards = reference.rewards(batch.sequences[i]);
    double mean = 0;
    for (size_t t = prompt; t < rewards.size(); ++t) mean += rewards[t] / static_cast<double>(rewards.size() - prompt);
    e.last.push_back(rewards.back());
    e.mean.push_back(mean);
    e.next.push_back(std::exp(reference.next_logprob(batch.sequences[i], target)));
  }
  return e;
}

void check_close(const char* what, const std::vector<double>& got, const std::vector<double>& want, double relative,
                 double floor) {
  CHECK(got.size() == want.size(), "%s: %zu values, want %zu", what, got.size(), want.size());
  for (size_t i = 0; i < got.size(); ++i) {
    const double bound = relative * std::max(std::fabs(want[i]), floor);
    CHECK(std::fabs(got[i] - want[i]) <= bound, "%s %zu: %.9g, want %.9g, allowed %.2g", what, i, got[i], want[i],
          bound);
  }
}

ScoreRequest with(ScoreRequest request, Readout readout, int32_t target = -1) {
  request.readout = readout;
  request.target_token = target;
  return request;
}

void check_shape(const TinyOptions& options, DType dtype) {
  const TemporaryFolder folder;
  const TinyModel tiny = make_tiny_model(options, 7, folder);
  Random random(11);
  const TinyBatch batch = random_batch(random, tiny.spec);
  const auto target = static_cast<int32_t>(tiny.spec.vocabulary() - 1);
  const Expected want = expected_values(tiny, batch, dtype, target);
  // f32: the numerical contract is 1e-4 relative; models as small as these keep well inside it. A reward may cancel,
  // hence the floor. bf16: the reference rounds at the same places, so a difference starts where f32 and double sums
  // fall on two sides of a rounding boundary: a few elements of a layer move by one unit in the last place, 2^-7 of
  // themselves, and change a logit by about 2^-7/√D of its size, which is up to 4 here: 5e-3 for each such element.
  // Allowed: five of them on one token.
  const double relative = dtype == DType::kF32 ? 2e-5 : 1e-2;
  const double floor = dtype == DType::kF32 ? 0.5 : 2.5;
  for (const cpu::KernelTable* kernels : cpu::available_kernels()) {
    const std::unique_ptr<RewardModel> model = load(tiny.spec, dtype, kernels->name);
    const std::string what = std::string(options.name) + " " + dtype_name(dtype) + " " + kernels->name;
    CHECK(model->has_head() == options.head &&
              model->has_unembedding() == (options.spec.tied_embedding || options.unembedding),
          "%s: parts", what.c_str());
    ScoreRequest request = with(batch.request, Readout::kLogprob);
    request.token_logprobs = true;
    const ScoreResult logprobs = score(*model, request);
    check_close((what + " logprob").c_str(), logprobs.values, want.logprob, relative, floor);
    size_t next = 0;
    for (size_t i = 0; i < want.tokens.size(); ++i) {
      double sum = 0;
      for (const double token : want.tokens[i]) {
        CHECK(next < logprobs.token_logprobs.size(), "%s: too few token log-probs", what.c_str());
        const double got = static_cast<double>(logprobs.token_logprobs[next++]);
        sum += got;
        const double bound = relative * std::max(std::fabs(token), floor);
        CHECK(std::fabs(got - token) <= bound, "%s token %zu: %.9g, want %.9g", what.c_str(), next - 1, got, token);
      }
      CHECK(sum == logprobs.values[i], "%s: the value is not the sum of its tokens' terms", what.c_str());
    }
    CHECK(next == logprobs.token_logprobs.size(), "%s: too many token log-probs", what.c_str());
    check_close((what + " reward_last").c_str(), score(*model, with(batch.request, Readout::kRewardLast)).values,
                want.last, relative, floor);
    check_close((what + " reward_mean").c_str(), score(*model, with(batch.request, Readout::kRewardMean)).values,
                want.mean, relative, floor);
    check_close((what + " next_token").c_str(), score(*model, with(batch.request, Readout::kNextToken, target)).values,
                want.next, dtype == DType::kF32 ? 2e-5 : 3e-2, 1e-6);
  }
}

// The batch again with its groups, responses and asked-for order shuffled; `order[i]` says which old scored segment is
// the new i-th.
ScoreRequest shuffled(Random& random, const TinyBatch& batch, std::vector<size_t>& order) {
  std::vector<size_t> scored(batch.sequences.size());
  for (size_t i = 0; i < scored.size(); ++i) scored[i] = i;
  random.shuffle(scored);
  ScoreRequest r;
  std::vector<int32_t> new_prompt(batch.request.segments.size(), -1);
  std::vector<std::pair<size_t, int32_t>> placed;
  const auto add = [&](const Segment& old, int32_t parent) {
    r.segments.push_back({static_cast<int32_t>(r.tokens.size()), old.length, parent});
    r.tokens.insert(r.tokens.end(), batch.request.tokens.begin() + old.start,
                    batch.request.tokens.begin() + old.start + old.length);
    return static_cast<int32_t>(r.segments.size() - 1);
  };
  for (const size_t i : scored) {
    const Segment& old = batch.request.segments[static_cast<size_t>(batch.request.scored[i])];
    if (old.parent < 0) {
      placed.push_back({i, add(old, -1)});
      continue;
    }
    int32_t& prompt = new_prompt[static_cast<size_t>(old.parent)];
    // Now and then a prompt is computed again instead of shared.
    if (prompt < 0 || random.below(3) == 0) prompt = add(batch.request.segments[static_cast<size_t>(old.parent)], -1);
    placed.push_back({i, add(old, prompt)});
  }
  random.shuffle(placed);
  for (const auto& [old, segment] : placed) {
    order.push_back(old);
    r.scored.push_back(segment);
  }
  return r;
}

}  // namespace

TEST(transformer_f32) {
  for (const TinyOptions& options : tiny_shapes()) check_shape(options, DType::kF32);
}

TEST(transformer_bf16) {
  for (const TinyOptions& options : tiny_shapes()) check_shape(options, DType::kBf16);
}

// bf16 against the reference without any rounding of activations: how far bf16 is from the truth. Each of about eight
// roundings a layer moves an activation by 2^-9 of itself (root mean square), so a logit by 2^-9 √(8 layers), 1%, of
// its size, and a token's log-prob is about as large as the logits. Errors of tokens are independent. Allowed: three
// times that.
TEST(transformer_bf16_is_near_the_truth) {
  const TemporaryFolder folder;
  for (const TinyOptions& options : tiny_shapes()) {
    const TinyModel tiny = make_tiny_model(options, 8, folder);
    Random random(12);
    const TinyBatch batch = random_batch(random, tiny.spec);
    const Expected want = expected_values(tiny, batch, DType::kF32, 0);
    const ScoreResult got = score(*load(tiny.spec, DType::kBf16), with(batch.request, Readout::kLogprob));
    size_t compared = 0;
    for (size_t i = 0; i < got.values.size(); ++i) {
      if (!same_experts_in_bf16(tiny, {batch.sequences[i]})) continue;
      ++compared;
      double squares = 0;
      for (const double token : want.tokens[i]) squares += token * token;
      const double bound = 0.03 * std::sqrt(squares);
      CHECK(std::fabs(got.values[i] - want.logprob[i]) <= bound, "%s %zu: %.6g, want %.6g, allowed %.3g", options.name,
            i, got.values[i], want.logprob[i], bound);
    }
    CHECK(2 * compared >= got.values.size(), "%s: only %zu sequences keep their experts", options.name, compared);
  }
}

TEST(transformer_same_bits_in_any_batch) {
  const TemporaryFolder folder;
  for (const TinyOptions& options : tiny_shapes()) {
    const TinyModel tiny = make_tiny_model(options, 9, folder);
    for (const DType dtype : {DType::kF32, DType::kBf16}) {
      for (const cpu::KernelTable* kernels : cpu::available_kernels()) {
        const std::unique_ptr<RewardModel> model = load(tiny.spec, dtype, kernels->name);
        const std::string name = std::string(options.name) + " " + dtype_name(dtype) + " " + kernels->name;
        Random random(13);
        const TinyBatch batch = random_batch(random, tiny.spec);
        for (const Readout readout :
             {Readout::kLogprob, Readout::kRewardLast, Readout::kRewardMean, Readout::kNextToken}) {
          const ScoreRequest request = with(batch.request, readout, 3);
          const ScoreResult all = score(*model, request);
          CHECK(score(*model, request).values == all.values, "%s: a second run differs", name.c_str());
          for (size_t i = 0; i < batch.sequences.size(); ++i) {
            // Alone: the prompt and this response only.
            const std::vector<int32_t>& sequence = batch.sequences[i];
            const int32_t prompt = batch.prompt_lengths[i];
            const auto length = static_cast<int32_t>(sequence.size());
            ScoreRequest one = request;
            one.tokens = sequence;
            if (prompt > 0) {
              one.segments = {{0, prompt, -1}, {prompt, length - prompt, 0}};
              one.scored = {1};
            } else {
              one.segments = {{0, length, -1}};
              one.scored = {0};
            }
            CHECK(score(*model, one).values[0] == all.values[i], "%s read-out %d: %zu alone differs", name.c_str(),
                  int(readout), i);
          }
          for (int round = 0; round < 2; ++round) {
            std::vector<size_t> order;
            const ScoreRequest other = with(shuffled(random, batch, order), readout, 3);
            const ScoreResult got = score(*model, other);
            for (size_t i = 0; i < order.size(); ++i)
              CHECK(got.values[i] == all.values[order[i]], "%s read-out %d: %zu differs in a shuffled batch",
                    name.c_str(), int(readout), order[i]);
          }
        }
        // Prompt and response joined into one segment: the response's tokens keep their bits.
        ScoreRequest split = with(batch.request, Readout::kLogprob);
        split.token_logprobs = true;
        const ScoreResult parts = score(*model, split);
        size_t at = 0;
        for (size_t i = 0; i < batch.sequences.size(); ++i) {
          ScoreRequest joined = split;
          joined.tokens = batch.sequences[i];
          joined.segments = {{0, static_cast<int32_t>(joined.tokens.size()), -1}};
          joined.scored = {0};
          const ScoreResult whole = score(*model, joined);
          for (size_t t = static_cast<size_t>(batch.prompt_lengths[i]); t < joined.tokens.size(); ++t, ++at)
            CHECK(whole.token_logprobs[t] == parts.token_logprobs[at], "%s: %zu token %zu differs when joined",
                  name.c_str(), i, t);
        }
      }
    }
  }
}

// A head that is a unit vector reads one element of the hidden state: to the bit.
TEST(transformer_hidden_states) {
  for (const TinyOptions& options : tiny_shapes()) {
    for (const DType dtype : {DType::kF32, DType::kBf16}) {
      const TemporaryFolder folder;
      const TinyModel tiny = make_tiny_model(options, 7, folder);
      Random random(16);
      const TinyBatch batch = random_batch(random, tiny.spec);
      const std::unique_ptr<RewardModel> model = load(tiny.spec, dtype);
      const auto width = static_cast<size_t>(tiny.spec.hidden_size);
      const std::vector<double> hidden = score(*model, with(batch.request, Readout::kHiddenLast)).values;
      CHECK(hidden.size() == batch.request.scored.size() * width, "%s: %zu values", options.name, hidden.size());
      for (const size_t k : {size_t{0}, width / 2, width - 1}) {
        std::vector<float> unit(width, 0.0f);
        unit[k] = 1.0f;
        model->set_head(unit);
        const std::vector<double> rewards = score(*model, with(batch.request, Readout::kRewardLast)).values;
        for (size_t i = 0; i < rewards.size(); ++i)
          CHECK(hidden[i * width + k] == rewards[i], "%s %s: sequence %zu, element %zu", options.name,
                dtype_name(dtype), i, k);
      }
    }
  }
}

// The head at a token is the last-token reward of the sequence up to it, and their mean the mean reward: to the bit.
TEST(transformer_token_rewards) {
  for (const TinyOptions& options : tiny_shapes()) {
    for (const DType dtype : {DType::kF32, DType::kBf16}) {
      const TemporaryFolder folder;
      const TinyModel tiny = make_tiny_model(options, 7, folder);
      Random random(15);
      const TinyBatch batch = random_batch(random, tiny.spec);
      const std::unique_ptr<RewardModel> model = load(tiny.spec, dtype);
      const std::vector<double> tokens = score(*model, with(batch.request, Readout::kRewardTokens)).values;
      const std::vector<double> means = score(*model, with(batch.request, Readout::kRewardMean)).values;
      size_t next = 0;
      for (size_t i = 0; i < batch.sequences.size(); ++i) {
        const std::vector<int32_t>& sequence = batch.sequences[i];
        const auto prompt = static_cast<size_t>(batch.prompt_lengths[i]);
        ScoreRequest prefixes;
        for (size_t length = prompt + 1; length <= sequence.size(); ++length) {
          const auto start = static_cast<int32_t>(prefixes.tokens.size());
          prefixes.scored.push_back(static_cast<int32_t>(prefixes.segments.size()));
          prefixes.segments.push_back({start, static_cast<int32_t>(length), -1});
          prefixes.tokens.insert(prefixes.tokens.end(), sequence.begin(),
                                 sequence.begin() + static_cast<int64_t>(length));
        }
        double sum = 0;
        for (const double value : score(*model, with(prefixes, Readout::kRewardLast)).values) {
          CHECK(next < tokens.size() && tokens[next] == value, "%s %s: sequence %zu, token reward %zu", options.name,
                dtype_name(dtype), i, next);
          sum += tokens[next++];
        }
        const double mean = sum / static_cast<double>(sequence.size() - prompt);
        CHECK(means[i] == static_cast<double>(static_cast<float>(mean)), "%s: mean of %zu", options.name, i);
      }
      CHECK(next == tokens.size(), "%s: %zu token rewards, want %zu", options.name, tokens.size(), next);
    }
  }
}

// Read at any tokens, prompts' too, a head of several rows and two tokens' probabilities give what a sequence that ends
// there gives for each: to the bit.
TEST(transformer_read_at) {
  for (const TinyOptions& options : tiny_shapes()) {
    for (const DType dtype : {DType::kF32, DType::kBf16}) {
      const TemporaryFolder folder;
      const TinyModel tiny = make_tiny_model(options, 7, folder);
      Random random(18);
      const TinyBatch batch = random_batch(random, tiny.spec);
      const std::unique_ptr<RewardModel> model = load(tiny.spec, dtype);
      const auto width = static_cast<size_t>(tiny.spec.hidden_size);
      std::vector<std::vector<float>> rows;
      std::vector<float> head;
      for (int r = 0; r < 3; ++r) {
        rows.emplace_back();
        for (size_t k = 0; k < width; ++k) rows.back().push_back(static_cast<float>(random.uniform(-1, 1)));
        head.insert(head.end(), rows.back().begin(), rows.back().end());
      }
      // Every third token, backwards, and one of them twice.
      ScoreRequest at = batch.request;
      at.scored.clear();
      for (auto t = static_cast<int32_t>(at.tokens.size()) - 1; t >= 0; t -= 3) at.read_at.push_back(t);
      at.read_at.push_back(at.read_at.front());
      ScoreRequest alone;
      for (const int32_t token : at.read_at) {
        const auto own = std::find_if(at.segments.begin(), at.segments.end(),
                                      [&](const Segment& s) { return s.start <= token && token < s.start + s.length; });
        std::vector<int32_t> ids;
        if (own->parent >= 0) {
          const Segment& prompt = at.segments[static_cast<size_t>(own->parent)];
          ids.insert(ids.end(), at.tokens.begin() + prompt.start, at.tokens.begin() + prompt.start + prompt.length);
        }
        ids.insert(ids.end(), at.tokens.begin() + own->start, at.tokens.begin() + token + 1);
        alone.scored.push_back(static_cast<int32_t>(alone.segments.size()));
        alone.segments.push_back({static_cast<int32_t>(alone.tokens.size()), static_cast<int32_t>(ids.size()), -1});
        alone.tokens.insert(alone.tokens.end(), ids.begin(), ids.end());
      }
      const std::string what = std::string(options.name) + " " + dtype_name(dtype);
      CHECK(score(*model, with(at, Readout::kHiddenLast)).values ==
                score(*model, with(alone, Readout::kHiddenLast)).values,
            "%s: hidden states", what.c_str());
      model->set_head(head);
      const std::vector<double> rewards = score(*model, with(at, Readout::kRewardLast)).values;
      const std::vector<double> means = score(*model, with(batch.request, Readout::kRewardMean)).values;
      CHECK(rewards.size() == 3 * at.read_at.size() && means.size() == 3 * batch.request.scored.size(),
            "%s: %zu rewards and %zu means", what.c_str(), rewards.size(), means.size());
      for (size_t r = 0; r < rows.size(); ++r) {
        model->set_head(rows[r]);
        const std::vector<double> row = score(*model, with(alone, Readout::kRewardLast)).values;
        const std::vector<double> mean = score(*model, with(batch.request, Readout::kRewardMean)).values;
        for (size_t i = 0; i < row.size(); ++i)
          CHECK(rewards[3 * i + r] == row[i], "%s: row %zu of the head at place %zu", what.c_str(), r, i);
        for (size_t i = 0; i < mean.size(); ++i)
          CHECK(means[3 * i + r] == mean[i], "%s: mean of row %zu over sequence %zu", what.c_str(), r, i);
      }
      if (!model->has_unembedding()) continue;
      ScoreRequest both = with(at, Readout::kNextToken, 3);
      both.other_token = 0;
      const std::vector<double> pairs = score(*model, both).values;
      const std::vector<double> first = score(*model, with(alone, Readout::kNextToken, 3)).values;
      const std::vector<double> second = score(*model, with(alone, Readout::kNextToken, 0)).values;
      for (size_t i = 0; i < first.size(); ++i)
        CHECK(pairs[2 * i] == first[i] && pairs[2 * i + 1] == second[i], "%s: tokens at place %zu", what.c_str(), i);
    }
  }
}

// More rows than the MLP's inner block of 512, in the middle and in the last layer.
TEST(transformer_long_batch) {
  const TemporaryFolder folder;
  TinyOptions options = tiny_shapes()[0];
  options.spec.max_positions = 2000;
  const TinyModel tiny = make_tiny_model(options, 10, folder);
  const Reference reference(tiny, DType::kF32);
  Random random(14);
  const std::unique_ptr<RewardModel> model = load(tiny.spec, DType::kF32);
  ScoreRequest request;
  request.token_logprobs = true;
  for (int i = 0; i < 1100; ++i) request.tokens.push_back(static_cast<int32_t>(random.below(tiny.spec.vocabulary())));
  request.segments = {{0, 300, -1}, {300, 800, 0}};
  request.scored = {1, 1, 0};  // twice the same, and the prompt itself
  const ScoreResult got = score(*model, request);
  CHECK(got.values[0] == got.values[1] && got.token_logprobs.size() == 1900, "a repeated segment");
  const std::vector<double> want = reference.logprobs(request.tokens);
  double sum = 0;
  for (size_t t = 300; t < want.size(); ++t) sum += want[t];
  CHECK(std::fabs(got.values[0] - sum) <= 1e-4 * std::fabs(sum), "%.9g, want %.9g", got.values[0], sum);
  for (const Readout readout : {Readout::kRewardLast, Readout::kRewardMean, Readout::kNextToken}) {
    const ScoreResult repeated = score(*model, with(request, readout, 5));
    CHECK(repeated.values.size() == 3 && repeated.values[0] == repeated.values[1] &&
              repeated.values[0] != repeated.values[2],
          "a repeated segment, read-out %d", int(readout));
  }
  CHECK(got.token_logprobs[1600] == 0, "a first token without a predecessor has no term");
}

TEST(transformer_request_errors) {
  const TemporaryFolder folder;
  TinyOptions options = tiny_shapes()[3];
  options.head = false;
  options.unembedding = false;
  const TinyModel tiny = make_tiny_model(options, 15, folder);
  const std::unique_ptr<RewardModel> model = load(tiny.spec, DType::kF32);
  Random random(16);
  const ScoreRequest good = with(random_batch(random, tiny.spec).request, Readout::kLogprob);
  CHECK(!model->has_head() && !model->has_unembedding() && model->weight_bytes() > 0 && model->device_name() == "cpu",
        "what the model says of itself");
  CHECK_ERROR(ErrorCode::kTensorMissing, score(*model, good), "unembedding");
  CHECK_ERROR(ErrorCode::kTensorMissing, score(*model, with(good, Readout::kNextToken, 0)), "unembedding");
  CHECK_ERROR(ErrorCode::kTensorMissing, score(*model, with(good, Readout::kRewardLast)), "head");

  const float nan = std::numeric_limits<float>::quiet_NaN();
  const auto width = static_cast<size_t>(tiny.spec.hidden_size);
  CHECK_ERROR(ErrorCode::kTensorShape, model->set_head(std::vector<float>(width + 1)), "hidden size");
  CHECK_ERROR(ErrorCode::kWeightNotFinite, model->set_head(std::vector<float>(width, nan)), "finite");
  model->set_head(std::vector<float>(width, 0.5f));
  CHECK(model->has_head(), "a head was set");
  const ScoreRequest reward = with(good, Readout::kRewardMean);
  const std::vector<double> before = score(*model, reward).values;

  ScoreRequest bad = reward;
  bad.scored = {static_cast<int32_t>(bad.segments.size())};
  CHECK_ERROR(ErrorCode::kBatchInvalid, score(*model, bad), "does not exist");
  bad.scored = {-1};
  CHECK_ERROR(ErrorCode::kBatchInvalid, score(*model, bad), "does not exist");
  bad = reward;
  bad.tokens[3] = static_cast<int32_t>(tiny.spec.vocabulary());
  CHECK_ERROR(ErrorCode::kTokenRange, score(*model, bad), "vocabulary");
  CHECK_ERROR(ErrorCode::kTokenRange, score(*model, with(good, Readout::kNextToken, -1)), "target token -1");
  bad = with(good, Readout::kNextToken, 0);
  bad.other_token = -2;
  CHECK_ERROR(ErrorCode::kTokenRange, score(*model, bad), "target token -2");
  bad = with(good, Readout::kHiddenLast);
  bad.read_at = {0};
  CHECK_ERROR(ErrorCode::kBatchInvalid, score(*model, bad), "not at both");
  bad.scored.clear();
  for (const int32_t token : {-1, static_cast<int32_t>(bad.tokens.size())}) {
    bad.read_at = {0, token};
    CHECK_ERROR(ErrorCode::kBatchInvalid, score(*model, bad), "does not exist");
  }
  bad.read_at = {0};
  bad.readout = Readout::kRewardMean;
  CHECK_ERROR(ErrorCode::kBatchInvalid, score(*model, bad), "single tokens");
  CHECK_ERROR(ErrorCode::kTensorShape, model->set_head({}), "hidden size");
  CHECK_ERROR(ErrorCode::kTokenRange,
              score(*model, with(good, Readout::kNextToken, static_cast<int32_t>(tiny.spec.vocabulary()))),
              "target token");
  CancelFlag cancel;
  cancel.cancel();
  CHECK_ERROR(ErrorCode::kAborted, model->score(reward, cancel), "aborted");
  bad = reward;
  bad.scored.clear();
  CHECK(score(*model, bad).values.empty(), "nothing asked");
  CHECK(score(*model, reward).values == before, "the model must give the same after errors");
}

TEST(transformer_load_errors) {
  const TemporaryFolder folder;
  const TinyModel tiny = make_tiny_model(tiny_shapes()[0], 17, folder);
  const auto changed = [&](const char* role, const auto& change) {
    ModelSpec spec = tiny.spec;
    for (size_t i = 0; i < spec.weights.size(); ++i) {
      if (spec.weights[i].role != role) continue;
      change(spec, i);
      return spec;
    }
    throw Failure{std::string("no role ") + role};
  };
  const auto removed = [](ModelSpec& spec, size_t i) {
    spec.weights.erase(spec.weights.begin() + static_cast<int64_t>(i));
  };
  for (const char* role :
       {"embedding", "layers.0.attention_norm", "layers.0.q", "layers.1.k", "layers.1.v", "layers.0.o",
        "layers.0.mlp_norm", "layers.0.gate", "layers.1.up", "layers.1.down", "final_norm"}) {
    CHECK_ERROR(ErrorCode::kTensorMissing, load(changed(role, removed), DType::kF32), role);
    CHECK_ERROR(ErrorCode::kTensorShape,
                load(changed(role,
                             [](ModelSpec& spec, size_t i) {
                               WeightSource& s = spec.weights[i];
                               s.shape.back() -= 1;
                               s.bytes =
                                   static_cast<uint64_t>(s.shape.size() == 2 ? s.shape[0] * s.shape[1] : s.shape[0]) *
                                   dtype_size(s.dtype);
                             }),
                     DType::kF32),
                role);
  }
  CHECK_ERROR(ErrorCode::kConfigInvalid,
              load(changed("final_norm",
                           [](ModelSpec& spec, size_t i) { spec.weights.push_back(WeightSource(spec.weights[i])); }),
                   DType::kF32),
              "twice");
  CHECK_ERROR(
      ErrorCode::kIo,
      load(changed("final_norm", [](ModelSpec& spec, size_t i) { spec.weights[i].file += ".absent"; }), DType::kF32),
      ".absent");
  CHECK_ERROR(ErrorCode::kTensorDtype, load(tiny.spec, DType::kF16), "bf16");
  ModelSpec spec = tiny.spec;
  spec.kv_heads = 3;
  CHECK_ERROR(ErrorCode::kConfigInvalid, load(spec, DType::kF32), "kvHeads");
  CancelFlag cancel;
  cancel.cancel();
  CHECK_ERROR(ErrorCode::kAborted, load_model(tiny.spec, LoadOptions(), cancel), "aborted");
}

// Adapters on weights that another model holds: the bits of a model loaded with them, and the base keeps its own.
TEST(transformer_shares_weights_with_adapters) {
  const TemporaryFolder folder;
  for (const TinyOptions& options : tiny_shapes()) {
    if (options.spec.adapters.empty()) continue;
    const TinyModel tiny = make_tiny_model(options, 31, folder);
    Random random(32);
    const TinyBatch batch = random_batch(random, tiny.spec);
    ModelSpec without = tiny.spec;
    without.adapters.clear();
    CancelFlag cancel;
    for (const DType dtype : {DType::kF32, DType::kBf16}) {
      const std::unique_ptr<RewardModel> base = load(without, dtype), whole = load(tiny.spec, dtype);
      const std::vector<double> before = score(*base, batch.request).values;
      const RewardModel adapted(*base, tiny.spec, cancel);
      const std::vector<double> want = score(*whole, batch.request).values;
      CHECK(before != want, "%s: the adapters change nothing", options.name);
      RewardModel other(*base, tiny.spec, cancel);
      CHECK(score(other, batch.request).values == want, "%s: shared weights give other bits", options.name);
      CHECK(score(*base, batch.request).values == before, "%s: the base has changed", options.name);
      CHECK(adapted.weight_bytes() < base->weight_bytes(), "%s: the base is loaded again", options.name);
    }
    ModelSpec wider = tiny.spec;
    wider.vocab_size += 1;
    const std::unique_ptr<RewardModel> base = load(without, DType::kF32);
    CHECK_ERROR(ErrorCode::kConfigInvalid, RewardModel(*base, wider, cancel), "embedding");
    ModelSpec elsewhere = tiny.spec;
    elsewhere.adapters["layers.0.router"] = {1, 1};
    CHECK_ERROR(ErrorCode::kConfigInvalid, RewardModel(*base, elsewhere, cancel), "does not have");
    // The shared weights outlive the model that loaded them.
    std::unique_ptr<RewardModel> first = load(without, DType::kF32);
    RewardModel last(*first, tiny.spec, cancel);
    const std::vector<double> with_base = score(last, batch.request).values;
    first.reset();
    CHECK(score(last, batch.request).values == with_base, "%s: without its base", options.name);
  }
}

TEST(transformer_tells_the_load_of_experts) {
  const TemporaryFolder folder;
  for (const TinyOptions& options : tiny_shapes()) {
    const TinyModel tiny = make_tiny_model(options, 41, folder);
    Random random(42);
    const TinyBatch batch = random_batch(random, tiny.spec);
    const std::unique_ptr<RewardModel> model = load(tiny.spec, DType::kF32);
    const ScoreResult result = score(*model, with(batch.request, Readout::kRewardTokens));
    std::vector<double> want;
    for (size_t i = 0; i < tiny.spec.layers.size(); ++i) {
      const ExpertsSpec& experts = tiny.spec.layers[i].experts;
      want.insert(want.end(), static_cast<size_t>(experts.count), 0);
    }
    CHECK(result.expert_load.size() == want.size(), "%s: %zu experts", options.name, result.expert_load.size());
    if (want.empty()) continue;
    const auto first = static_cast<size_t>(tiny.spec.layers[0].experts.count);
    double sum = 0;
    for (size_t x = 0; x < first; ++x) sum += result.expert_load[x];
    const auto expected =
        static_cast<double>(batch.request.tokens.size()) * static_cast<double>(tiny.spec.layers[0].experts.per_token);
    CHECK(sum == expected, "%s: the first layer's experts got %g rows, want %g", options.name, sum, expected);
    CHECK(score(*model, with(batch.request, Readout::kRewardTokens)).expert_load == result.expert_load,
          "%s: a second pass adds to the first", options.name);
  }
}
