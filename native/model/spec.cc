// Validation of a ModelSpec: nothing after this divides by zero, overflows or allocates without bound because of a
// number in a config.
#include "model/spec.h"

#include <cmath>

#include "core/error.h"

namespace implex {

namespace {

void require(bool holds, const std::string& message) {
  if (!holds) throw Error(ErrorCode::kConfigInvalid, message);
}

void in_range(const char* name, int64_t value, int64_t low, int64_t high) {
  require(value >= low && value <= high, std::string(name) + " is " + std::to_string(value) + ", outside " +
                                             std::to_string(low) + " to " + std::to_string(high));
}

}  // namespace

void validate(const ModelSpec& s) {
  in_range("vocabSize", s.vocab_size, 1, int64_t{1} << 24);
  in_range("addedTokens", s.added_tokens, 0, 1 << 16);
  in_range("hiddenSize", s.hidden_size, 1, 1 << 20);
  in_range("layers", s.layers, 1, 4096);
  in_range("heads", s.heads, 1, 4096);
  in_range("kvHeads", s.kv_heads, 1, 4096);
  in_range("headDim", s.head_dim, 1, 4096);
  in_range("intermediateSize", s.intermediate_size, 1, 1 << 22);
  in_range("maxPositions", s.max_positions, 1, 1 << 26);
  require(s.heads % s.kv_heads == 0,
          "kvHeads (" + std::to_string(s.kv_heads) + ") does not divide heads (" + std::to_string(s.heads) + ")");
  require(std::isfinite(s.norm_eps) && s.norm_eps >= 0 && s.norm_eps < 1, "normEps is not a number from 0 to 1");
  in_range("rotaryDim", s.rotary_dim, 0, s.head_dim);
  require(s.rotary_dim % 2 == 0, "rotaryDim (" + std::to_string(s.rotary_dim) + ") is odd");
  require(static_cast<int64_t>(s.inverse_frequencies.size()) == s.rotary_dim / 2,
          "inverseFrequencies has " + std::to_string(s.inverse_frequencies.size()) + " values, rotaryDim asks for " +
              std::to_string(s.rotary_dim / 2));
  for (const double f : s.inverse_frequencies)
    require(std::isfinite(f), "inverseFrequencies holds a value that is not finite");
}

}  // namespace implex
