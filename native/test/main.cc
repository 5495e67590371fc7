// Runs the registered cases: all, or those whose name contains one of the arguments. `--hashes` instead prints a hash
// of results that must not depend on the number of threads (invariance_test.cc runs this program again with other
// settings).
#include <cstring>
#include <exception>
#include <string>
#include <vector>

#include "harness.h"
#include "hashes.h"

int main(int count, char** arguments) {
  using namespace implex::test;
  const std::vector<std::string> filters(arguments + 1, arguments + count);
  const auto wanted = [&](const char* name) {
    if (filters.empty()) return true;
    for (const std::string& filter : filters)
      if (std::strstr(name, filter.c_str()) != nullptr) return true;
    return false;
  };
  if (!filters.empty() && filters[0] == "--hashes") {
    try {
      print_hashes();
      return 0;
    } catch (const Failure& failure) {
      std::printf("FAIL %s\n", failure.message.c_str());
    } catch (const std::exception& error) {
      std::printf("FAIL %s\n", error.what());
    }
    return 1;
  }
  std::setvbuf(stdout, nullptr, _IOLBF, 0);
  int passed = 0, failed = 0, skipped = 0;
  for (const Case& test : cases()) {
    if (!wanted(test.name)) continue;
    std::string failure;
    try {
      test.run();
      ++passed;
      std::printf("ok %s\n", test.name);
      continue;
    } catch (const Skipped& skip) {
      ++skipped;
      std::printf("skip %s: %s\n", test.name, skip.reason.c_str());
      continue;
    } catch (const Failure& found) {
      failure = found.message;
    } catch (const std::exception& error) {
      failure = std::string("unexpected exception: ") + error.what();
    }
    ++failed;
    std::printf("FAIL %s: %s\n", test.name, failure.c_str());
  }
  std::printf("%d passed, %d failed, %d skipped\n", passed, failed, skipped);
  return failed == 0 ? 0 : 1;
}
