// Optimiser steps and the norm of gradients.
#include <limits>

#include "parity/placed.h"

using namespace implex;
using namespace implex::test;

namespace {

ix_optimizer rule(int32_t kind, float momentum, int64_t step) {
  return {kind, 1e-2f, 0.05f, 1e-8f, 0.9f, kind == IX_RMSPROP ? 0.99f : 0.999f, momentum, 0.7f, step};
}

}  // namespace

PARITY(optimizer_step, values) {
  Random random(601);
  for (const int32_t kind : {IX_ADAMW, IX_RMSPROP, IX_SGD}) {
    for (const float momentum : {0.0f, 0.9f}) {
      if (kind == IX_ADAMW && momentum != 0) continue;
      for (const int64_t step : {1, 2, 1000}) {
        for (const int64_t count : {1, 127, 20000}) {
          const Matrix parameters = column(random, count), gradients = column(random, count);
          // Second moments, and RMSprop's first, are sums of squares.
          const bool squares_first = kind == IX_RMSPROP;
          const Matrix first = column(random, count, 0.5, squares_first ? 0.6 : 0),
                       second = column(random, count, kind == IX_ADAMW ? 0.5 : 1, kind == IX_ADAMW ? 0.6 : 0);
          const ix_optimizer o = rule(kind, momentum, step);
          lab.check(
              text("kind %d, momentum %g, step %lld, %lld", kind, static_cast<double>(momentum), (long long)step,
                   (long long)count),
              kF32, [&](Device& d) -> Outputs {
                const Placed p(d, parameters), g(d, gradients), m(d, first), v(d, second);
                const bool has_first = kind != IX_SGD || momentum != 0,
                           has_second = kind == IX_ADAMW || (kind == IX_RMSPROP && momentum != 0);
                d.call(&ix_backend::optimizer_step, &o, count, p.floats(), g.const_floats(),
                       has_first ? m.floats() : nullptr, has_second ? v.floats() : nullptr);
                return {{"parameters", p.read()}, {"first", m.read()}, {"second", v.read()}, {"gradients", g.read()}};
              });
        }
      }
    }
  }
}

// Elements do not depend on how many there are.
PARITY(optimizer_step, rows) {
  Random random(602);
  const Matrix parameters = column(random, 5000), gradients = column(random, 5000), first = column(random, 5000),
               second = column(random, 5000, 0.5, 0.6);
  const ix_optimizer o = rule(IX_ADAMW, 0, 3);
  lab.check_rows("adamw", 5000, [&](Device& d, const std::vector<int32_t>& rows) -> Outputs {
    const Matrix a = pick(parameters, rows), b = pick(gradients, rows), c = pick(first, rows), e = pick(second, rows);
    const Placed p(d, a), g(d, b), m(d, c), v(d, e);
    d.call(&ix_backend::optimizer_step, &o, a.rows(), p.floats(), g.const_floats(), m.floats(), v.floats());
    return {{"parameters", p.read()}, {"first", m.read()}, {"second", v.read()}};
  });
}

PARITY(sum_of_squares, values) {
  Random random(603);
  for (const int64_t count : {1, 127, 16385, 200000}) {
    const Matrix values = column(random, count, 3);
    const auto sum_on = [&](Device& d) {
      const Placed v(d, values);
      double sum = std::numeric_limits<double>::quiet_NaN();
      d.call(&ix_backend::sum_of_squares, v.const_floats(), count, &sum);
      return sum;
    };
    lab.check(text("%lld", (long long)count), kF32, [&](Device& d) -> Outputs {
      Matrix out(IX_F32, 1, 1);
      out.set(0, 0, sum_on(d));
      return {{"sum", out}};
    });
    // All bits of the double.
    const double first = sum_on(lab.subject());
    for (int i = 0; i < 3; ++i) CHECK(sum_on(lab.subject()) == first, "another run has other bits");
  }
}

PARITY(sum_of_squares, not_finite) {
  Random random(604);
  for (const double bad : {std::numeric_limits<double>::infinity(), std::numeric_limits<double>::quiet_NaN()}) {
    for (const int64_t at : {0, 500, 999}) {
      Matrix values = column(random, 1000);
      values.set(at, 0, bad);
      Device& d = lab.subject();
      const Placed v(d, values);
      double sum = 0;
      d.call(&ix_backend::sum_of_squares, v.const_floats(), int64_t{1000}, &sum);
      CHECK(!std::isfinite(sum), "a value that is not finite at %lld gives %g", (long long)at, sum);
    }
  }
  // Each square overflows f32; the sum is finite in double.
  Matrix large(IX_F32, 3, 1);
  for (int64_t i = 0; i < 3; ++i) large.set(i, 0, 1e20);
  const Placed v(lab.subject(), large);
  double sum = 0;
  lab.subject().call(&ix_backend::sum_of_squares, v.const_floats(), int64_t{3}, &sum);
  CHECK(std::fabs(sum - 3e40) <= 3e35, "three times 1e40 is %g", sum);
}
