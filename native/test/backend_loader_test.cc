// Loading of device modules: refusals with their reasons, and a model that scores through a module.
//
// The modules are built by device/CMakeLists.txt, which defines IMPLEX_TEST_DEVICES as their folder; the environment
// variable of that name overrides it.
#include "backend_loader.h"

#include <cstdlib>

#include "core/device.h"
#include "core/system.h"
#include "tiny_model.h"

using namespace implex;
using namespace implex::test;

namespace {

std::string module_path(const char* name) {
  std::string folder;
#if defined(IMPLEX_TEST_DEVICES)
  folder = IMPLEX_TEST_DEVICES;
#endif
  if (const char* set = std::getenv("IMPLEX_TEST_DEVICES")) folder = set;
  if (folder.empty()) SKIP("IMPLEX_TEST_DEVICES does not say where the test modules are");
  return folder + "/" + name + ".so";
}

}  // namespace

TEST(backend_loader_builtin) {
  CHECK(load_backend("cpu", "") == implex_cpu_backend(), "the CPU is linked in");
  CHECK_ERROR(ErrorCode::kDeviceUnavailable, load_backend("cuda", ""), "no path");
  CHECK_ERROR(ErrorCode::kDeviceUnavailable, load_backend("", ""), "no path");
}

TEST(backend_loader_bad_files) {
  const TemporaryFolder folder;
  CHECK_ERROR(ErrorCode::kDeviceUnavailable, load_backend("cuda", folder.path() + "/absent.so"), "absent.so");
  CHECK_ERROR(ErrorCode::kDeviceUnavailable, load_backend("cuda", folder.path()), "cannot load");
  CHECK_ERROR(ErrorCode::kDeviceUnavailable, load_backend("cuda", folder.write("text.so", "this is no library")),
              "text.so");
  CHECK_ERROR(ErrorCode::kDeviceUnavailable, load_backend("cuda", folder.write("empty.so", "")), "empty.so");
  const DeviceProbe probe = probe_device(folder.path() + "/absent.so");
  CHECK(!probe.ok && probe.reason.find("absent.so") != std::string::npos, "a probe says why: %s", probe.reason.c_str());
}

TEST(backend_loader_wrong_modules) {
  CHECK_ERROR(ErrorCode::kDeviceUnavailable, load_backend("test", module_path("implex_test_device_symbol")),
              IMPLEX_BACKEND_SYMBOL);
  CHECK_ERROR(ErrorCode::kDeviceUnavailable, load_backend("test", module_path("implex_test_device_null")),
              IMPLEX_BACKEND_SYMBOL);
  CHECK_ERROR(ErrorCode::kDeviceUnavailable, load_backend("test", module_path("implex_test_device_version")),
              "version");
  CHECK_ERROR(ErrorCode::kDeviceUnavailable, load_backend("test", module_path("implex_test_device_size")), "rebuild");
  CHECK_ERROR(ErrorCode::kDeviceUnavailable, load_backend("cuda", module_path("implex_test_device")),
              "\"test\", not \"cuda\"");
  CHECK_ERROR(ErrorCode::kDeviceUnavailable, Device(load_backend("test", module_path("implex_test_device_open"))),
              "no such device today");
  const DeviceProbe probe = probe_device(module_path("implex_test_device_open"));
  CHECK(!probe.ok && probe.reason.find("today") != std::string::npos, "a probe says why: %s", probe.reason.c_str());
}

TEST(backend_loader_round_trip) {
  const std::string path = module_path("implex_test_device");
  const DeviceProbe probe = probe_device(path);
  CHECK(probe.ok && probe.reason.empty() && !probe.description.empty(), "%s", probe.reason.c_str());
  CHECK(load_backend("test", path) != implex_cpu_backend(), "the module has a table of its own");

  const TemporaryFolder folder;
  CancelFlag cancel;
  for (const TinyOptions& options : tiny_shapes()) {
    const TinyModel tiny = make_tiny_model(options, 33, folder);
    Random random(34);
    const TinyBatch batch = random_batch(random, tiny.spec);
    LoadOptions here, there;
    there.device = "test";
    there.device_path = path;
    const std::unique_ptr<RewardModel> inside = load_model(tiny.spec, here, cancel);
    const std::unique_ptr<RewardModel> outside = load_model(tiny.spec, there, cancel);
    CHECK(outside->device_name() == "test" && outside->kernel_set() == inside->kernel_set(), "the model runs on %s",
          outside->device_name().c_str());
    CHECK(outside->score(batch.request, cancel).values == inside->score(batch.request, cancel).values,
          "%s differs through a module", options.name);
  }
}
