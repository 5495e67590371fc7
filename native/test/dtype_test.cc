// Conversions between element types, over every 16-bit value.
#include "core/dtype.h"

#include <limits>

#include "support.h"

using namespace implex;
using namespace implex::test;

namespace {

uint32_t bits_of(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof bits);
  return bits;
}

float float_of(uint32_t bits) {
  float value;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}

// What a half means by the format's definition.
double half_value(uint32_t bits) {
  const int exponent = static_cast<int>((bits >> 10) & 31);
  const double mantissa = static_cast<double>(bits & 1023);
  const double magnitude = exponent == 0 ? std::ldexp(mantissa, -24) : std::ldexp(1024 + mantissa, exponent - 25);
  return bits & 0x8000 ? -magnitude : magnitude;
}

// Nearest bf16 by search between the two neighbours, ties to the even one.
uint16_t nearest_bf16(float value) {
  const uint32_t bits = bits_of(value);
  const uint16_t down = static_cast<uint16_t>(bits >> 16);  // towards zero
  const auto up = static_cast<uint16_t>(down + 1);
  const double below = static_cast<double>(bf16_to_f32(down));
  // Past the largest number the neighbour is where the next one would be.
  const double above =
      (up & 0x7fff) == 0x7f80 ? std::copysign(std::ldexp(1.0, 128), below) : static_cast<double>(bf16_to_f32(up));
  const double to_below = std::fabs(static_cast<double>(value) - below);
  const double to_above = std::fabs(above - static_cast<double>(value));
  if (to_below != to_above) return to_below < to_above ? down : up;
  return down % 2 == 0 ? down : up;
}

}  // namespace

TEST(dtype_bf16_round_trip) {
  for (uint32_t bits = 0; bits < 65536; ++bits) {
    const float value = bf16_to_f32(static_cast<uint16_t>(bits));
    CHECK(bits_of(value) == bits << 16, "bf16 %04x widens to %08x", bits, bits_of(value));
    const uint16_t back = f32_to_bf16(value);
    if (std::isnan(value))
      CHECK(back == (bits | 0x40), "NaN %04x becomes %04x", bits, back);
    else
      CHECK(back == bits, "%04x comes back as %04x", bits, back);
  }
}

TEST(dtype_f16_widening) {
  for (uint32_t bits = 0; bits < 65536; ++bits) {
    const float value = f16_to_f32(static_cast<uint16_t>(bits));
    const bool negative = (bits & 0x8000) != 0;
    CHECK(std::signbit(value) == negative, "sign of f16 %04x", bits);
    if ((bits & 0x7fff) > 0x7c00) {
      CHECK(std::isnan(value), "f16 %04x must be NaN", bits);
    } else if ((bits & 0x7fff) == 0x7c00) {
      CHECK(std::isinf(value), "f16 %04x must be infinite", bits);
    } else {
      CHECK(static_cast<double>(value) == half_value(bits), "f16 %04x widens to %g", bits, static_cast<double>(value));
    }
  }
}

TEST(dtype_bf16_rounding) {
  Random random(1);
  for (uint32_t high = 0; high < 65536; ++high) {
    const uint32_t lows[] = {0, 1, 0x7fff, 0x8000, 0x8001, 0xffff, static_cast<uint32_t>(random.below(65536))};
    for (const uint32_t low : lows) {
      const float value = float_of(high << 16 | low);
      if (std::isnan(value))
        CHECK(std::isnan(bf16_to_f32(f32_to_bf16(value))), "NaN %04x%04x is lost", high, low);
      else if (!std::isinf(value))
        CHECK(f32_to_bf16(value) == nearest_bf16(value), "%04x%04x rounds to %04x", high, low, f32_to_bf16(value));
    }
  }
  CHECK(f32_to_bf16(std::numeric_limits<float>::max()) == 0x7f80, "the largest f32 rounds to infinity");
  CHECK(f32_to_bf16(-std::numeric_limits<float>::infinity()) == 0xff80, "infinity stays");
}

// Kernels round with vector code of their own: whole vectors, tails and the packer must agree with core/dtype.h.
TEST(dtype_kernels_round_alike) {
  Random random(2);
  std::vector<float> values;
  for (uint32_t high = 0; high < 65536; ++high)
    values.push_back(float_of(high << 16 | static_cast<uint32_t>(random.below(65536))));
  for (uint32_t high = 0; high < 65536; high += 3) values.push_back(float_of(high << 16 | 0x8000));
  for_each_kernels([&](KernelDevice& device) {
    const int64_t n = static_cast<int64_t>(values.size());
    std::vector<uint16_t> whole(values.size());
    device.kernels().convert_row(values.data(), IX_F32, n, whole.data(), IX_BF16);
    std::vector<float> copied(values.size());
    device.kernels().convert_row(values.data(), IX_F32, n, copied.data(), IX_F32);
    CHECK(std::memcmp(copied.data(), values.data(), values.size() * 4) == 0, "f32 to f32 must copy");
    for (int64_t i = 0; i < n; ++i) {
      const float value = values[static_cast<size_t>(i)];
      uint16_t alone, packed;
      device.kernels().convert_row(&value, IX_F32, 1, &alone, IX_BF16);
      uint16_t panel[2 * 64] = {};
      device.kernels().pack_bf16(&value, 0, 1, 1, panel);
      packed = panel[0];
      const uint16_t want = f32_to_bf16(value);
      CHECK(whole[static_cast<size_t>(i)] == want && alone == want && packed == want,
            "%08x: %04x, alone %04x, packed %04x, want %04x", bits_of(value), whole[static_cast<size_t>(i)], alone,
            packed, want);
    }
  });
}
