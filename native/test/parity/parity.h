// Parity of a device with the CPU: every operation of backend.h runs on both with the same seeded ragged inputs, and
// the results are compared within a stated tolerance.
//
// Each check also demands what does not depend on arithmetic: outputs start as NaN and must be written whole, nothing
// is written between or behind rows, and a second run leaves the same bits. check_rows() asks for the same bits of a
// row alone, in a part of the batch, in another order.
//
// Cases register themselves by PARITY(operation, name); main.cc runs them against a module, parity_test.cc against the
// CPU with one fault at a time.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "core/device.h"
#include "support.h"

namespace implex::test {

// |got - want| <= relative * max(|want|, root mean square of the output, floor).
struct Tolerance {
  double relative;
  double floor = 0;
};
// Moved, not computed.
constexpr Tolerance kExact = {0};
// f32 sums of up to some thousand products in another order, and one exponential or root.
constexpr Tolerance kF32 = {1e-5};
// Logarithms of probabilities: relative to 1 where they are smaller, as in docs/numerics.md.
constexpr Tolerance kLogprob = {1e-5, 1};
// Gradients through a softmax, where differences of near numbers enter.
constexpr Tolerance kF32Gradient = {1e-4};
// A result rounded to bf16 may fall to either side: one unit in the last place, 2^-7 of it.
constexpr Tolerance kBf16 = {1.0 / 128};
// Terms are rounded to bf16 before they are summed (softmax weights, gradients of scores and logits), in both devices
// independently: 2^-8 / sqrt(3) * sqrt(2) = 0.0032 of the sum's spread in the root mean square; five times that, or the
// unit above, is not expected in 10^5 values. See docs/numerics.md, "The bound for bf16".
constexpr Tolerance kBf16Terms = {1.0 / 64};

struct Output {
  std::string name;
  Matrix values;
};
using Outputs = std::vector<Output>;

class Lab {
 public:
  Lab(const ix_backend* reference, const ix_backend* subject) : reference_(reference), subject_(subject) {}

  using Run = std::function<Outputs(Device&)>;
  // The reference once, the subject twice.
  void check(const std::string& what, Tolerance tolerance, const Run& run);

  // `run` gives outputs whose row i belongs to row rows[i] of the inputs.
  using RunRows = std::function<Outputs(Device&, const std::vector<int32_t>& rows)>;
  void check_rows(const std::string& what, int64_t rows, const RunRows& run);

  Device& reference() { return reference_; }
  Device& subject() { return subject_; }

  // The largest |got - want| / allowed of all checks so far, and their number.
  double worst() const { return worst_; }
  int64_t checks() const { return checks_; }

 private:
  Device reference_, subject_;
  double worst_ = 0;
  int64_t checks_ = 0;
};

// Every case runs in each: rows with odd gaps between them, with gaps that keep 16-byte alignment, and without, which
// kernels have quick ways for.
enum class Layout { kGaps, kAligned, kDense };
Layout layout();

struct ParityCase {
  const char* operation;
  const char* name;
  void (*run)(Lab&);
};
std::vector<ParityCase>& parity_cases();
// Throws Failure, which names the layout, or Error.
void run_case(const ParityCase& item, Lab& lab);
struct RegisterParity {
  RegisterParity(const char* operation, const char* name, void (*run)(Lab&)) {
    parity_cases().push_back({operation, name, run});
  }
};

#define PARITY(operation, name)                                                                                     \
  static void operation##_##name(::implex::test::Lab& lab);                                                         \
  static const ::implex::test::RegisterParity register_##operation##_##name(#operation, #name, operation##_##name); \
  static void operation##_##name([[maybe_unused]] ::implex::test::Lab& lab)

}  // namespace implex::test
