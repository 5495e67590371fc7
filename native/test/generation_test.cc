// Generation with cached keys and values: the bits of a whole forward pass, whatever runs beside a sequence; the
// sampler against its definition.
#include <algorithm>
#include <cmath>
#include <limits>

#include "core/error.h"
#include "generation/generate.h"
#include "tiny_model.h"

using namespace implex;
using namespace implex::test;

namespace {

struct Sequence {
  std::vector<int32_t> tokens;
  std::vector<float> logprobs;
  bool operator==(const Sequence&) const = default;
};

std::vector<Sequence> run(RewardModel& model, const GenerateRequest& request) {
  CancelFlag cancel;
  const GenerateResult result = generate(model.transformer(), request, cancel);
  std::vector<Sequence> sequences;
  int64_t at = 0;
  for (const int32_t length : result.lengths) {
    sequences.push_back({{result.tokens.begin() + at, result.tokens.begin() + at + length},
                         {result.logprobs.begin() + at, result.logprobs.begin() + at + length}});
    at += length;
  }
  CHECK(at == static_cast<int64_t>(result.tokens.size()), "lengths do not add up to the tokens");
  return sequences;
}

std::vector<std::vector<int32_t>> random_prompts(Random& random, const ModelSpec& spec,
                                                 const std::vector<int32_t>& lengths) {
  std::vector<std::vector<int32_t>> prompts;
  for (const int32_t length : lengths) {
    prompts.emplace_back();
    for (int32_t i = 0; i < length; ++i)
      prompts.back().push_back(static_cast<int32_t>(random.below(spec.vocabulary())));
  }
  return prompts;
}

GenerateRequest request_of(const std::vector<std::vector<int32_t>>& prompts, const std::vector<int32_t>& sequences,
                           int64_t room) {
  GenerateRequest request;
  for (const std::vector<int32_t>& prompt : prompts) {
    request.tokens.insert(request.tokens.end(), prompt.begin(), prompt.end());
    request.lengths.push_back(static_cast<int32_t>(prompt.size()));
  }
  request.sequences = sequences;
  for (size_t i = 0; i < sequences.size(); ++i) request.seeds.push_back(1000 + i);
  request.max_new_tokens = room;
  return request;
}

// The log-probs that scoring gives a sequence after its prompt.
std::vector<float> scored(RewardModel& model, const std::vector<int32_t>& prompt, const std::vector<int32_t>& tokens) {
  ScoreRequest request;
  request.tokens = prompt;
  request.tokens.insert(request.tokens.end(), tokens.begin(), tokens.end());
  const auto length = static_cast<int32_t>(prompt.size());
  request.segments = {{0, length, -1}, {length, static_cast<int32_t>(tokens.size()), 0}};
  request.scored = {1};
  request.token_logprobs = true;
  CancelFlag cancel;
  return model.score(request, cancel).token_logprobs;
}

ErrorCode failure_of(RewardModel& model, const GenerateRequest& request) {
  try {
    run(model, request);
  } catch (const Error& error) {
    return error.code();
  }
  CHECK(false, "no error");
  return ErrorCode::kInternal;
}

std::unique_ptr<RewardModel> load(const ModelSpec& spec, DType dtype) {
  CancelFlag cancel;
  LoadOptions options;
  options.dtype = dtype;
  return load_model(spec, options, cancel);
}

}  // namespace

