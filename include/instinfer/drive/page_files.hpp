#pragma once
// The parts of a store on a real drive: files, checksums, writes, and readers for several threads.

#include <sys/random.h>

#include <algorithm>
#include <array>
#include <condition_variable>
#include <map>
#include <memory>
#include <mutex>
#include <span>
#include <thread>
#include <vector>

#include "instinfer/drive/drive_options.hpp"
#include "instinfer/drive/io_pool.hpp"
#include "instinfer/drive/io_ring.hpp"
#include "instinfer/drive/read_window.hpp"
#include "instinfer/drive/staged_writes.hpp"
#include "instinfer/store/ledger.hpp"

namespace instinfer::drive {

class page_files {
 public:
  page_files(const options& wanted, std::uint32_t channels, std::uint64_t pages_per_channel,
             std::uint32_t page_bytes)
      : calls_{wanted.calls != nullptr ? *wanted.calls : own_calls_},
        ledger_{channels, pages_per_channel, page_bytes},
        files_{calls_, wanted.folders, channels, pages_per_channel, page_bytes, wanted.direct},
        records_{drawn_number(), ledger_.capacity_pages(), page_bytes},
        buffer_{wanted.buffer_bytes},
        alone_{calls_} {
    const unsigned cores = std::max(std::thread::hardware_concurrency(), 1u);
    mode_.readers = wanted.readers > 0 ? wanted.readers : std::min(2 * cores, 8u);
    // A sixteenth is for writes: 2 times 2 MiB of 64 MiB.
    const std::size_t write_bytes =
        std::max(wanted.buffer_bytes / 16, std::size_t{2} * page_bytes) / page_bytes * page_bytes;
    const std::size_t read_bytes =
        wanted.buffer_bytes <= write_bytes
            ? 0
            : (wanted.buffer_bytes - write_bytes) / mode_.readers / page_bytes * page_bytes;
    require(read_bytes > 0, [&] {
      return "drive_files: buffer_bytes = " + std::to_string(wanted.buffer_bytes) +
             " has no room for a page of " + std::to_string(page_bytes) + " bytes of each of " +
             std::to_string(mode_.readers) + " readers and two that are written";
    });
    std::span<std::byte> left(buffer_.data(), wanted.buffer_bytes);
    const auto take = [&](std::size_t bytes) {
      const std::span<std::byte> part = left.first(bytes);
      left = left.subspan(bytes);
      return part;
    };
    mode_.direct = files_.direct();
    mode_.reserved = files_.reserved();
    mode_.ring = wanted.ring;
    mode_.registered = true;
    const std::span<std::byte> to_write = take(write_bytes);
    writes_ = std::make_unique<staged_writes>(files_, records_, to_write,
                                              make_queue(to_write, wanted), channels);
    for (unsigned i = 0; i < mode_.readers; ++i) {
      const std::span<std::byte> part = take(read_bytes);
      readers_.push_back(std::make_unique<reader>(*this, part, make_queue(part, wanted), channels));
      idle_.push_back(readers_.back().get());
    }
    usable_readers_ = mode_.readers;
    mode_.registered = mode_.registered && mode_.ring;
  }
  page_files(const page_files&) = delete;
  page_files& operator=(const page_files&) = delete;

  store::ledger& ledger() { return ledger_; }
  const effective_mode& mode() const { return mode_; }

  std::span<std::byte> write(page_id page) {
    const std::lock_guard lock(mutex_);
    return writes_->write(page);
  }
  void release(page_id page) noexcept {
    const std::lock_guard lock(mutex_);
    writes_->release(page);
    ledger_.release(page);
  }
  void settle() {
    const std::lock_guard lock(mutex_);
    writes_->settle();
  }
  void flush() {
    const std::lock_guard lock(mutex_);
    writes_->flush();
  }

  // One page, for callers that have no plan. Each thread keeps its last pages.
  std::span<const std::byte> view(page_id page) {
    std::unique_lock lock(mutex_);
    const page_record& record = records_[page];
    if (record.place == page_place::in_memory) {
      return {record.address(), records_.page_bytes()};
    }
    if (record.place != page_place::on_drive) {
      records_.throw_damaged(page, files_);
    }
    recent_pages& recent = recent_[std::this_thread::get_id()];
    lock.unlock();
    return recent.get(page, *this);
  }

  // The reads of a plan, by the next reader that is free.
  layout::planned_reads* open(const access_plan& plan, const layout::read_order& order) {
    reader* free = nullptr;
    {
      std::unique_lock lock(mutex_);
      writes_->flush();
      given_back_.wait(lock, [&] { return !idle_.empty() || usable_readers_ == 0; });
      if (idle_.empty()) {
        throw io_error("drive_files: no reader is left, the system has lost requests of all", EIO);
      }
      free = idle_.back();
      idle_.pop_back();
    }
    try {
      free->window.open(plan, order);
    } catch (...) {
      free->close();
      throw;
    }
    return free;
  }

