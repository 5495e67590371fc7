// The loop over steps: logits, draws, log-probs, and who goes on.
#include "generation/generate.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <string>

#include "generation/decoder.h"

namespace implex {

namespace {

// Rows whose logits are on the host at once.
constexpr int64_t kLogitRows = 32;

std::vector<Segment> segments_of(const std::vector<int32_t>& lengths) {
  std::vector<Segment> segments;
  int64_t start = 0;  // lengths are checked only where they meet the tokens
  for (const int32_t length : lengths) {
    segments.push_back(
        {static_cast<int32_t>(std::min<int64_t>(start, std::numeric_limits<int32_t>::max())), length, -1});
    start += length;
  }
  return segments;
}

void check_sequences(const GenerateRequest& request, const RaggedBatch& prompts, int64_t max_positions) {
  if (request.seeds.size() != request.sequences.size())
    throw Error(ErrorCode::kBatchInvalid, "there are " + std::to_string(request.seeds.size()) + " seeds for " +
                                              std::to_string(request.sequences.size()) + " sequences");
  for (const int32_t prompt : request.sequences) {
    if (prompt < 0 || static_cast<size_t>(prompt) >= prompts.segments().size())
      throw Error(ErrorCode::kBatchInvalid, "prompt " + std::to_string(prompt) + " of a sequence does not exist");
    if (prompts.segments()[static_cast<size_t>(prompt)].length >= max_positions)
      throw Error(ErrorCode::kBatchInvalid, "prompt " + std::to_string(prompt) + " fills the model's context of " +
                                                std::to_string(max_positions) + " tokens: there is no room to go on");
  }
}

// Draws a token for each row of hidden states, and its log-prob.
class Head {
 public:
  Head(Transformer& model, const Sampling& sampling, int64_t rows)
      : model_(model),
        sampler_(sampling),
        device_logits_(model.device(),
                       static_cast<size_t>(std::min(rows, kLogitRows) * model.spec().vocabulary()) * sizeof(float)),
        targets_(model.device(), static_cast<size_t>(rows) * sizeof(int32_t)),
        logp_(model.device(), static_cast<size_t>(rows) * sizeof(float)),
        hidden_(model.device(), static_cast<size_t>(rows * model.spec().hidden_size) * dtype_size(model.dtype())),
        logits_(static_cast<size_t>(std::min(rows, kLogitRows) * model.spec().vocabulary())) {}

  // sources: the row of each sequence; u: its random number.
  void draw(const ix_mat& rows, const std::vector<int32_t>& sources, const std::vector<double>& u,
            std::vector<int32_t>& tokens, std::vector<float>& logprobs) {
    Device& d = model_.device();
    const ix_weight* weight = model_.weights().logits_weight(model_.spec());
    const int64_t vocabulary = model_.spec().vocabulary();
    const auto count = static_cast<int64_t>(sources.size());
    const int64_t width = model_.spec().hidden_size;
    const ix_mat hidden = {hidden_.data(), static_cast<int32_t>(model_.dtype()), count, width, width};
    upload(sources);
    d.call(&ix_backend::gather_rows, &rows, targets_.as<int32_t>(), &hidden);
    tokens.resize(sources.size());
    logprobs.resize(sources.size());
    for (int64_t row = 0; row < count; row += kLogitRows) {
      const int64_t n = std::min(kLogitRows, count - row);
      const ix_mat in = rows_of(hidden, row, n);
      const ix_mat out = {device_logits_.data(), IX_F32, n, vocabulary, vocabulary};
      const ix_epilogue none = {nullptr, nullptr};
      d.call(&ix_backend::gemm, &in, weight, &none, &out);
      d.call(&ix_backend::download, logits_.data(), out.data, static_cast<size_t>(n * vocabulary) * sizeof(float));
      if (model_.logit_soft_cap() > 0) cap(n * vocabulary);
      for (int64_t i = 0; i < n; ++i) {
        const auto at = static_cast<size_t>(row + i);
        tokens[at] = sampler_.draw(&logits_[static_cast<size_t>(i * vocabulary)], vocabulary, u[at]);
        if (tokens[at] < 0)
          throw Error(ErrorCode::kInternal, "the model gives logits that are no numbers; with dtype bf16, try f32");
      }
    }
    // The read-out of scoring, for its bits.
    upload(tokens);
    d.call(&ix_backend::linear_logprob, &hidden, weight, targets_.as<int32_t>(), model_.logit_soft_cap(),
           logp_.as<float>(), nullptr);
    d.call(&ix_backend::download, logprobs.data(), logp_.data(), logprobs.size() * sizeof(float));
  }

