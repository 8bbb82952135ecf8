#pragma once
// A block of threads on the emulated GPU, one fiber a thread: warps and lanes run in random order
// between synchronisations, and shared memory begins as NaN.

#include <ucontext.h>

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <exception>
#include <functional>
#include <map>
#include <memory>
#include <random>
#include <stdexcept>
#include <type_traits>
#include <vector>

namespace instinfer::test {

class emulated_block {
 public:
  // `ctas` of a cluster: all of them run at the same time.
  emulated_block(std::uint32_t threads, std::size_t shared_bytes, unsigned seed,
                 std::uint32_t ctas = 1)
      : random_(seed),
        threads_{threads},
        ctas_{ctas},
        fibers_(threads * ctas),
        warps_(threads * ctas / 32),
        arrivals_(ctas + 1) {
    // 128-byte aligned, as a kernel declares it.
    shared_bytes_ = (shared_bytes + 127) / 128 * 128;
    storage_.assign(shared_bytes_ * ctas + 128, std::byte{0xFF});
    const auto at = reinterpret_cast<std::uintptr_t>(storage_.data());
    shared_ = storage_.data() + (128 - at % 128) % 128;
  }

  // Runs body(thread) on every thread to its end.
  void run(const std::function<void(std::uint32_t)>& body) {
    body_ = &body;
    std::vector<std::uint32_t> order;
    for (std::uint32_t t = 0; t < fibers_.size(); ++t) {
      fiber& f = fibers_[t];
      f.stack = std::make_unique_for_overwrite<char[]>(stack_bytes);
      getcontext(&f.context);
      f.context.uc_stack.ss_sp = f.stack.get();
      f.context.uc_stack.ss_size = stack_bytes;
      f.context.uc_link = &scheduler_;
      const auto self = reinterpret_cast<std::uintptr_t>(this);
      makecontext(&f.context, reinterpret_cast<void (*)()>(&emulated_block::enter), 3,
                  static_cast<unsigned>(self >> 32), static_cast<unsigned>(self), t);
      order.push_back(t);
    }
    live_ = static_cast<std::uint32_t>(fibers_.size());
    // A round visits warps in random order, each warp's lanes from a random one on.
    std::vector<std::uint32_t> warps(warps_.size());
    for (std::uint32_t w = 0; w < warps.size(); ++w) {
      warps[w] = w;
    }
    while (live_ > 0) {
      bool moved = false;
      std::shuffle(warps.begin(), warps.end(), random_);
      for (const std::uint32_t w : warps) {
        // A warp may run through several of its own synchronisations before the next one gets its
        // turn.
        for (std::uint32_t turn = random_() % 4; turn < 4; ++turn) {
          const std::uint32_t first = random_() % 32;
          for (std::uint32_t l = 0; l < 32; ++l) {
            moved |= resume(w * 32 + (first + l) % 32);
          }
        }
      }
      if (!moved && failure_) {
        std::rethrow_exception(failure_);
      }
      if (!moved) {
        throw std::runtime_error("emulated GPU: all threads wait for something that cannot come");
      }
    }
    if (failure_) {
      std::rethrow_exception(failure_);
    }
  }

  std::uint32_t threads() const { return threads_; }
  std::uint32_t ctas() const { return ctas_; }
  std::byte* shared(std::uint32_t cta) { return shared_ + cta * shared_bytes_; }
  std::size_t shared_bytes() const { return shared_bytes_; }

  // Waits for the other lanes of the warp; every lane then sees what all gave. `size` bytes each.
  template <class T>
  std::array<T, 32> exchange(std::uint32_t thread, const T& mine) {
    static_assert(sizeof(T) <= slot_bytes && std::is_trivially_copyable_v<T>);
    warp& w = warps_[thread / 32];
    const std::uint64_t turn = w.turn;
    auto& slots = w.slots[turn % 2];
    std::memcpy(slots[thread % 32].data(), &mine, sizeof(T));
    if (++w.arrived == 32) {
      w.arrived = 0;
      ++w.turn;
    } else {
      wait([&] { return w.turn != turn; });
    }
    std::array<T, 32> all;
    for (std::size_t l = 0; l < 32; ++l) {
      std::memcpy(&all[l], slots[l].data(), sizeof(T));
    }
    return all;
  }

