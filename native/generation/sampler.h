// The draw of a token from one row of logits, on the host in double precision.
#pragma once

#include <cstdint>
#include <vector>

namespace implex {

struct Sampling {
  double temperature = 1;  // 0: the most probable token
  double top_p = 1;        // the fewest most probable tokens whose probability reaches it; 1: all
  int64_t top_k = 0;       // the k most probable tokens, before top_p; 0: all
};

// A number in [0, 1), 53 bits: the `index`-th of the stream of `seed` (SplitMix64, Steele, Lea, Flood 2014).
double uniform(uint64_t seed, uint64_t index);

class Sampler {
 public:
  explicit Sampler(const Sampling& options) : options_(options) {}

  // u in [0, 1) decides. Of equally probable tokens the lower id comes first. Returns -1 when a logit is not a number
  // or none is finite.
  int32_t draw(const float* logits, int64_t vocabulary, double u);

 private:
  Sampling options_;
  std::vector<double> weights_;  // exp(logit - largest), by id
  std::vector<int32_t> kept_;
};

}  // namespace implex
