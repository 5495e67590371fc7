// The parity harness itself: it accepts every kernel set of the CPU, and catches every fault of every operation.
#include "parity/parity.h"

#include <algorithm>

#include "faulty_device.h"

using namespace implex;
using namespace implex::test;

namespace {

// The first case that fails on the table, with its message; "" where all pass.
std::string first_failure(const ix_backend* subject, const std::string& operation) {
  for (const ParityCase& item : parity_cases()) {
    if (!operation.empty() && operation != item.operation) continue;
    try {
      Lab lab(implex_cpu_backend(), subject);
      run_case(item, lab);
    } catch (const Failure& failure) {
      return std::string(item.operation) + "." + item.name + ": " + failure.message;
    } catch (const Error& error) {
      return std::string(item.operation) + "." + item.name + ": " + error.what();
    }
  }
  return "";
}

}  // namespace

// Kernel sets differ in their last bits, as another device does: the tolerances leave room for that.
TEST(parity_accepts_other_kernels) {
  int others = 0;
  for (const cpu::KernelTable* set : cpu::available_kernels()) {
    if (set == cpu::selected_kernels()) continue;
    ++others;
    const std::string failure = first_failure(backend_with_kernels(set->name), "");
    CHECK(failure.empty(), "%s: %s", set->name, failure.c_str());
  }
  if (others == 0) SKIP("this processor has one kernel set");
}

TEST(parity_catches_every_fault) {
  for (const Breakable& item : breakables()) {
    for (const Fault fault : item.faults) {
      const std::string operation = item.operation;
      // These have no case of their own, or are seen through another's.
      const std::string through = operation == "download" ? "upload" : operation == "weight_write" ? "gemm" : operation;
      const std::string failure = first_failure(faulty_backend(operation, fault), through);
      CHECK(!failure.empty(), "%s broken (%s) passes as good", item.operation, fault_name(fault));
    }
  }
}

// No operation of the table is left out.
TEST(parity_covers_the_table) {
  const size_t entries = (sizeof(ix_backend) - offsetof(ix_backend, open)) / sizeof(void*);
  // Not to be broken: open, close, describe, release, synchronize, weight_destroy, weight_bytes, batch_create,
  // batch_destroy, record_begin and record_end.
  CHECK(breakables().size() + 11 == entries, "%zu operations are broken in turn, the table has %zu entries",
        breakables().size(), entries);
}
