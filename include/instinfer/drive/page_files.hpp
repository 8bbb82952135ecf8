#pragma once
// The parts of a store on a real drive: files, checksums, writes, and readers for several threads.

#include <algorithm>
#include <condition_variable>
#include <map>
#include <memory>
#include <mutex>
#include <span>
#include <thread>
#include <vector>

#include "instinfer/drive/commit_files.hpp"
#include "instinfer/drive/committed_pages.hpp"
#include "instinfer/drive/drive_options.hpp"
#include "instinfer/drive/io_pool.hpp"
#include "instinfer/drive/io_ring.hpp"
#include "instinfer/drive/read_window.hpp"
#include "instinfer/drive/recent_pages.hpp"
#include "instinfer/drive/staged_writes.hpp"
#include "instinfer/store/pages/ledger.hpp"

namespace instinfer::drive {

class page_files {
 public:
  page_files(const options& wanted, std::uint32_t channels, std::uint64_t pages_per_channel,
             std::uint32_t page_bytes)
      : calls_{wanted.calls != nullptr ? *wanted.calls : own_calls_},
        ledger_{channels, pages_per_channel, page_bytes},
        commits_{calls_,
                 wanted.folders,
                 wanted.name,
                 {pages_per_channel, channels, static_cast<std::uint32_t>(wanted.folders.size()),
                  page_bytes}},
        files_{calls_,   wanted.folders,    wanted.name, commits_.commits() == 0,
               channels, pages_per_channel, page_bytes,  wanted.direct},
        records_{commits_.store(), ledger_.capacity_pages(), page_bytes},
        committed_{ledger_, records_},
        name_{wanted.name},
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
    if (commits_.commits() > 0) {
      state_ = std::make_unique<state_reader>(commits_.reader());
      committed_.read(*state_, wanted.name);
    }
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
    if (!committed_.hold(page)) {
      ledger_.release(page);
    }
  }
  void settle() {
    const std::lock_guard lock(mutex_);
    writes_->settle();
  }
  void flush() {
    const std::lock_guard lock(mutex_);
    writes_->flush();
  }

  bool lasts() const { return commits_.lasts(); }
  const std::string& name() const { return name_; }
  std::uint64_t commits() const { return commits_.commits(); }
  std::uint64_t state_bytes() const { return commits_.state_bytes(); }
  std::uint64_t held_pages() const { return committed_.held_pages(); }
  bool holds(page_id page) const { return records_[page].place == page_place::on_drive; }
  bool to_reopen() const { return state_ != nullptr; }

  // Calls content(out) with the stream of the new commit's state.
  template <class Content>
  void commit(Content&& content) {
    const std::lock_guard lock(mutex_);
    require(lasts(), [] {
      return std::string(
          "commit: the drive has no name and goes with its store, see drive::options::name");
    });
    writes_->flush();
    writes_->settle();
    committed_.require_none_lost(files_);
    sync_pages();
    // From here on the drive may have the commit, whatever this call can tell of it.
    committed_.add_all();
    commits_.write([&](state_writer& out) {
      committed_.write(out);
      content(out);
    });
    committed_.free_held();
    state_.reset();
  }

  // Calls content(in) with what the newest commit's content wrote.
  template <class Content>
  void reopen(Content&& content) {
    require(to_reopen(), [] { return std::string("reopen: the drive has nothing to reopen"); });
    content(*state_);
    state_.reset();
  }
  // Throws bad_argument while a commit waits to be reopened: a write could not be told from it.
  void require_reopened() const {
    require(!to_reopen(), [&] {
      return "drive_files: " + name_ + " holds commit " + std::to_string(commits()) +
             ", which nothing has reopened; an engine of the same kind does";
    });
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
    bool read = false;
    const std::span<const std::byte> bytes = recent.get(page, records_, files_, alone_, read);
    if (read) {
      lock.lock();
      bytes_read_ += bytes.size();
    }
    return bytes;
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

  // A sync that failed may have dropped pages, and the next one would not tell: so there is none.
  void sync_pages() {
    if (sync_failed_) {
      throw io_error(
          "commit: a sync of the pages has failed, so some of them may be lost; the commit before "
          "stays. Save the sequences (engine.save), or open the drive again",
          EIO);
    }
    sync_failed_ = true;
    files_.sync();
    sync_failed_ = false;
  }

  system_calls own_calls_;
  system_calls& calls_;
  store::ledger ledger_;
  commit_files commits_;  // before the pages: it has the lock, and the drive's number
  channel_files files_;
  page_records records_;
  committed_pages committed_;
  std::string name_;
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

  std::unique_ptr<state_reader> state_;  // of a commit that waits to be reopened
  bool sync_failed_ = false;
};

}  // namespace instinfer::drive
