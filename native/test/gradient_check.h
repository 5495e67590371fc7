// Checks of gradients: an analytic one against central differences of the value it belongs to, and an operation's
// result against an analytic one in double.
#pragma once

#include "reference.h"

namespace implex::test {

// `gradient` must be that of value(x): compared along a few random directions d with (value(x + h d) - value(x - h d))
// / 2h. For values of order 1 and smooth over h, the third derivative leaves about h² = 1e-10, and cancellation 1e-16 /
// h.
template <typename F>
void check_differences(const char* what, const F& value, const std::vector<double>& x,
                       const std::vector<double>& gradient, uint64_t seed) {
  constexpr double kStep = 1e-5;
  CHECK(x.size() == gradient.size(), "%s: %zu values but %zu gradients", what, x.size(), gradient.size());
  Random random(seed);
  for (int round = 0; round < 3; ++round) {
    std::vector<double> up = x, down = x;
    double slope = 0, magnitude = 0;
    for (size_t i = 0; i < x.size(); ++i) {
      const double d = random.uniform(-1, 1);
      up[i] += kStep * d;
      down[i] -= kStep * d;
      slope += gradient[i] * d;
      magnitude += std::fabs(gradient[i] * d);
    }
    const double difference = (value(up) - value(down)) / (2 * kStep);
    CHECK(std::fabs(slope - difference) <= 1e-7 * magnitude + 1e-9, "%s: slope %.12g, differences give %.12g", what,
          slope, difference);
  }
}

// A result with, for each element, what it may be off by.
struct Bounded {
  explicit Bounded(size_t size) : value(size), bound(size) {}
  std::vector<double> value, bound;
};

inline void check_within(const char* what, const Matrix& got, const Bounded& want) {
  CHECK(got.intact(), "%s: something wrote between the rows", what);
  for (int64_t r = 0; r < got.rows(); ++r) {
    for (int64_t c = 0; c < got.cols(); ++c) {
      const auto at = static_cast<size_t>(r * got.cols() + c);
      const double bound = 1.01 * want.bound[at] + output_bound(got.dtype(), want.value[at]) + 1e-37;
      CHECK(std::fabs(got(r, c) - want.value[at]) <= bound, "%s at (%d, %d): %.9g, want %.9g, allowed %.3g", what,
            int(r), int(c), got(r, c), want.value[at], bound);
    }
  }
}

inline void check_within(const char* what, const std::vector<float>& got, const Bounded& want) {
  for (size_t i = 0; i < got.size(); ++i) {
    const double x = static_cast<double>(got[i]), bound = 1.01 * want.bound[i] + 1e-37;
    CHECK(std::fabs(x - want.value[i]) <= bound, "%s at %zu: %.9g, want %.9g, allowed %.3g", what, i, x, want.value[i],
          bound);
  }
}

inline std::vector<double> all_values(const Matrix& m) {
  std::vector<double> values;
  for (int64_t r = 0; r < m.rows(); ++r)
    for (int64_t c = 0; c < m.cols(); ++c) values.push_back(m(r, c));
  return values;
}
inline std::vector<double> widened(const std::vector<float>& values) { return {values.begin(), values.end()}; }

}  // namespace implex::test
