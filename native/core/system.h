// What the machine is, for `doctor` and the addon's info().
#pragma once

#include <string>
#include <vector>

namespace implex {

struct SystemInfo {
  std::string cpu_name;
  std::string kernels;                 // the kernel set in use
  std::vector<std::string> available;  // kernel sets built in and supported by this processor
  int threads = 1;                     // size of the process-wide pool, the calling thread included
};

SystemInfo system_info();

struct DeviceProbe {
  bool ok = false;
  std::string reason;       // why not, in a sentence
  std::string description;  // what was opened
};

// Loads a device module, checks its version, opens and closes the device. Never throws.
DeviceProbe probe_device(const std::string& module_path);

}  // namespace implex