// Every family, both dtypes: three prompts, one of them with two sequences, that end at different times.
TEST(generation_same_bits_as_scoring) {
  size_t early = 0;
  for (const TinyOptions& options : tiny_shapes()) {
    for (const DType dtype : {DType::kF32, DType::kBf16}) {
      const TemporaryFolder folder;
      const TinyModel tiny = make_tiny_model(options, 41, folder);
      const std::unique_ptr<RewardModel> model = load(tiny.spec, dtype);
      if (!model->has_unembedding()) continue;
      Random random(42);
      const auto prompts = random_prompts(random, tiny.spec, {1, 17, 5});
      GenerateRequest request = request_of(prompts, {1, 0, 1, 2}, 24);
      for (int32_t id = 0; id < tiny.spec.vocabulary(); id += 16) request.stop.push_back(id);
      const std::vector<Sequence> all = run(*model, request);
      CHECK(all.size() == 4 && all[0].tokens != all[2].tokens, "%s: two seeds, one sequence", options.name);
      for (size_t i = 0; i < all.size(); ++i) {
        const std::vector<int32_t>& prompt = prompts[static_cast<size_t>(request.sequences[i])];
        const bool stopped = all[i].tokens.back() % 16 == 0;
        CHECK(stopped || all[i].tokens.size() == 24, "%s: sequence %zu ends after %zu", options.name, i,
              all[i].tokens.size());
        for (size_t t = 0; t + 1 < all[i].tokens.size(); ++t)
          CHECK(all[i].tokens[t] % 16 != 0, "%s: sequence %zu goes on after a stop token", options.name, i);
        early += all[i].tokens.size() < 24 ? 1 : 0;
        const std::vector<float> want = scored(*model, prompt, all[i].tokens);
        CHECK(want == all[i].logprobs, "%s %s: sequence %zu has other log-probs than scoring gives", options.name,
              dtype_name(dtype), i);
        GenerateRequest alone = request_of({prompt}, {0}, 24);
        alone.stop = request.stop;
        alone.seeds = {request.seeds[i]};
        CHECK(run(*model, alone)[0] == all[i], "%s: sequence %zu alone differs", options.name, i);
      }
    }
  }
  CHECK(early > 4, "only %zu sequences ended early: the test says little", early);
}

// Greedy tokens are those that the log-probs of a whole forward pass are largest for.
TEST(generation_greedy) {
  const TemporaryFolder folder;
  const TinyModel tiny = make_tiny_model(tiny_shapes()[0], 43, folder);
  const std::unique_ptr<RewardModel> model = load(tiny.spec, DType::kF32);
  Random random(44);
  const auto prompts = random_prompts(random, tiny.spec, {6});
  GenerateRequest request = request_of(prompts, {0}, 8);
  request.sampling.temperature = 0;
  const Sequence got = run(*model, request)[0];
  std::vector<int32_t> context = prompts[0];
  for (const int32_t token : got.tokens) {
    int32_t best = -1;
    float most = -std::numeric_limits<float>::infinity();
    for (int32_t id = 0; id < tiny.spec.vocabulary(); ++id) {
      const float logp = scored(*model, context, {id})[0];
      if (logp > most) best = id;
      most = std::max(most, logp);
    }
    CHECK(token == best, "greedy took %d, the most probable is %d", token, best);
    context.push_back(token);
  }
}

// Prompts of more tokens than one block of the prefill, a border inside one of them.
TEST(generation_long_prompts) {
  const TemporaryFolder folder;
  TinyOptions options = tiny_shapes()[0];
  options.spec.max_positions = 3000;
  const TinyModel tiny = make_tiny_model(options, 45, folder);
  const std::unique_ptr<RewardModel> model = load(tiny.spec, DType::kF32);
  Random random(46);
  const auto prompts = random_prompts(random, tiny.spec, {1500, 1200, 3});
  const std::vector<Sequence> all = run(*model, request_of(prompts, {0, 1, 2}, 5));
  for (size_t i = 0; i < all.size(); ++i)
    CHECK(scored(*model, prompts[i], all[i].tokens) == all[i].logprobs, "long prompt %zu", i);
}

