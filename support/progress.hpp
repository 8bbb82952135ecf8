#pragma once
// A progress bar on standard error, where that is a terminal; nothing elsewhere.

#include <chrono>
#include <cstdio>
#include <string>

#include <unistd.h>

namespace instinfer::examples {

class progress {
 public:
  explicit progress(std::size_t total) : total_{total}, visible_{isatty(STDERR_FILENO) == 1} {}
  ~progress() {
    if (shown_) {
      std::fprintf(stderr, "\r\033[K");
    }
  }
  progress(const progress&) = delete;
  progress& operator=(const progress&) = delete;

  // At most ten times a second.
  void show(std::size_t done) {
    const auto now = clock::now();
    if (!visible_ || total_ == 0 || (shown_ && now - last_ < std::chrono::milliseconds(100))) {
      return;
    }
    last_ = now;
    shown_ = true;
    constexpr std::size_t width = 40;
    const std::size_t filled = width * done / total_;
    const double s = std::chrono::duration<double>(now - begin_).count();
    const double left_s =
        done > 0 ? s * static_cast<double>(total_ - done) / static_cast<double>(done) : 0;
    std::fprintf(stderr, "\r[%s%s] %zu of %zu points, %.0f s left \033[K",
                 std::string(filled, '#').c_str(), std::string(width - filled, ' ').c_str(), done,
                 total_, left_s);
  }

 private:
  using clock = std::chrono::steady_clock;
  std::size_t total_;
  bool visible_;
  bool shown_ = false;
  clock::time_point begin_ = clock::now();
  clock::time_point last_;
};

}  // namespace instinfer::examples