  std::uint64_t bytes_read() const {
    const std::lock_guard lock(mutex_);
    return bytes_read_;
  }
  std::uint64_t pages_written() const {
    const std::lock_guard lock(mutex_);
    return writes_->written_pages();
  }
  std::uint64_t kept_pages() const {
    const std::lock_guard lock(mutex_);
    return writes_->kept_pages();
  }

 private:
  struct reader final : layout::planned_reads {
    reader(page_files& of_, std::span<std::byte> buffer, std::unique_ptr<io_queue> queue,
           std::uint32_t channels)
        : of{of_}, window{of_.files_, of_.records_, buffer, std::move(queue), channels} {}
    const std::byte* at(const page_read& read) override { return window.at(read); }
    void close() noexcept override {
      const bool usable = window.close();
      {
        const std::lock_guard lock(of.mutex_);
        of.bytes_read_ += window.bytes_read();
        if (usable) {
          of.idle_.push_back(this);  // has room: all readers were in it
        } else {
          --of.usable_readers_;
        }
      }
      of.given_back_.notify_all();
    }

    page_files& of;
    read_window window;
  };

  class recent_pages {
   public:
    std::span<const std::byte> get(page_id page, page_files& from) {
      const std::size_t bytes = from.records_.page_bytes();
      const std::uint32_t generation = from.records_[page].generation;
      for (std::size_t i = 0; i < slots_.size(); ++i) {
        if (slots_[i].page == page && slots_[i].generation == generation) {
          return {memory_.data() + i * bytes, bytes};
        }
      }
      if (memory_.data() == nullptr) {
        memory_ = store::reserved_memory(slots_.size() * bytes);
      }
      const std::size_t i = next_++ % slots_.size();
      slots_[i].page = no_page;  // until it is read and checked
      io_request request;
      request.file = from.files_.file_of(page);
      request.offset = from.files_.offset_of(page);
      request.data = memory_.data() + i * bytes;
      request.bytes = bytes;
      from.alone_.start(request);
      if (request.error != 0) {
        throw io_error("drive_files: reading " + from.files_.name_of(page) +
                           " failed: " + reason(std::max(request.error, 0)),
                       std::max(request.error, 0));
      }
      from.records_.check(page, request.data, from.files_);
      slots_[i] = {page, generation};
      {
        const std::lock_guard lock(from.mutex_);
        from.bytes_read_ += bytes;
      }
      return {request.data, bytes};
    }

   private:
    struct slot {
      page_id page = no_page;
      std::uint32_t generation = 0;
    };
    std::array<slot, 8> slots_;
    std::size_t next_ = 0;
    store::reserved_memory memory_;  // [8, page_bytes]
  };

  std::unique_ptr<io_queue> make_queue(std::span<std::byte> buffer, const options& wanted) {
    if (mode_.ring) {
      if (std::unique_ptr<io_ring> ring = io_ring::make(calls_, buffer)) {
        mode_.registered = mode_.registered && ring->registered();
        return ring;
      }
      mode_.ring = false;  // refused before the first queue, or by a limit after some
    }
    if (pool_ == nullptr && wanted.threads > 0) {
      pool_ = std::make_unique<io_pool>(wanted.threads);
      mode_.threads = wanted.threads;
    }
    if (pool_ == nullptr) {
      return std::make_unique<io_in_turn>(calls_);
    }
    return std::make_unique<io_pool::queue>(calls_, *pool_);
  }

  // Differs from store to store, unless the system has no random numbers.
  static std::uint64_t drawn_number() {
    std::uint64_t number = 0;
    (void)!::getrandom(&number, sizeof(number), 0);
    return number;
  }

  system_calls own_calls_;
  system_calls& calls_;
  store::ledger ledger_;
  channel_files files_;
  page_records records_;
  store::reserved_memory buffer_;
  io_in_turn alone_;  // without state
  effective_mode mode_;
  std::unique_ptr<io_pool> pool_;  // outlives the queues

  mutable std::mutex mutex_;
  std::condition_variable given_back_;
  std::unique_ptr<staged_writes> writes_;
  std::vector<std::unique_ptr<reader>> readers_;
  std::vector<reader*> idle_;
  unsigned usable_readers_ = 0;
  std::map<std::thread::id, recent_pages> recent_;
  std::uint64_t bytes_read_ = 0;
};

}  // namespace instinfer::drive
