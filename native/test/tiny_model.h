// Small random checkpoints of every shape that the engine knows, and a plain double-precision transformer to compare it
// with.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "reward/reward_model.h"
#include "support.h"

namespace implex::test {

struct TinyOptions {
  const char* name = "llama";
  ModelSpec spec;               // numbers and switches; weights and frequencies are filled in
  bool attention_bias = false;  // q, k, v
  bool all_biases = false;      // those, o, both MLP projections and the norms
  bool fused_qkv = false;       // one head-interleaved tensor, read through row selections
  bool unembedding = true;
  bool head = true;
  DType file_dtype = DType::kF32;
};

// Frequencies theta^(-2i / rotary_dim).
RopeSpec rope_of(int64_t rotary_dim, double theta = 10000, double scale = 1);

// One of each: llama-like grouped queries, qwen2-like biases, qwen3-like head norms, gpt_neox-like parallel and serial;
// windows, caps, scales, norms after and mixtures of experts as other families combine them.
std::vector<TinyOptions> tiny_shapes();

struct TinyModel {
  TinyOptions options;
  ModelSpec spec;
  // By role, as the file holds them, widened; fused tensors cut apart, added rows appended.
  std::map<std::string, std::vector<double>> weights;
};

// Writes one weight file into `folder`.
TinyModel make_tiny_model(const TinyOptions& options, uint64_t seed, const TemporaryFolder& folder);

// Opens the device and loads the model, as the addon does.
std::unique_ptr<RewardModel> load_model(const ModelSpec& spec, const LoadOptions& options, const CancelFlag& cancel);

// The reference: one sequence at a time, every operation in double. With kBf16, weights and the activations that the
// engine stores as bf16 are rounded to it at the same places, so that only the order of summation is left to differ.
class Reference {
 public:
  Reference(const TinyModel& model, DType dtype);

  // ln p(token t | tokens before t); 0 for the first.
  std::vector<double> logprobs(const std::vector<int32_t>& tokens) const;
  // ln p(target | all tokens).
  double next_logprob(const std::vector<int32_t>& tokens, int32_t target) const;
  // The experts that each token chooses in each layer that has some.
  std::vector<size_t> choices(const std::vector<int32_t>& tokens) const;
  // head · final norm, for every token.
  std::vector<double> rewards(const std::vector<int32_t>& tokens) const;

 private:
  using Rows = std::vector<std::vector<double>>;
  Rows forward(const std::vector<int32_t>& tokens) const;  // the stream before the final norm
  std::vector<double> norm(const std::vector<double>& x, const std::string& role) const;
  std::vector<double> linear(const std::vector<double>& x, const std::string& role) const;
  std::vector<double> logits(const std::vector<double>& stream) const;
  double round(double value) const { return rounded_ ? static_cast<double>(rounded(value, IX_BF16)) : value; }
  std::vector<double> round(std::vector<double> values) const {
    for (double& value : values) value = round(value);
    return values;
  }

  const ModelSpec& spec_;
  bool rounded_;
  std::map<std::string, std::vector<double>> weights_;
  mutable std::vector<size_t> choices_;  // of the forward passes since choices() cleared it
};

// Whether rounding to bf16 leaves every token its experts. Where a token is close to a tie it does not, and what
// follows is another computation, which no bound on rounding covers.
bool same_experts_in_bf16(const TinyModel& model, const std::vector<std::vector<int32_t>>& sequences);

// A batch of shared prompts and lone sequences: what to ask the engine, and each scored segment's whole sequence.
struct TinyBatch {
  ScoreRequest request;
  std::vector<std::vector<int32_t>> sequences;  // of each scored segment, prompt included
  std::vector<int32_t> prompt_lengths;          // 0 for a parentless segment
};
TinyBatch random_batch(Random& random, const ModelSpec& spec);

}  // namespace implex::test
