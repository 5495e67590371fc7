// Seeded near-normal numbers by index, so that a check can make any row of an operand again without keeping the
// operand.
#pragma once

#include <cstdint>
#include <vector>

#include "core/dtype.h"
#include "core/thread_pool.h"

namespace implex::bench {

class RandomValues {
 public:
  // Mean 0, standard deviation `scale`; rounded to `dtype`.
  RandomValues(uint64_t seed, double scale, DType dtype)
      : seed_(seed), scale_(static_cast<float>(scale)), dtype_(dtype) {}

  uint64_t bits(int64_t index) const {
    uint64_t z = seed_ * 0xd1342543de82ef95ULL + static_cast<uint64_t>(index + 1) * 0x9e3779b97f4a7c15ULL;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ULL;  // SplitMix64's finaliser
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebULL;
    return z ^ (z >> 31);
  }

  // The sum of four uniform numbers: near normal, and cheap enough for a vocabulary's matrix.
  float at(int64_t index) const {
    const uint64_t z = bits(index);
    const auto sum = static_cast<int64_t>((z & 0xffff) + (z >> 16 & 0xffff) + (z >> 32 & 0xffff) + (z >> 48));
    const float value = static_cast<float>(sum - 2 * 0xffff) * (1.7320508f / 65536.0f) * scale_;
    return dtype_ == DType::kBf16 ? bf16_to_f32(f32_to_bf16(value)) : value;
  }

  // Elements [first, first + count), as f32 whatever the dtype.
  void fill(int64_t first, int64_t count, float* out) const {
    constexpr int64_t kBlock = 1 << 16;
    ThreadPool::instance().parallel_for((count + kBlock - 1) / kBlock, [&](int64_t block) {
      const int64_t end = block * kBlock + kBlock < count ? block * kBlock + kBlock : count;
      for (int64_t i = block * kBlock; i < end; ++i) out[i] = at(first + i);
    });
  }

  std::vector<float> values(int64_t first, int64_t count) const {
    std::vector<float> out(static_cast<size_t>(count));
    fill(first, count, out.data());
    return out;
  }

 private:
  uint64_t seed_;
  float scale_;
  DType dtype_;
};

}  // namespace implex::bench
