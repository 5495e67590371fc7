// WeightReader: dtypes, row selections, and every way in which a file or a source can lie.
#include "io/weight_reader.h"

#include <limits>

#include "support.h"

using namespace implex;
using namespace implex::test;

namespace {

template <typename T>
std::string bytes_of(const std::vector<T>& values) {
  return std::string(reinterpret_cast<const char*>(values.data()), values.size() * sizeof(T));
}

WeightSource source(const std::string& file, DType dtype, std::vector<int64_t> shape, uint64_t offset = 0) {
  WeightSource s;
  s.role = "role";
  s.tensor = "the.tensor";
  s.file = file;
  s.offset = offset;
  s.dtype = dtype;
  s.bytes = dtype_size(dtype);
  for (const int64_t n : shape) s.bytes *= static_cast<uint64_t>(n);
  s.shape = std::move(shape);
  return s;
}

WeightSource selecting(WeightSource s, RowSelection selection) {
  s.has_selection = true;
  s.selection = selection;
  return s;
}

// All values, checking that blocks of rows come in order.
std::vector<float> read(const WeightSource& s) {
  WeightReader reader;
  CancelFlag cancel;
  const WeightReader::Shape shape = reader.shape(s);
  std::vector<float> values;
  int64_t next = 0;
  reader.read(s, cancel, [&](int64_t first, int64_t count, const float* from) {
    CHECK(first == next && count > 0, "rows from %d after %d", int(first), int(next));
    next += count;
    values.insert(values.end(), from, from + count * shape.cols);
  });
  CHECK(next == shape.rows, "%d of %d rows came", int(next), int(shape.rows));
  return values;
}

std::vector<float> counting(int64_t n) {
  std::vector<float> values;
  for (int64_t i = 0; i < n; ++i) values.push_back(static_cast<float>(i) + 0.25f);
  return values;
}

}  // namespace

TEST(weight_reader_dtypes) {
  const TemporaryFolder folder;
  const std::vector<float> f32 = {1.5f, -0.0f, 3.4028235e38f, 1e-45f, -7, 8};
  const std::string wide = folder.write("f32", "pad" + bytes_of(f32));
  CHECK(bytes_of(read(source(wide, DType::kF32, {2, 3}, 3))) == bytes_of(f32), "f32 at an odd offset");
  CHECK(read(source(wide, DType::kF32, {6}, 3)).size() == 6, "a vector");
  // Every finite 16-bit value.
  std::vector<uint16_t> bf16, f16;
  std::vector<float> bf16_values, f16_values;
  for (uint32_t bits = 0; bits < 65536; ++bits) {
    const auto half = static_cast<uint16_t>(bits);
    if (std::isfinite(bf16_to_f32(half))) bf16.push_back(half), bf16_values.push_back(bf16_to_f32(half));
    if (std::isfinite(f16_to_f32(half))) f16.push_back(half), f16_values.push_back(f16_to_f32(half));
  }
  CHECK(bytes_of(read(source(folder.write("bf16", bytes_of(bf16)), DType::kBf16,
                             {static_cast<int64_t>(bf16.size() / 2), 2}))) == bytes_of(bf16_values),
        "bf16");
  CHECK(bytes_of(read(source(folder.write("f16", "x" + bytes_of(f16)), DType::kF16, {static_cast<int64_t>(f16.size())},
                             1))) == bytes_of(f16_values),
        "f16");
}

TEST(weight_reader_blocks) {
  const TemporaryFolder folder;
  // More elements than one block, rows that do not divide it, and one row longer than a block.
  const std::vector<float> values = counting((int64_t{1} << 20) + 4097);
  const std::string file = folder.write("large", bytes_of(values));
  const auto n = static_cast<int64_t>(values.size());
  CHECK(read(source(file, DType::kF32, {n / 3, 3})) == std::vector<float>(values.begin(), values.begin() + n / 3 * 3),
        "three columns");
  CHECK(read(source(file, DType::kF32, {1, n})) == values, "one row");
  CHECK(read(source(file, DType::kF32, {n, 1})) == values, "one column");
  CHECK(read(source(file, DType::kF32, {n})) == values, "a vector");
}

