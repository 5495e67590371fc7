// Generation: prompts continued token by token until a stop token or the end of the room.
#pragma once

#include <cstdint>
#include <vector>

#include "core/cancel.h"
#include "core/ragged_batch.h"
#include "generation/sampler.h"
#include "model/transformer.h"

namespace implex {

struct GenerateRequest {
  std::vector<int32_t> tokens;     // the prompts back to back
  std::vector<int32_t> lengths;    // of the prompts
  std::vector<int32_t> sequences;  // the prompt of each sequence
  std::vector<uint64_t> seeds;     // of each sequence
  int64_t max_new_tokens = 0;
  Sampling sampling;
  std::vector<int32_t> stop;  // a sequence ends with the first of these
};

struct GenerateResult {
  std::vector<int32_t> tokens;  // the sequences' new tokens back to back, a stop token included
  std::vector<int32_t> lengths;
  // ln p(token | all before it) under the model itself, whatever the temperature: the bits that scoring gives.
  std::vector<float> logprobs;
};

// A sequence ends early where the model's context does. What it gets depends on its prompt, its seed and the options
// alone. Throws Error(kBatchInvalid | kTokenRange | kTensorMissing | kOutOfMemory | kInternal | kAborted).
GenerateResult generate(Transformer& model, const GenerateRequest& request, const CancelFlag& cancel);

}  // namespace implex
