// Operations timed and their results checked: made, warmed up, sampled in turn, then compared with float64 on sampled
// rows.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <tuple>
#include <vector>

#include "core/cancel.h"
#include "core/device.h"

namespace implex::bench {

enum class Op {
  kGemm,
  kLinearLogprob,
  kLinearLogprobBackward,
  kLinearLogprobBoth,  // forward and backward
  kHeadProducts,       // a head's three products alone: logits, gradients of hidden rows and of the weight
  kAttention,
  kAttentionBackward,
  kNorm,
  kNormBackward,
  kCopy,  // memory to memory, all threads of the pool
  kPeak,  // multiply-adds in registers, all threads: no product can be faster. CPU only
};

struct OpShape {
  Op op = Op::kGemm;
  DType dtype = DType::kF32;
  int64_t rows = 0;     // gemm M, heads N, norm rows; copy: floats
  int64_t columns = 0;  // gemm N, heads V, norm width
  int64_t depth = 0;    // gemm K, heads D
  bool layer_norm = false;
  // Attention: `groups` prompts of `prompt` tokens with `responses` responses of `response` tokens each.
  int64_t heads = 0, kv_heads = 0, head_dim = 0;
  int64_t groups = 0, prompt = 0, response = 0, responses = 0;
};

struct MeasureOptions {
  int64_t samples = 15;
  double warmup_seconds = 1;     // at least one call
  double sample_seconds = 0.02;  // calls are repeated until a sample takes this long
  // Operands of fewer bytes are there three times and used in turn, so that no call finds them in a cache. 0: once.
  double cold_bytes = 0;
  uint64_t seed = 1;
};

struct Measurement {
  std::vector<double> seconds;  // of one call, one per sample
  int64_t repeats = 1;          // calls per sample
  double error = 0;             // ‖result - float64‖ / ‖float64‖ over the sampled rows
  double flops = 0;             // of one call
  double bytes = 0;             // least memory traffic of one call
};

// One sample of each shape after the other, round by round, so that what changes with time meets all alike. Throws
// Error: kOutOfMemory, kAborted, kDeviceUnavailable (kPeak elsewhere than on the CPU).
std::vector<Measurement> measure_in_turn(Device& device, const std::vector<OpShape>& shapes,
                                         const MeasureOptions& options, const CancelFlag& cancel);
Measurement measure(Device& device, const OpShape& shape, const MeasureOptions& options, const CancelFlag& cancel);

// Weights by shape, dtype and seed: cases of a group share theirs.
class WeightCache {
 public:
  WeightCache(Device& device, bool trainable) : device_(device), trainable_(trainable) {}
  std::shared_ptr<DeviceWeight> get(DType dtype, int64_t rows, int64_t cols, uint64_t seed);

 private:
  Device& device_;
  bool trainable_;
  std::map<std::tuple<DType, int64_t, int64_t, uint64_t>, std::weak_ptr<DeviceWeight>> weights_;
};

// An operation with its operands on the device. One class per operation in cases.cc.
class Case {
 public:
  virtual ~Case() = default;
  virtual void run() = 0;
  // Makes what run() adds to zero.
  virtual void reset() {}
  // Relative error of sampled rows of what one run() left after reset().
  virtual double error() = 0;
  double flops = 0;
  double bytes = 0;
};
std::unique_ptr<Case> make_case(Device& device, const OpShape& shape, uint64_t seed, WeightCache& weights);

}  // namespace implex::bench
