// The timing loop.
#include "bench/measure.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <memory>
#include <utility>
#include <vector>

namespace implex::bench {

namespace {

using Clock = std::chrono::steady_clock;

constexpr int64_t kSets = 3;

// Sets of operands for one shape.
class Contestant {
 public:
  Contestant(Device& device, const OpShape& shape, const MeasureOptions& options, WeightCache& weights)
      : device_(device) {
    sets_.push_back(make_case(device, shape, options.seed, weights));
    for (int64_t i = 1; i < kSets && sets_[0]->bytes < options.cold_bytes; ++i)
      sets_.push_back(make_case(device, shape, options.seed + 10 * static_cast<uint64_t>(i), weights));
  }

  double seconds_of(int64_t repeats) {
    const Clock::time_point start = Clock::now();
    for (int64_t i = 0; i < repeats; ++i) sets_[next_++ % sets_.size()]->run();
    device_.call(&ix_backend::synchronize);
    return std::chrono::duration<double>(Clock::now() - start).count();
  }

  // Warms up, and finds how often to run for one sample.
  void prepare(const MeasureOptions& options, const CancelFlag& cancel) {
    double warm = 0;
    double fastest = 1e30;
    int64_t calls = 1;
    do {
      cancel.check();
      const double once = seconds_of(calls) / static_cast<double>(calls);
      warm += once * static_cast<double>(calls);
      fastest = std::min(fastest, once);
      // Back to back: a single call is mostly the wait for it.
      calls = std::clamp<int64_t>(static_cast<int64_t>(options.sample_seconds / std::max(fastest, 1e-7)), 1, 1000);
    } while (warm < options.warmup_seconds);
    result.repeats =
        std::max<int64_t>(1, static_cast<int64_t>(std::ceil(options.sample_seconds / std::max(fastest, 1e-7))));
  }

  void finish() {
    Case& first = *sets_[0];
    first.reset();
    first.run();
    result.error = first.error();
    result.flops = first.flops;
    result.bytes = first.bytes;
  }

  Measurement result;

 private:
  Device& device_;
  std::vector<std::unique_ptr<Case>> sets_;
  size_t next_ = 0;
};

bool needs_training(const OpShape& shape) {
  return shape.op == Op::kLinearLogprobBackward || shape.op == Op::kLinearLogprobBoth || shape.op == Op::kHeadProducts;
}

}  // namespace

std::vector<Measurement> measure_in_turn(Device& device, const std::vector<OpShape>& shapes,
                                         const MeasureOptions& options, const CancelFlag& cancel) {
  WeightCache weights(device, std::any_of(shapes.begin(), shapes.end(), needs_training));
  std::vector<Contestant> contestants;
  contestants.reserve(shapes.size());
  for (const OpShape& shape : shapes) contestants.emplace_back(device, shape, options, weights);
  for (Contestant& contestant : contestants) contestant.prepare(options, cancel);
  for (int64_t round = 0; round < options.samples; ++round) {
    for (size_t i = 0; i < contestants.size(); ++i) {
      cancel.check();
      Contestant& next = contestants[(i + static_cast<size_t>(round)) % contestants.size()];
      next.result.seconds.push_back(next.seconds_of(next.result.repeats) / static_cast<double>(next.result.repeats));
    }
  }
  std::vector<Measurement> results;
  for (Contestant& contestant : contestants) {
    cancel.check();
    contestant.finish();
    results.push_back(std::move(contestant.result));
  }
  return results;
}

Measurement measure(Device& device, const OpShape& shape, const MeasureOptions& options, const CancelFlag& cancel) {
  return measure_in_turn(device, {shape}, options, cancel).front();
}

}  // namespace implex::bench
