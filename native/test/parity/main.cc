// Compares a device with the CPU, operation by operation.
//   implex_parity MODULE [PART]     MODULE: a device module, or `cpu`; PART: only cases whose OPERATION.NAME has it
//   implex_parity --list
// One line a case: `ok OPERATION.NAME CHECKS WORST`, WORST being the largest difference as a share of what is allowed,
// or `FAIL OPERATION.NAME: why`; last `N passed, N failed`. Exit status: 0, 1 where a case failed, 2 where nothing ran.
// IMPLEX_CUDA names the module where the first argument is `cuda`.
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <exception>

#include "backend_loader.h"
#include "parity/parity.h"

namespace {

using namespace implex;
using namespace implex::test;

int list() {
  for (const ParityCase& item : parity_cases()) std::printf("%s.%s\n", item.operation, item.name);
  return 0;
}

int compare(const ix_backend* subject, const char* part) {
  int passed = 0, failed = 0;
  for (const ParityCase& item : parity_cases()) {
    const std::string name = std::string(item.operation) + "." + item.name;
    if (name.find(part) == std::string::npos) continue;
    std::string failure;
    try {
      Lab lab(implex_cpu_backend(), subject);
      run_case(item, lab);
      std::printf("ok %s %lld %.2g\n", name.c_str(), static_cast<long long>(lab.checks()), lab.worst());
      ++passed;
      continue;
    } catch (const Failure& found) {
      failure = found.message;
    } catch (const std::exception& error) {
      failure = std::string("unexpected exception: ") + error.what();
    }
    std::printf("FAIL %s: %s\n", name.c_str(), failure.c_str());
    ++failed;
  }
  std::printf("%d passed, %d failed\n", passed, failed);
  return failed > 0 ? 1 : passed > 0 ? 0 : 2;
}

}  // namespace

int main(int count, char** arguments) {
  std::setvbuf(stdout, nullptr, _IOLBF, 0);
  if (count < 2) {
    std::fprintf(stderr, "usage: implex_parity MODULE|cpu|cuda [PART]\n");
    return 2;
  }
  if (std::strcmp(arguments[1], "--list") == 0) return list();
  std::string path = arguments[1];
  if (path == "cuda") {
    const char* set = std::getenv("IMPLEX_CUDA");
    path = set == nullptr ? "" : set;
  }
  try {
    const ix_backend* subject = path == "cpu" ? load_backend("cpu", "") : load_backend("", path);
    const Device device(subject);
    std::printf("device %s: %s, kernels %s\n", subject->name, device.description().c_str(),
                device.kernel_set().c_str());
    return compare(subject, count > 2 ? arguments[2] : "");
  } catch (const std::exception& error) {
    std::printf("unavailable: %s\n", error.what());
    return 2;
  }
}
