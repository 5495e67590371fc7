// Runs the cases of the emulated GPU: all, or those whose name has one of the arguments.
#include <chrono>
#include <cstring>

#include "../harness.h"

using namespace implex::test;

int main(int argc, char** argv) {
  int passed = 0, failed = 0, skipped = 0;
  for (const Case& c : cases()) {
    bool chosen = argc < 2;
    for (int i = 1; i < argc; ++i) chosen = chosen || std::strstr(c.name, argv[i]) != nullptr;
    if (!chosen) continue;
    const auto start = std::chrono::steady_clock::now();
    try {
      c.run();
      ++passed;
      const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start;
      std::printf("ok %s (%.1f s)\n", c.name, seconds.count());
    } catch (const Skipped& reason) {
      ++skipped;
      std::printf("skipped %s: %s\n", c.name, reason.reason.c_str());
    } catch (const Failure& failure) {
      ++failed;
      std::printf("FAILED %s: %s\n", c.name, failure.message.c_str());
    }
    std::fflush(stdout);
  }
  std::printf("%d passed, %d failed, %d skipped\n", passed, failed, skipped);
  return failed == 0 ? 0 : 1;
}
