// Results that must have the same bits on any number of threads, as hashes.
#pragma once

namespace implex::test {

// One line per kind of result, for the kernel set that IMPLEX_KERNELS names.
void print_hashes();

}  // namespace implex::test
