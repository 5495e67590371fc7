// The timing loop.
#include "bench/measure.h"

#include <algorithm>
#include <chrono>
#include <cmath>

namespace implex::bench {

namespace {

using Clock = std::chrono::steady_clock;

double seconds_of(Device& device, Case& item, int64_t repeats) {
  const Clock::time_point start = Clock::now();
  for (int64_t i = 0; i < repeats; ++i) item.run();
  device.call(&ix_backend::synchronize);
  return std::chrono::duration<double>(Clock::now() - start).count();
}

}  // namespace

Measurement measure(Device& device, const OpShape& shape, const MeasureOptions& options, const CancelFlag& cancel) {
  const std::unique_ptr<Case> item = make_case(device, shape, options.seed);
  Measurement result;
  double warm = 0;
  double fastest = 1e30;
  do {
    cancel.check();
    const double once = seconds_of(device, *item, 1);
    warm += once;
    fastest = std::min(fastest, once);
  } while (warm < options.warmup_seconds);
  result.repeats =
      std::max<int64_t>(1, static_cast<int64_t>(std::ceil(options.sample_seconds / std::max(fastest, 1e-7))));
  for (int64_t i = 0; i < options.samples; ++i) {
    cancel.check();
    result.seconds.push_back(seconds_of(device, *item, result.repeats) / static_cast<double>(result.repeats));
  }
  cancel.check();
  result.error = item->error();
  result.flops = item->flops;
  result.bytes = item->bytes;
  return result;
}

}  // namespace implex::bench
