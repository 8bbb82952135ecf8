#pragma once
// Requests by io_uring, through the kernel's own interface: no library is needed to build it.

#include <linux/io_uring.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/uio.h>

#include <algorithm>
#include <atomic>
#include <cstring>
#include <deque>
#include <memory>
#include <span>

#include "instinfer/drive/errors.hpp"
#include "instinfer/drive/io_queue.hpp"

namespace instinfer::drive {

// io_uring(7) has the protocol of the two rings that are shared with the kernel.
class io_ring : public io_queue {
 public:
  // Requests that the kernel has at a time. 256 of 4 KiB are 1 MiB: a drive of 7 GB/s that answers
  // after 100 us needs 0.7 MB.
  static constexpr unsigned depth = 256;

  // None where the system forbids or lacks io_uring. `buffer` is registered if the system allows
  // it, so that the kernel need not look up its memory for each request.
  static std::unique_ptr<io_ring> make(system_calls& calls, std::span<std::byte> buffer) {
    if (!calls.may_use_ring()) {
      return nullptr;
    }
    std::unique_ptr<io_ring> ring(new io_ring(calls));
    return ring->set_up(buffer) ? std::move(ring) : nullptr;
  }
  io_ring(const io_ring&) = delete;
  io_ring& operator=(const io_ring&) = delete;
  ~io_ring() override {
    if (entries_ != MAP_FAILED) {
      ::munmap(entries_, entries_bytes_);
    }
    if (rings_ != MAP_FAILED) {
      ::munmap(rings_, rings_bytes_);
    }
    if (ring_ >= 0) {
      ::close(ring_);
    }
  }

  bool registered() const { return !buffer_.empty(); }

  void start(io_request& request) override {
    waiting_.push_back(&request);
    ++under_way_;
  }
  void submit() override {
    unsigned tail = *submitted_tail_;  // only this side writes it
    unsigned added = 0;
    for (; in_kernel_ < depth && !waiting_.empty(); ++added) {
      io_request& request = *waiting_.front();
      waiting_.pop_front();
      const unsigned at = tail & submitted_mask_;
      io_uring_sqe& entry = static_cast<io_uring_sqe*>(entries_)[at];
      std::memset(&entry, 0, sizeof(entry));
      const bool fixed = !buffer_.empty() && request.data >= buffer_.data() &&
                         request.data + request.bytes <= buffer_.data() + buffer_.size();
      entry.opcode = request.write ? (fixed ? IORING_OP_WRITE_FIXED : IORING_OP_WRITE)
                                   : (fixed ? IORING_OP_READ_FIXED : IORING_OP_READ);
      entry.fd = request.file;
      entry.off = request.offset + request.done;
      entry.addr = reinterpret_cast<std::uintptr_t>(request.data + request.done);
      entry.len = static_cast<unsigned>(request.bytes - request.done);
      entry.user_data = reinterpret_cast<std::uintptr_t>(&request);
      submitted_[at] = at;
      ++tail;
      ++in_kernel_;
    }
    shared(*submitted_tail_).store(tail, std::memory_order_release);
    to_enter_ += added;
    if (to_enter_ > 0) {
      enter(to_enter_, 0);
    }
  }
  void wait() override {
    if (under_way_ == 0) {
      return;
    }
    std::size_t finished = reap();
    while (finished == 0) {
      submit();
      enter(0, 1);
      finished = reap();
    }
    submit();
  }
  std::size_t under_way() const override { return under_way_; }

 private:
  using shared = std::atomic_ref<unsigned>;

  explicit io_ring(system_calls& calls) : io_queue{calls} {}

  bool set_up(std::span<std::byte> buffer) {
    io_uring_params parameters{};
    ring_ = static_cast<int>(::syscall(__NR_io_uring_setup, depth, &parameters));
    if (ring_ < 0 || (parameters.features & IORING_FEAT_SINGLE_MMAP) == 0) {  // Linux before 5.4
      return false;
    }
    rings_bytes_ = std::max<std::size_t>(
        parameters.sq_off.array + parameters.sq_entries * sizeof(unsigned),
        parameters.cq_off.cqes + parameters.cq_entries * sizeof(io_uring_cqe));
    rings_ = ::mmap(nullptr, rings_bytes_, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, ring_,
                    IORING_OFF_SQ_RING);
    entries_bytes_ = parameters.sq_entries * sizeof(io_uring_sqe);
    entries_ = ::mmap(nullptr, entries_bytes_, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE,
                      ring_, IORING_OFF_SQES);
    if (rings_ == MAP_FAILED || entries_ == MAP_FAILED) {
      return false;
    }
    const auto at = [&](unsigned offset) {
      return reinterpret_cast<unsigned*>(static_cast<std::byte*>(rings_) + offset);
    };
    submitted_tail_ = at(parameters.sq_off.tail);
    submitted_mask_ = *at(parameters.sq_off.ring_mask);
    submitted_ = at(parameters.sq_off.array);
    completed_head_ = at(parameters.cq_off.head);
    completed_tail_ = at(parameters.cq_off.tail);
    completed_mask_ = *at(parameters.cq_off.ring_mask);
    completed_ = reinterpret_cast<const io_uring_cqe*>(at(parameters.cq_off.cqes));
    iovec all{buffer.data(), buffer.size()};
    if (::syscall(__NR_io_uring_register, ring_, IORING_REGISTER_BUFFERS, &all, 1) == 0) {
      buffer_ = buffer;
    }
    return true;
  }

  // Refused for a moment, it leaves the requests for the next call.
  void enter(unsigned submit, unsigned complete) {
    const long taken = ::syscall(__NR_io_uring_enter, ring_, submit, complete,
                                 complete > 0 ? IORING_ENTER_GETEVENTS : 0u, nullptr, 0);
    if (taken >= 0) {
      to_enter_ -= std::min(to_enter_, static_cast<unsigned>(taken));
    } else if (errno != EINTR && errno != EAGAIN && errno != EBUSY) {
      throw io_error("drive: io_uring_enter failed: " + reason(errno), errno);
    }
  }

  // Takes what the kernel has completed. Returns the number of finished requests.
  std::size_t reap() {
    std::size_t finished = 0;
    unsigned head = *completed_head_;  // only this side writes it
    for (; head != shared(*completed_tail_).load(std::memory_order_acquire); ++head) {
      const io_uring_cqe& result = completed_[head & completed_mask_];
      io_request& request = *reinterpret_cast<io_request*>(result.user_data);
      --in_kernel_;
      if (take(request,
               calls_.completed(request.write, request.bytes - request.done, result.res))) {
        ++finished;
      } else {
        waiting_.push_back(&request);
      }
    }
    shared(*completed_head_).store(head, std::memory_order_release);
    under_way_ -= finished;
    return finished;
  }

  int ring_ = -1;
  void* rings_ = MAP_FAILED;
  void* entries_ = MAP_FAILED;
  std::size_t rings_bytes_ = 0;
  std::size_t entries_bytes_ = 0;
  unsigned* submitted_tail_ = nullptr;
  unsigned* submitted_ = nullptr;
  unsigned submitted_mask_ = 0;
  unsigned* completed_head_ = nullptr;
  unsigned* completed_tail_ = nullptr;
  unsigned completed_mask_ = 0;
  const io_uring_cqe* completed_ = nullptr;
  std::span<std::byte> buffer_;  // registered; empty if the system refused

  std::deque<io_request*> waiting_;
  std::size_t under_way_ = 0;
  unsigned in_kernel_ = 0;
  unsigned to_enter_ = 0;  // in the ring, but not yet taken by the kernel
};

}  // namespace instinfer::drive