 private:
  void cap(int64_t count) {
    const float most = model_.logit_soft_cap();
    for (int64_t i = 0; i < count; ++i) {
      float& logit = logits_[static_cast<size_t>(i)];
      logit = most * std::tanh(logit / most);
    }
  }

  void upload(const std::vector<int32_t>& values) {
    model_.device().call(&ix_backend::upload, targets_.data(), values.data(), values.size() * sizeof(int32_t));
  }

  Transformer& model_;
  Sampler sampler_;
  DeviceBuffer device_logits_;
  DeviceBuffer targets_;  // also the rows to gather
  DeviceBuffer logp_;
  DeviceBuffer hidden_;
  std::vector<float> logits_;
};

}  // namespace

GenerateResult generate(Transformer& model, const GenerateRequest& request, const CancelFlag& cancel) {
  cancel.check();
  const ModelSpec& spec = model.spec();
  if (model.weights().logits_weight(spec) == nullptr)
    throw Error(ErrorCode::kTensorMissing,
                "the checkpoint has no unembedding (lm_head): it is no language model, so it cannot generate");
  if (request.max_new_tokens < 1) throw Error(ErrorCode::kBatchInvalid, "at least one new token must be asked for");
  if (request.sequences.empty()) return {};
  const RaggedBatch prompts(request.tokens, segments_of(request.lengths), spec.vocabulary(), spec.max_positions);
  check_sequences(request, prompts, spec.max_positions);

  const auto count = request.sequences.size();
  std::vector<int64_t> room;  // of each sequence
  for (const int32_t prompt : request.sequences)
    room.push_back(
        std::min(request.max_new_tokens, spec.max_positions - prompts.segments()[static_cast<size_t>(prompt)].length));
  const int64_t longest = *std::max_element(room.begin(), room.end());
  Decoder decoder(model, prompts, request.sequences, longest, cancel);
  Head head(model, request.sampling, static_cast<int64_t>(count));

  std::vector<std::vector<int32_t>> tokens(count);
  std::vector<std::vector<float>> logprobs(count);
  std::vector<int32_t> live(count), drawn;
  std::vector<float> logp;
  for (size_t i = 0; i < count; ++i) live[i] = static_cast<int32_t>(i);
  ix_mat hidden = decoder.prefill(cancel);
  for (int64_t step = 0; !live.empty(); ++step) {
    std::vector<int32_t> sources;
    std::vector<double> u;
    for (size_t i = 0; i < live.size(); ++i) {
      const auto sequence = static_cast<size_t>(live[i]);
      sources.push_back(step == 0 ? request.sequences[sequence] : static_cast<int32_t>(i));
      u.push_back(uniform(request.seeds[sequence], static_cast<uint64_t>(step)));
    }
    head.draw(hidden, sources, u, drawn, logp);
    std::vector<int32_t> going, next;
    for (size_t i = 0; i < live.size(); ++i) {
      const auto sequence = static_cast<size_t>(live[i]);
      tokens[sequence].push_back(drawn[i]);
      logprobs[sequence].push_back(logp[i]);
      const bool stopped = std::find(request.stop.begin(), request.stop.end(), drawn[i]) != request.stop.end();
      if (stopped || step + 1 >= room[sequence]) continue;
      going.push_back(live[i]);
      next.push_back(drawn[i]);
    }
    live = std::move(going);
    if (!live.empty()) hidden = decoder.step(step, live, next, cancel);
  }

  GenerateResult result;
  for (size_t i = 0; i < count; ++i) {
    result.lengths.push_back(static_cast<int32_t>(tokens[i].size()));
    result.tokens.insert(result.tokens.end(), tokens[i].begin(), tokens[i].end());
    result.logprobs.insert(result.logprobs.end(), logprobs[i].begin(), logprobs[i].end());
  }
  return result;
}

}  // namespace implex