TEST(weight_reader_selections) {
  const TemporaryFolder folder;
  const std::vector<float> values = counting(24 * 5);
  const std::string file = folder.write("rows", bytes_of(values));
  for (const RowSelection& r :
       {RowSelection{0, 2, 6}, RowSelection{2, 2, 6}, RowSelection{4, 2, 6}, RowSelection{0, 24, 24},
        RowSelection{23, 1, 24}, RowSelection{0, 1, 1}, RowSelection{1, 3, 4}}) {
    std::vector<float> rows, elements;
    for (int64_t row = 0; row < 24; ++row) {
      if (row % r.stride < r.start || row % r.stride >= r.start + r.block) continue;
      rows.insert(rows.end(), values.begin() + row * 5, values.begin() + (row + 1) * 5);
      elements.push_back(values[static_cast<size_t>(row)]);
    }
    CHECK(read(selecting(source(file, DType::kF32, {24, 5}), r)) == rows, "rows from %d, %d of %d", int(r.start),
          int(r.block), int(r.stride));
    CHECK(read(selecting(source(file, DType::kF32, {24}), r)) == elements, "elements from %d, %d of %d", int(r.start),
          int(r.block), int(r.stride));
  }
  const int64_t most = std::numeric_limits<int64_t>::max(), least = std::numeric_limits<int64_t>::min();
  for (const RowSelection& r :
       {RowSelection{0, 0, 6}, RowSelection{0, 2, 0}, RowSelection{-1, 2, 6}, RowSelection{5, 2, 6},
        RowSelection{0, 2, 7}, RowSelection{0, 7, 6}, RowSelection{0, 2, 48}, RowSelection{0, most, 24},
        RowSelection{most, 1, 24}, RowSelection{0, 1, most}, RowSelection{least, 1, 24}, RowSelection{0, least, 24},
        RowSelection{0, 1, least}, RowSelection{most, most, most}}) {
    CHECK_ERROR(ErrorCode::kTensorShape, read(selecting(source(file, DType::kF32, {24, 5}), r)), "the.tensor");
    CHECK_ERROR(ErrorCode::kTensorShape, read(selecting(source(file, DType::kF32, {24}), r)), "rows lie outside");
  }
}

TEST(weight_reader_lies) {
  const TemporaryFolder folder;
  const std::string file = folder.write("short", bytes_of(counting(10)));
  const int64_t most = std::numeric_limits<int64_t>::max(), least = std::numeric_limits<int64_t>::min();
  const uint64_t all = std::numeric_limits<uint64_t>::max();
  CHECK(read(source(file, DType::kF32, {5, 2})).size() == 10, "the truth");
  CHECK_ERROR(ErrorCode::kSafetensorsInvalid, read(source(file, DType::kF32, {11})), "truncated");
  CHECK_ERROR(ErrorCode::kSafetensorsInvalid, read(source(file, DType::kF32, {10}, 1)), "truncated");
  CHECK_ERROR(ErrorCode::kSafetensorsInvalid, read(source(file, DType::kF32, {10}, all)), "truncated");
  CHECK_ERROR(ErrorCode::kSafetensorsInvalid, read(source(file, DType::kF32, {10}, all - 39)), "truncated");
  CHECK_ERROR(ErrorCode::kSafetensorsInvalid, read(source(file, DType::kF32, {int64_t{1} << 20, int64_t{1} << 20})),
              "truncated");
  WeightSource s = source(file, DType::kF32, {5, 2});
  for (const uint64_t bytes : {uint64_t{0}, uint64_t{39}, uint64_t{41}, uint64_t{20}, all}) {
    s.bytes = bytes;
    CHECK_ERROR(ErrorCode::kSafetensorsInvalid, read(s), "shape and dtype");
  }
  for (const std::vector<int64_t>& shape : std::vector<std::vector<int64_t>>{
           {}, {1, 2, 5}, {0}, {0, 5}, {5, 0}, {-5, -2}, {most, most}, {least, 1}, {int64_t{1} << 41}}) {
    s = source(file, DType::kF32, {5, 2});
    s.shape = shape;
    CHECK_ERROR(ErrorCode::kTensorShape, read(s), "the.tensor");
  }
  s = source(file, DType::kF32, {5, 2});
  s.shape = {int64_t{1} << 40, int64_t{1} << 40};  // elements overflow
  CHECK_ERROR(ErrorCode::kSafetensorsInvalid, read(s), "the.tensor");
  CHECK_ERROR(ErrorCode::kTensorDtype, read(source(file, DType::kI32, {10})), "f16");
  CHECK_ERROR(ErrorCode::kIo, read(source(folder.path() + "/absent", DType::kF32, {10})), "absent");
  CHECK_ERROR(ErrorCode::kIo, read(source(folder.path(), DType::kF32, {10})), "not a regular file");
  CHECK_ERROR(ErrorCode::kIo, read(source("", DType::kF32, {10})), "cannot open");
  CHECK_ERROR(ErrorCode::kSafetensorsInvalid, read(source(folder.write("empty", ""), DType::kF32, {1})), "truncated");
}

