// Reads what the machine is.
#include "core/system.h"

#include <cstdio>
#include <cstring>

#include "backend_loader.h"
#include "core/device.h"
#include "core/thread_pool.h"
#include "cpu/device.h"
#if defined(__APPLE__)
#include <sys/sysctl.h>
#endif

namespace implex {

namespace {

std::string processor_name() {
#if defined(__APPLE__)
  char name[256];
  size_t size = sizeof name;
  if (sysctlbyname("machdep.cpu.brand_string", name, &size, nullptr, 0) == 0) return name;
#elif defined(__linux__)
  if (FILE* file = std::fopen("/proc/cpuinfo", "re")) {
    char line[512];
    std::string found;
    while (found.empty() && std::fgets(line, sizeof line, file)) {
      if (std::strncmp(line, "model name", 10) != 0) continue;
      if (const char* colon = std::strchr(line, ':')) found.assign(colon + 2, std::strcspn(colon + 2, "\n"));
    }
    std::fclose(file);
    if (!found.empty()) return found;
  }
#endif
  return "unknown";
}

}  // namespace

SystemInfo system_info() {
  SystemInfo info;
  info.cpu_name = processor_name();
  info.kernels = cpu::selected_kernels()->name;
  for (const cpu::KernelTable* set : cpu::available_kernels()) info.available.push_back(set->name);
  info.threads = ThreadPool::instance().size();
  return info;
}

DeviceProbe probe_device(const std::string& module_path) {
  DeviceProbe probe;
  try {
    Device device(load_backend("", module_path));
    probe.ok = true;
    probe.description = device.description();
  } catch (const std::exception& error) {
    probe.reason = error.what();
  }
  return probe;
}

}  // namespace implex
