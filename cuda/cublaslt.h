// The library of matrix products behind an interface, so that the tests can put their own in its place.
#pragma once

#include <memory>

#include "device.h"
#include "host/product_key.h"

namespace implex::cuda {

class Products {
 public:
  virtual ~Products() = default;
  // Whether the library has an algorithm for products of this key; asked before run().
  virtual int32_t serves(const Call& call, const LibraryProduct& product, bool* answer) = 0;
  virtual int32_t run(const Call& call, const LibraryProduct& product) = 0;
};

// Opens libcublasLt at run time. Null, with a reason in `text`, where it is missing or of another version.
std::unique_ptr<Products> open_cublaslt(char* text, size_t size);

}  // namespace implex::cuda
