// The CPU's table with one operation broken in one way: what the parity cases must catch.
#pragma once

#include <string>
#include <vector>

#include "backend.h"

namespace implex::test {

enum class Fault {
  kNone,
  kOff,        // one element is off by a little
  kUnwritten,  // the last element stays as it was
  kBeyond,     // one element behind a row is written
  kBatch,      // the last bit of the first element depends on the number of rows
  kDrift,      // the last bit of the first element depends on the number of the call
  kSilent,     // a refusal without a message
};
const char* fault_name(Fault fault);

// Operations that can be broken, and the faults that each can have.
struct Breakable {
  const char* operation;
  std::vector<Fault> faults;
};
const std::vector<Breakable>& breakables();

// One at a time: the table is the same object each time.
const ix_backend* faulty_backend(const std::string& operation, Fault fault);

// The CPU's table with another kernel set than the one in use.
const ix_backend* backend_with_kernels(const std::string& kernels);

}  // namespace implex::test
