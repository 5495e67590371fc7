// Softmax with temperature, top-k, top-p, and the draw: always in this order.
#include "generation/sampler.h"

#include <algorithm>
#include <cmath>
#include <numeric>

namespace implex {

double uniform(uint64_t seed, uint64_t index) {
  uint64_t z = seed + (index + 1) * 0x9e3779b97f4a7c15ULL;
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ULL;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebULL;
  return static_cast<double>((z ^ (z >> 31)) >> 11) * 0x1p-53;
}

int32_t Sampler::draw(const float* logits, int64_t vocabulary, double u) {
  int64_t best = 0;
  for (int64_t i = 0; i < vocabulary; ++i) {
    if (std::isnan(logits[i])) return -1;
    if (logits[i] > logits[best]) best = i;
  }
  if (!std::isfinite(logits[best])) return -1;
  if (options_.temperature == 0) return static_cast<int32_t>(best);

  weights_.resize(static_cast<size_t>(vocabulary));
  const auto largest = static_cast<double>(logits[best]);
  for (int64_t i = 0; i < vocabulary; ++i)
    weights_[static_cast<size_t>(i)] = std::exp((static_cast<double>(logits[i]) - largest) / options_.temperature);
  kept_.resize(static_cast<size_t>(vocabulary));
  std::iota(kept_.begin(), kept_.end(), 0);
  const auto weight = [&](int32_t id) { return weights_[static_cast<size_t>(id)]; };
  const auto before = [&](int32_t a, int32_t b) { return weight(a) != weight(b) ? weight(a) > weight(b) : a < b; };
  if (options_.top_k > 0 && options_.top_k < vocabulary) {
    std::nth_element(kept_.begin(), kept_.begin() + options_.top_k, kept_.end(), before);
    kept_.resize(static_cast<size_t>(options_.top_k));
    std::sort(kept_.begin(), kept_.end());
  }
  double sum = 0;
  for (const int32_t id : kept_) sum += weight(id);
  if (options_.top_p < 1) {
    std::sort(kept_.begin(), kept_.end(), before);
    const double target = options_.top_p * sum;
    size_t count = 0;
    double reached = 0;
    while (count < kept_.size() && (count == 0 || reached < target)) reached += weight(kept_[count++]);
    kept_.resize(count);
    sum = reached;
  }
  const double target = u * sum;
  double reached = 0;
  int32_t last = static_cast<int32_t>(best);  // where rounding leaves the sum short of the target
  for (const int32_t id : kept_) {
    if (weight(id) == 0) continue;
    reached += weight(id);
    last = id;
    if (target < reached) break;
  }
  return last;
}

}  // namespace implex
