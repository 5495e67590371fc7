// The native tests' harness: cases register themselves, main.cc runs them in order of registration.
//   TEST(name) {
//     CHECK(a == b, "a is %d", a);
//     CHECK_ERROR(ErrorCode::kIo, open(path), "part of the message");
//     SKIP("reason");
//   }
// A failed check ends its case.
#pragma once

#include <cstdarg>
#include <cstdio>
#include <string>
#include <vector>

namespace implex::test {

struct Case {
  const char* name;
  void (*run)();
};

inline std::vector<Case>& cases() {
  static std::vector<Case> all;
  return all;
}

struct Register {
  Register(const char* name, void (*run)()) { cases().push_back({name, run}); }
};

struct Failure {
  std::string message;
};
struct Skipped {
  std::string reason;
};

__attribute__((format(printf, 1, 2))) inline std::string text(const char* format, ...) {
  char buffer[4096];
  va_list arguments;
  va_start(arguments, format);
  std::vsnprintf(buffer, sizeof buffer, format, arguments);
  va_end(arguments);
  return buffer;
}

[[noreturn]] inline void fail(const char* file, int line, const char* what, const std::string& message) {
  const std::string path = file;
  throw Failure{path.substr(path.find_last_of('/') + 1) + ":" + std::to_string(line) + ": " + what + ": " + message};
}

}  // namespace implex::test

#define TEST(name)                                                        \
  static void name();                                                     \
  static const ::implex::test::Register register_##name##_(#name, &name); \
  static void name()

#define CHECK(condition, ...)                                                                                  \
  do {                                                                                                         \
    if (!(condition)) ::implex::test::fail(__FILE__, __LINE__, #condition, ::implex::test::text(__VA_ARGS__)); \
  } while (false)

#define SKIP(reason) \
  throw ::implex::test::Skipped { reason }

// `expression` must throw Error(code) whose message contains `part`. Needs core/error.h.
#define CHECK_ERROR(expected, expression, part)                                                                      \
  do {                                                                                                               \
    std::string outcome_ = "nothing was thrown";                                                                     \
    try {                                                                                                            \
      (void)(expression);                                                                                            \
    } catch (const ::implex::Error& error_) {                                                                        \
      outcome_ = std::string(::implex::error_code_name(error_.code())) + ": " + error_.what();                       \
      if (error_.code() == (expected) && outcome_.find(part) != std::string::npos) outcome_.clear();                 \
    }                                                                                                                \
    if (!outcome_.empty())                                                                                           \
      ::implex::test::fail(                                                                                          \
          __FILE__, __LINE__, #expression,                                                                           \
          std::string("want ") + ::implex::error_code_name(expected) + " with \"" + (part) + "\", got " + outcome_); \
  } while (false)
