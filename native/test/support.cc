// Temporary folders and child processes.
#include "support.h"

#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#if defined(__APPLE__)
#include <mach-o/dyld.h>
#endif

namespace implex::test {

TemporaryFolder::TemporaryFolder() {
  std::string pattern = (std::filesystem::temp_directory_path() / "implex-test-XXXXXX").string();
  CHECK(::mkdtemp(pattern.data()) != nullptr, "cannot make a folder like %s", pattern.c_str());
  path_ = pattern;
}

TemporaryFolder::~TemporaryFolder() {
  std::error_code ignored;
  std::filesystem::remove_all(path_, ignored);
}

std::string TemporaryFolder::write(const std::string& name, const std::string& content) const {
  const std::string path = path_ + "/" + name;
  std::ofstream file(path, std::ios::binary);
  file.write(content.data(), static_cast<std::streamsize>(content.size()));
  file.close();
  CHECK(!file.fail(), "cannot write %s", path.c_str());
  return path;
}

Run run_again(const std::string& settings, const std::string& argument) {
  char program[4096] = "";
#if defined(__APPLE__)
  uint32_t size = sizeof program;
  CHECK(_NSGetExecutablePath(program, &size) == 0, "the program's path is too long");
#else
  CHECK(::readlink("/proc/self/exe", program, sizeof program - 1) > 0, "cannot find this program");
#endif
  FILE* pipe = ::popen((settings + " '" + program + "' " + argument + " 2>&1").c_str(), "r");
  CHECK(pipe != nullptr, "cannot start %s", program);
  Run run;
  char block[4096];
  for (size_t got; (got = std::fread(block, 1, sizeof block, pipe)) > 0;) run.output.append(block, got);
  run.status = ::pclose(pipe);
  return run;
}

}  // namespace implex::test