  // Transaction barriers of one arrival a phase, by their addresses. What is copied to them lands
  // when somebody waits, not before.
  void init_barrier(const std::byte* at) { barriers_[at] = {}; }
  void arrive_expecting(const std::byte* at, std::uint64_t bytes) {
    barrier& b = barriers_.at(at);
    if (b.arrived) {
      throw std::runtime_error("emulated GPU: an arrival too many in a barrier's phase");
    }
    b.arrived = true;
    b.expected = bytes;
  }
  void copy_bulk(std::byte* to, const void* from, std::size_t bytes, const std::byte* at) {
    std::memset(to, 0xFF, bytes);
    barriers_.at(at).copies.push_back({to, from, bytes});
  }
  void wait_barrier(const std::byte* at, std::uint32_t parity) {
    const auto passed = [this, at, parity] {
      barrier& b = barriers_.at(at);
      std::uint64_t bytes = 0;
      for (const bulk_copy& c : b.copies) {
        bytes += c.bytes;
      }
      if (b.phase % 2 == parity && b.arrived && bytes == b.expected) {
        for (const bulk_copy& c : b.copies) {
          std::memcpy(c.to, c.from, c.bytes);
        }
        b = {.phase = b.phase + 1};
      }
      return b.phase % 2 != parity;
    };
    if (!passed()) {
      wait(passed);
    }
  }

  void sync(std::uint32_t cta) { arrive(arrivals_[cta], threads_); }
  void sync_cluster() { arrive(arrivals_[ctas_], threads_ * ctas_); }

 private:
  static constexpr std::size_t slot_bytes = 64;
  static constexpr std::size_t stack_bytes = std::size_t{256} << 10;

  struct fiber {
    ucontext_t context;
    std::unique_ptr<char[]> stack;
    std::function<bool()> ready;
    bool done = false;
  };
  struct warp {
    std::array<std::array<std::array<std::byte, slot_bytes>, 32>, 2> slots;
    std::uint32_t arrived = 0;
    std::uint64_t turn = 0;
  };

  struct arrival {
    std::uint32_t arrived = 0;
    std::uint64_t turn = 0;
  };
  void arrive(arrival& at, std::uint32_t all) {
    const std::uint64_t turn = at.turn;
    if (++at.arrived == all) {
      at.arrived = 0;
      ++at.turn;
    } else {
      wait([&at, turn] { return at.turn != turn; });
    }
  }

  struct bulk_copy {
    std::byte* to;
    const void* from;
    std::size_t bytes;
  };
  struct barrier {
    std::uint32_t phase = 0;
    bool arrived = false;
    std::uint64_t expected = 0;
    std::vector<bulk_copy> copies = {};
  };

  static void enter(unsigned high, unsigned low, std::uint32_t thread) {
    auto* self = reinterpret_cast<emulated_block*>(std::uintptr_t{high} << 32 | low);
    try {
      (*self->body_)(thread);
    } catch (...) {
      self->failure_ = std::current_exception();
    }
    self->fibers_[thread].done = true;
    --self->live_;
  }

  bool resume(std::uint32_t thread) {
    fiber& f = fibers_[thread];
    if (f.done || (f.ready && !f.ready())) {
      return false;
    }
    f.ready = nullptr;
    running_ = thread;
    swapcontext(&scheduler_, &f.context);
    return true;
  }

  template <class Ready>
  void wait(Ready ready) {
    fiber& f = fibers_[running_];
    f.ready = ready;
    swapcontext(&f.context, &scheduler_);
  }

  std::mt19937 random_;
  std::uint32_t threads_;
  std::uint32_t ctas_;
  std::vector<std::byte> storage_;
  std::byte* shared_ = nullptr;
  std::size_t shared_bytes_ = 0;
  std::vector<fiber> fibers_;
  std::vector<warp> warps_;
  std::vector<arrival> arrivals_;  // of each CTA, then of all
  std::map<const std::byte*, barrier> barriers_;
  ucontext_t scheduler_{};
  const std::function<void(std::uint32_t)>* body_ = nullptr;
  std::uint32_t running_ = 0;
  std::uint32_t live_ = 0;
  std::exception_ptr failure_;
};

}  // namespace instinfer::test
