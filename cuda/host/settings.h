// What the environment may choose. Plain C++, tested without a GPU.
//   IMPLEX_CUDA_DEVICE      ordinal of the GPU; 0 unless given (CUDA_VISIBLE_DEVICES renumbers them)
//   IMPLEX_CUDA_WORKSPACE   MiB that the backward pass of the language-model head may use for a chunk of gradients;
//                           another value cuts the rows at other places and so changes last bits of weight gradients
//   IMPLEX_CUDA_PRODUCTS    cublaslt (the default) or own: the module's plain product kernel for everything, slow, to
//                           find out where a difference comes from
//   IMPLEX_CUDA_KERNELS     sm80: leaves out the kernels that need sm_90a
//   IMPLEX_CUDA_HEAD        fused or product: scheme of the head's backward pass, else chosen by the card
//   IMPLEX_CUDA_GRAPHS      1: operations of short passes are launched together, as CUDA graphs; 0 (the default): one
//   by one
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>

namespace implex::cuda {

enum class HeadScheme { kAutomatic, kFused, kProduct };

struct Settings {
  int ordinal = 0;
  size_t workspace = size_t{1024} << 20;
  bool own_products = false;
  bool hopper_allowed = true;
  HeadScheme head = HeadScheme::kAutomatic;
  bool graphs = false;
  const char* problem = nullptr;  // the variable that has a value it cannot have
};

// A whole number in [low, high], or -1.
inline int64_t whole_number(const char* text, int64_t low, int64_t high) {
  char* end = nullptr;
  const long long value = std::strtoll(text, &end, 10);
  return end == text || *end != '\0' || value < low || value > high ? -1 : value;
}

// `get`: std::getenv, or a test's.
template <typename Get>
Settings read_settings(const Get& get) {
  Settings s;
  const auto value = [&](const char* name) {
    const char* text = get(name);
    return text != nullptr && text[0] != '\0' ? text : nullptr;
  };
  if (const char* text = value("IMPLEX_CUDA_DEVICE")) {
    const int64_t ordinal = whole_number(text, 0, 1023);
    if (ordinal < 0) s.problem = "IMPLEX_CUDA_DEVICE must be the number of a GPU, from 0";
    s.ordinal = static_cast<int>(ordinal);
  }
  if (const char* text = value("IMPLEX_CUDA_WORKSPACE")) {
    const int64_t mebibytes = whole_number(text, 1, int64_t{1} << 20);
    if (mebibytes < 0) s.problem = "IMPLEX_CUDA_WORKSPACE must be a number of MiB, from 1";
    s.workspace = static_cast<size_t>(mebibytes < 0 ? 1 : mebibytes) << 20;
  }
  if (const char* text = value("IMPLEX_CUDA_PRODUCTS")) {
    s.own_products = std::strcmp(text, "own") == 0;
    if (!s.own_products && std::strcmp(text, "cublaslt") != 0)
      s.problem = "IMPLEX_CUDA_PRODUCTS must be cublaslt or own";
  }
  if (const char* text = value("IMPLEX_CUDA_KERNELS")) {
    s.hopper_allowed = std::strcmp(text, "sm80") != 0;
    if (s.hopper_allowed && std::strcmp(text, "sm90a") != 0) s.problem = "IMPLEX_CUDA_KERNELS must be sm80 or sm90a";
  }
  if (const char* text = value("IMPLEX_CUDA_HEAD")) {
    if (std::strcmp(text, "fused") == 0)
      s.head = HeadScheme::kFused;
    else if (std::strcmp(text, "product") == 0)
      s.head = HeadScheme::kProduct;
    else
      s.problem = "IMPLEX_CUDA_HEAD must be fused or product";
  }
  if (const char* text = value("IMPLEX_CUDA_GRAPHS")) {
    s.graphs = std::strcmp(text, "1") == 0;
    if (!s.graphs && std::strcmp(text, "0") != 0) s.problem = "IMPLEX_CUDA_GRAPHS must be 0 or 1";
  }
  return s;
}

}  // namespace implex::cuda