TEST(generation_errors_and_the_end_of_the_context) {
  const TemporaryFolder folder;
  const TinyModel tiny = make_tiny_model(tiny_shapes()[0], 47, folder);
  const std::unique_ptr<RewardModel> model = load(tiny.spec, DType::kF32);
  Random random(48);
  const auto most = static_cast<int32_t>(tiny.spec.max_positions);
  const auto prompts = random_prompts(random, tiny.spec, {most - 3, 2, most});
  const std::vector<Sequence> all = run(*model, request_of({prompts[0], prompts[1]}, {0, 1}, 10));
  CHECK(all[0].tokens.size() == 3 && all[1].tokens.size() == 10, "the context is full");
  CHECK(scored(*model, prompts[0], all[0].tokens) == all[0].logprobs, "log-probs at the end of the context");
  CHECK(run(*model, request_of(prompts, {}, 10)).empty(), "no sequences");

  CHECK(failure_of(*model, request_of(prompts, {2}, 10)) == ErrorCode::kBatchInvalid, "no room");
  CHECK(failure_of(*model, request_of(prompts, {3}, 10)) == ErrorCode::kBatchInvalid, "no such prompt");
  CHECK(failure_of(*model, request_of(prompts, {0}, 0)) == ErrorCode::kBatchInvalid, "no tokens");
  CHECK(failure_of(*model, request_of({{}}, {0}, 1)) == ErrorCode::kBatchInvalid, "an empty prompt");
  CHECK(failure_of(*model, request_of({{-1}}, {0}, 1)) == ErrorCode::kTokenRange, "a token that is none");
  GenerateRequest lengths = request_of({prompts[1]}, {0}, 1);
  for (const std::vector<int32_t>& wrong : std::vector<std::vector<int32_t>>{
           {1}, {3}, {-1, 3}, {std::numeric_limits<int32_t>::max(), std::numeric_limits<int32_t>::max(), 1}}) {
    lengths.lengths = wrong;
    CHECK(failure_of(*model, lengths) == ErrorCode::kBatchInvalid, "lengths that are not those of the tokens");
  }
  std::vector<int32_t> many(3'000'000, 0);
  CHECK(failure_of(*model, request_of({{1}}, many, tiny.spec.max_positions - 1)) == ErrorCode::kOutOfMemory, "memory");
  CHECK(run(*model, request_of({prompts[1]}, {0}, 10))[0].tokens.size() == 10, "usable after errors");
  CancelFlag cancelled;
  cancelled.cancel();
  try {
    generate(model->transformer(), request_of({prompts[1]}, {0}, 10), cancelled);
    CHECK(false, "not aborted");
  } catch (const Error& error) {
    CHECK(error.code() == ErrorCode::kAborted, "%s", error.what());
  }
}

TEST(generation_sampler) {
  const std::vector<float> logits = {0.0f, 2.0f, 1.0f, 2.0f, -1.0f, -std::numeric_limits<float>::infinity()};
  const auto draw = [&](Sampling s, double u) { return Sampler(s).draw(logits.data(), 6, u); };
  // Shares of many evenly spaced u are the probabilities.
  const auto check_shares = [&](Sampling s, std::vector<double> weights) {
    double sum = 0;
    for (const double w : weights) sum += w;
    std::vector<int> count(6, 0);
    Sampler sampler(s);
    for (int i = 0; i < 100000; ++i) ++count[static_cast<size_t>(sampler.draw(logits.data(), 6, (i + 0.5) / 100000))];
    for (size_t i = 0; i < 6; ++i)
      CHECK(std::fabs(count[i] / 1e5 - weights[i] / sum) < 2e-5, "token %zu: %g, want %g", i, count[i] / 1e5,
            weights[i] / sum);
  };
  const double e = std::exp(1.0);
  check_shares({}, {1, e * e, e, e * e, 1 / e, 0});
  check_shares({2, 1, 0}, {1, e, std::sqrt(e), e, 1 / std::sqrt(e), 0});
  check_shares({1, 1, 3}, {0, 1, 1 / e, 1, 0, 0});
  check_shares({1, 1, 1}, {0, 1, 0, 0, 0, 0});     // equal logits: the lower id
  check_shares({1, 0.5, 0}, {0, 1, 0, 1, 0, 0});   // one of the two has less than half of all
  check_shares({1, 0.5, 2}, {0, 1, 0, 0, 0, 0});   // of two that is half: top-k comes first
  check_shares({1, 1e-9, 0}, {0, 1, 0, 0, 0, 0});  // at least one
  CHECK(draw({0, 1, 0}, 0.99) == 1, "greedy");
  CHECK(draw({1e-3, 1, 0}, 0.999) == 3, "a small temperature leaves the most probable");
  const float bad[] = {0.0f, std::nanf(""), 1.0f};
  CHECK(Sampler({}).draw(bad, 3, 0.5) == -1, "not a number");
  const float infinite[] = {0.0f, std::numeric_limits<float>::infinity()};
  CHECK(Sampler({}).draw(infinite, 2, 0.5) == -1, "infinite");

  double sum = 0;
  for (uint64_t i = 0; i < 10000; ++i) {
    const double u = uniform(7, i);
    CHECK(u >= 0 && u < 1, "%g", u);
    CHECK(u != uniform(8, i), "seeds");
    sum += u;
  }
  CHECK(std::fabs(sum / 10000 - 0.5) < 0.02, "mean %g", sum / 10000);
}
