#pragma once
// How every program runs and writes: a result that cannot be written to its last byte is a failure,
// told in a sentence.

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <exception>
#include <filesystem>
#include <fstream>
#include <new>
#include <string>

#include "instinfer/core/errors.hpp"

namespace instinfer::program {

// Throws bad_file unless everything printed so far has left the program. Text waits in a buffer, so
// that a full disk shows only here.
inline void flush_output() {
  errno = 0;
  const bool flushed = std::fflush(stdout) == 0 && std::ferror(stdout) == 0;
  require<bad_file>(flushed, [] {
    const std::string why = errno != 0 ? std::string(": ") + std::strerror(errno) : std::string();
    return "standard output cannot be written" + why;
  });
}

// Runs `body`, which returns the exit status, and prints an exception's sentence to standard error;
// the status is then `on_error`.
template <class Body>
int run(const char* name, Body&& body, int on_error = 1) {
  try {
    const int status = body();
    flush_output();
    return status;
  } catch (const std::bad_alloc&) {
    std::fprintf(stderr, "%s: memory does not suffice for a request of this size\n", name);
    return on_error;
  } catch (const std::exception& e) {
    std::fprintf(stderr, "%s: %s\n", name, e.what());
    return on_error;
  }
}

// Throws bad_file if the file cannot be opened for writing; called before long work. Leaves a file
// as it is, and none where there was none.
inline void check_writable(const std::filesystem::path& path) {
  std::error_code unknown;
  const bool existed = std::filesystem::exists(path, unknown);
  const bool opened = std::ofstream(path, std::ios::binary | std::ios::app).is_open();
  require<bad_file>(opened, [&] { return path.string() + ": cannot be written"; });
  if (!existed) {
    std::filesystem::remove(path, unknown);
  }
}

// Throws bad_file, which names the file.
inline void write_file(const std::filesystem::path& path, const std::string& text) {
  std::ofstream out(path, std::ios::binary);
  out << text;
  out.close();  // sets failbit where the last bytes do not arrive
  require<bad_file>(out.good(), [&] { return path.string() + ": cannot be written"; });
}

}  // namespace instinfer::program