// The file shrinks after it was opened and measured.
TEST(weight_reader_file_shrinks) {
  const TemporaryFolder folder;
  const std::string file = folder.write("shrinks", bytes_of(counting(1000)));
  WeightReader reader;
  const WeightSource s = source(file, DType::kF32, {100, 10});
  CHECK(reader.shape(s).rows == 100, "it was whole");
  folder.write("shrinks", bytes_of(counting(10)));
  CancelFlag cancel;
  CHECK_ERROR(ErrorCode::kSafetensorsInvalid, (reader.read(s, cancel, [](int64_t, int64_t, const float*) {}), 0),
              "truncated");
}

TEST(weight_reader_refuses_non_finite) {
  const TemporaryFolder folder;
  const float nan = std::numeric_limits<float>::quiet_NaN(), infinity = std::numeric_limits<float>::infinity();
  for (const float bad : {nan, infinity, -infinity}) {
    std::vector<float> values = counting(30);
    values[17] = bad;
    CHECK_ERROR(ErrorCode::kWeightNotFinite, read(source(folder.write("f32", bytes_of(values)), DType::kF32, {10, 3})),
                "element 17");
    std::vector<uint16_t> halves(30);
    halves[29] = f32_to_bf16(bad);
    CHECK_ERROR(ErrorCode::kWeightNotFinite, read(source(folder.write("bf16", bytes_of(halves)), DType::kBf16, {30})),
                "element 29");
    halves[29] = std::isnan(bad) ? 0x7e00 : bad > 0 ? 0x7c00 : 0xfc00;
    CHECK_ERROR(ErrorCode::kWeightNotFinite, read(source(folder.write("f16", bytes_of(halves)), DType::kF16, {3, 10})),
                "damaged");
  }
  // Rows that are not selected may hold anything.
  std::vector<float> values = counting(6);
  values[0] = nan;
  const std::string file = folder.write("part", bytes_of(values));
  CHECK(read(selecting(source(file, DType::kF32, {6, 1}), {1, 1, 2})).size() == 3, "the odd rows are good");
  CHECK_ERROR(ErrorCode::kWeightNotFinite, read(selecting(source(file, DType::kF32, {6, 1}), {0, 1, 2})), "element 0");
}

TEST(weight_reader_cancelled) {
  const TemporaryFolder folder;
  const WeightSource s = source(folder.write("values", bytes_of(counting(4))), DType::kF32, {4});
  WeightReader reader;
  CancelFlag cancel;
  cancel.cancel();
  CHECK_ERROR(ErrorCode::kAborted, (reader.read(s, cancel, [](int64_t, int64_t, const float*) {}), 0), "aborted");
}
