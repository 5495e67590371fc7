// Index arithmetic of the CUDA kernels: fragments, swizzle, descriptors, accumulators, barriers' parities. The expected
// values are written out from the PTX ISA, not computed by the same expressions.
#include <set>
#include <utility>

#include "../../cuda/host/layout.h"
#include "harness.h"

using namespace implex::cuda;

// ldmatrix gives register i of lane l two neighbours of row l / 4 of matrix i; lanes 8 i .. 8 i + 7 name its rows.
TEST(cuda_fragments_left) {
  constexpr int kStride = 40;
  for (int lane = 0; lane < 32; ++lane) {
    const int g = lane / 4, t = lane % 4;
    // a[0] (g, 2t), a[1] (g + 8, 2t), a[2] (g, 2t + 8), a[3] (g + 8, 2t + 8)
    const std::pair<int, int> want[4] = {{g, 2 * t}, {g + 8, 2 * t}, {g, 2 * t + 8}, {g + 8, 2 * t + 8}};
    for (int i = 0; i < 4; ++i) {
      const int at = left_offset(8 * i + lane / 4, kStride) + 2 * t;
      CHECK(at == want[i].first * kStride + want[i].second, "lane %d register %d", lane, i);
    }
  }
}

TEST(cuda_fragments_right) {
  constexpr int kStride = 72;
  for (int lane = 0; lane < 32; ++lane) {
    const int g = lane / 4, t = lane % 4;
    // b[0] (depth 2t, column g), b[1] (2t + 8, g), then the same of columns 8..15; stored [column][depth].
    const std::pair<int, int> want[4] = {{2 * t, g}, {2 * t + 8, g}, {2 * t, g + 8}, {2 * t + 8, g + 8}};
    for (int i = 0; i < 4; ++i) {
      const int at = right_offset(8 * i + lane / 4, kStride) + 2 * t;
      CHECK(at == want[i].second * kStride + want[i].first, "lane %d register %d", lane, i);
      // Stored [depth][column] and transposed: the lane gets column g of rows 2t and 2t + 1.
      for (int half = 0; half < 2; ++half) {
        const int transposed = right_transposed_offset(8 * i + 2 * t + half, kStride) + g;
        CHECK(transposed == (want[i].first + half) * kStride + want[i].second, "lane %d register %d, transposed", lane,
              i);
      }
    }
  }
}

// The 8 rows of an ldmatrix must lie in different banks: 16 bytes each, 128 bytes of banks.
TEST(cuda_tiles_without_bank_conflicts) {
  for (const int stride : {64 + 8, 80 + 8, 96 + 8, 128 + 8, 256 + 8, 32 + 8}) {
    std::set<int> places;
    for (int row = 0; row < 8; ++row) places.insert(row * stride * 2 % 128 / 16);
    CHECK(places.size() == 8, "rows of %d elements", stride);
    CHECK(stride * 2 % 16 == 0, "rows of %d elements are not aligned to 16 bytes", stride);
  }
}

TEST(cuda_swizzle) {
  // A permutation of the tile; row 0 stays, row 1's first piece goes to place 1, row 3's second to place 2.
  std::set<uint32_t> bytes;
  for (uint32_t row = 0; row < 256; ++row)
    for (uint32_t col = 0; col < 64; ++col) bytes.insert(swizzled(row, col));
  CHECK(bytes.size() == 256 * 64 && *bytes.rbegin() == 256 * 128 - 2, "not a permutation");
  CHECK(swizzled(0, 9) == 18 && swizzled(1, 0) == 128 + 16 && swizzled(3, 8) == 3 * 128 + 2 * 16, "other places");
  CHECK(swizzled(8, 5) == 1024 + 10 && swizzled(15, 0) == 15 * 128 + 7 * 16, "groups of 8 rows repeat");
}

TEST(cuda_matrix_descriptor) {
  const uint64_t d = matrix_descriptor(0x12400);
  CHECK((d & 0x3fff) == 0x1240, "address");
  CHECK((d >> 32 & 0x3fff) == 64, "1024 bytes from one group of 8 rows to the next");
  CHECK(d >> 62 == 1, "128-byte swizzle");
  CHECK((d >> 49 & 7) == 0, "base offset");
  CHECK((matrix_descriptor(0x12400) + descriptor_step(3)) == matrix_descriptor(0x12400 + 96), "48 of depth on");
  // The last stage's tiles are within the 18 bits that a descriptor's address has.
  CHECK(kHeadSharedBytes < (1u << 18), "an address would be cut");
}

// What the hardware does with a descriptor, against where the copy engine put an element.
TEST(cuda_descriptor_finds_swizzled_elements) {
  for (int row = 0; row < 256; row += 5) {
    for (int k = 0; k < 64; ++k) {
      const uint64_t d = matrix_descriptor(0) + descriptor_step(k / 16);
      uint32_t address = static_cast<uint32_t>(d & 0x3fff) * 16 +
                         static_cast<uint32_t>(row / 8 * 1024 + row % 8 * 128) + static_cast<uint32_t>(k % 16) * 2;
      address ^= (address / 128 % 8) * 16;
      CHECK(address == swizzled(static_cast<uint32_t>(row), static_cast<uint32_t>(k)), "row %d, %d deep", row, k);
    }
  }
}

TEST(cuda_accumulators_cover_the_tile) {
  std::set<std::pair<int, int>> seen;
  for (int thread = 0; thread < 128; ++thread)
    for (int i = 0; i < 128; ++i) seen.insert({accumulator_row(thread, i), accumulator_column(thread, i)});
  CHECK(seen.size() == 64 * 256, "%zu places", seen.size());
  CHECK(accumulator_row(37, 0) == 17 && accumulator_row(37, 2) == 25 && accumulator_column(37, 5) == 11, "PTX ISA, D");
}

TEST(cuda_ring_of_barriers) {
  // Consumers wait for parity 0 of each stage first, then 1; producers for the other, which a new barrier has passed.
  RingPosition at;
  for (int use = 0; use < 5 * kHeadStages; ++use) {
    CHECK(at.stage == use % kHeadStages && at.parity == static_cast<uint32_t>(use / kHeadStages % 2), "use %d", use);
    at.next();
  }
}
