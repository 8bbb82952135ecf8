#pragma once
// How far to read ahead of the kernel: as few bytes as keep the drive at its rate.

#include <array>
#include <cstddef>

namespace instinfer::drive {

// A ladder of 2, 4, 8, 16 and 32 MiB. 2 MiB are what a drive of 10 GB/s gives in 0.2 ms, and more
// than one that answers after 100 us needs; 32 MiB keep a busy machine's drive at work while other
// programs have the processor for 15 ms. The rate at each step is learned from operations in which
// the kernel waited, so the drive set the pace:
// - up, if the next step is unknown or gave 5 % more;
// - down, if the step below gave as much, within 2 %.
// Every 64 operations the next step is forgotten and tried again, since loads change.
class read_depth {
 public:
  std::size_t bytes() const { return std::size_t{2} << 20 << step_; }

  // An operation read so many bytes in so many seconds. Those that are too short to fill what is
  // read ahead, and those in which the kernel never waited, teach nothing.
  void learn(std::size_t read, double seconds, bool waited) {
    if (!waited || seconds <= 0 || read < 2 * bytes()) {
      return;
    }
    double& known = rates_[step_];
    const double rate = static_cast<double>(read) / seconds;
    known = known > 0 ? known + (rate - known) / 4 : rate;
    if (++operations_ % 64 == 0 && step_ < last) {
      rates_[step_ + 1] = 0;
    }
    if (step_ < last && (rates_[step_ + 1] <= 0 || rates_[step_ + 1] > 1.05 * known)) {
      ++step_;
    } else if (step_ > 0 && rates_[step_ - 1] > 0.98 * known) {
      --step_;
    }
  }

 private:
  static constexpr std::size_t last = 4;
  std::size_t step_ = 1;
  unsigned operations_ = 0;
  std::array<double, last + 1> rates_{};  // bytes a second; 0: not known
};

}  // namespace instinfer::drive
