// The device itself: memory, refusals that leave it usable, two devices at a time.
#include <limits>

#include "parity/placed.h"

using namespace implex;
using namespace implex::test;

PARITY(alloc, alignment) {
  Device& d = lab.subject();
  for (const size_t bytes : {size_t{1}, size_t{255}, size_t{4097}, size_t{1} << 20}) {
    const DeviceBuffer a(d, bytes), b(d, bytes);
    CHECK(reinterpret_cast<uintptr_t>(a.data()) % 256 == 0 && reinterpret_cast<uintptr_t>(b.data()) % 256 == 0,
          "memory is aligned to 256 bytes");
    CHECK(a.data() != b.data(), "two allocations");
  }
}

PARITY(upload, round_trip) {
  Random random(701);
  for (const int64_t count : {1, 3, 4097, 3000000}) {
    const Matrix values = column(random, count);
    lab.check(text("%lld", (long long)count), kExact, [&](Device& d) -> Outputs {
      const Placed v(d, values);
      return {{"values", v.read()}};
    });
  }
}

namespace {

// Asked for more than there can be: refused with a reason, and the device computes as before.
void refused_and_usable(Device& d, const char* what, int32_t code, const ix_status& status) {
  CHECK(code == IX_OUT_OF_MEMORY, "%s: code %d, want out of memory", what, code);
  CHECK(status.code == code && status.message[0] != '\0', "%s: no message", what);
  Random random(702);
  const Matrix in = random_matrix(random, IX_F32, 3, 64);
  const Placed x(d, in);
  const Result out(d, IX_F32, 3, 64);
  d.call(&ix_backend::cast, x.mat(), out.mat());
  const Matrix got = out.read();
  for (int64_t r = 0; r < 3; ++r) CHECK(got.same_row(r, in, r), "%s: the device is not usable afterwards", what);
}

}  // namespace

PARITY(alloc, out_of_memory) {
  Device& d = lab.subject();
  for (const size_t bytes : {size_t{1} << 50, std::numeric_limits<size_t>::max() - 100}) {
    void* memory = nullptr;
    ix_status status = {};
    const int32_t code = d.table()->alloc(d.handle(), bytes, &memory, &status);
    CHECK(memory == nullptr, "nothing was given");
    refused_and_usable(d, "alloc", code, status);
  }
}

PARITY(weight_create, out_of_memory) {
  Device& d = lab.subject();
  for (const int32_t trainable : {0, 1}) {
    ix_weight* weight = nullptr;
    ix_status status = {};
    const int32_t code =
        d.table()->weight_create(d.handle(), IX_BF16, int64_t{1} << 25, int64_t{1} << 24, trainable, &weight, &status);
    CHECK(weight == nullptr, "nothing was given");
    refused_and_usable(d, "weight_create", code, status);
  }
}

PARITY(gemm, refuses) {
  Random random(703);
  Device& d = lab.subject();
  const Matrix values = random_matrix(random, IX_F32, 8, 16), in = random_matrix(random, IX_F32, 4, 16),
               wrong = random_matrix(random, IX_F32, 4, 15), half = random_matrix(random, IX_BF16, 4, 16);
  const PlacedWeight weight(d, values);
  const Placed x(d, in), short_x(d, wrong), narrow(d, half);
  const Result out(d, IX_F32, 4, 8), wide(d, IX_F32, 4, 9);
  const ix_epilogue nothing = {nullptr, nullptr};
  const auto code = [&](const ix_mat* from, const ix_mat* to) {
    ix_status status = {};
    const int32_t found = d.table()->gemm(d.handle(), from, weight.get(), &nothing, to, &status);
    CHECK(found == IX_OK || (status.code == found && status.message[0] != '\0'), "a refusal must say why");
    return found;
  };
  CHECK(code(x.mat(), out.mat()) == IX_OK, "the right shapes");
  CHECK(code(short_x.mat(), out.mat()) == IX_INVALID, "another depth");
  CHECK(code(narrow.mat(), out.mat()) == IX_INVALID, "another dtype");
  CHECK(code(x.mat(), wide.mat()) == IX_INVALID, "another width");
  CHECK(code(x.mat(), out.mat()) == IX_OK, "usable after refusals");
}

PARITY(gemm_backward_input, refuses) {
  Random random(705);
  Device& d = lab.subject();
  const Matrix values = random_matrix(random, IX_F32, 8, 16), grad = random_matrix(random, IX_F32, 4, 8),
               wrong = random_matrix(random, IX_F32, 4, 9);
  const PlacedWeight frozen(d, values), weight(d, values, true);
  const Placed g(d, grad), wide(d, wrong);
  const Result out(d, IX_F32, 4, 16);
  const auto code = [&](const ix_mat* from, const PlacedWeight& with) {
    ix_status status = {};
    const int32_t found = d.table()->gemm_backward_input(d.handle(), from, with.get(), nullptr, out.mat(), &status);
    CHECK(found == IX_OK || (status.code == found && status.message[0] != '\0'), "a refusal must say why");
    return found;
  };
  CHECK(code(g.mat(), weight) == IX_OK, "the right shapes");
  CHECK(code(wide.mat(), weight) == IX_INVALID, "another depth");
  CHECK(code(g.mat(), frozen) == IX_INVALID, "a weight that was not made trainable");
  CHECK(code(g.mat(), weight) == IX_OK, "usable after refusals");
}

PARITY(open, twice) {
  Random random(704);
  Device second(lab.subject().table());
  CHECK(!second.description().empty() && !second.kernel_set().empty(), "a device says what it is");
  const Matrix in = random_matrix(random, IX_F32, 5, 33);
  const Placed a(lab.subject(), in), b(second, in);
  const Matrix one = a.read(), two = b.read();
  for (int64_t r = 0; r < 5; ++r) CHECK(one.same_row(r, two, r), "both hold what they were given");
}

PARITY(synchronize, idle) {
  for (int i = 0; i < 3; ++i) lab.subject().call(&ix_backend::synchronize);
}

// A recording changes when operations are done and nothing else. Several rounds: a device may treat what it has seen
// before in another way.
PARITY(record, kept_and_dropped) {
  Random random(705);
  const Matrix in = random_matrix(random, IX_F32, 5, 64);
  lab.check("casts", kExact, [&](Device& d) -> Outputs {
    const Placed x(d, in);
    const Result half(d, IX_BF16, 5, 64), wide(d, IX_F32, 5, 64);
    for (const int32_t keep : {1, 0, 1, 1}) {
      d.call(&ix_backend::record_begin);
      d.call(&ix_backend::cast, x.mat(), half.mat());
      d.call(&ix_backend::cast, half.mat(), wide.mat());
      d.call(&ix_backend::record_end, keep);
    }
    return {{"half", half.read()}, {"wide", wide.read()}};
  });
}
