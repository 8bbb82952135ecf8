#pragma once
// Pages on their way to a drive: collected until they make large requests, and written while the
// next ones are collected.

#include <cstdint>
#include <cstring>
#include <memory>
#include <new>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "instinfer/drive/channel_files.hpp"
#include "instinfer/drive/io_queue.hpp"
#include "instinfer/drive/page_records.hpp"

namespace instinfer::drive {

// The buffer has two halves: one is filled while the other is written, and both are on their way
// for a moment when they change. The pages of a channel lie
// side by side in a half, as they do in the channel's file, so they are one request.
//
// No write throws, because a cache could not go on from the middle of an append. A page that the
// drive refuses stays in memory and can be read; settle() reports it.
class staged_writes {
 public:
  // `buffer` has room for two pages or more.
  staged_writes(const channel_files& files, const page_records& records,
                std::span<std::byte> buffer, std::unique_ptr<io_queue> queue,
                std::uint32_t channels)
      : files_{files}, records_{records}, queue_{std::move(queue)} {
    const std::size_t pages = buffer.size() / 2 / records.page_bytes();
    channels_ = channels;
    regions_ = static_cast<std::uint32_t>(std::min<std::size_t>(channels, pages));
    region_pages_ = pages / regions_;
    std::byte* data = buffer.data();
    for (half& h : halves_) {
      h.data = std::exchange(data, data + pages * records.page_bytes());
      h.pages.assign(regions_ * region_pages_, no_page);
      h.sums.resize(h.pages.size());
      h.used.assign(regions_, 0);
      h.requests.resize(h.pages.size());
    }
  }
  staged_writes(const staged_writes&) = delete;
  staged_writes& operator=(const staged_writes&) = delete;
  // Waits for what is under way: the queue uses the requests and the buffer.
  ~staged_writes() {
    try {
      queue_->drain();
    } catch (const std::exception&) {  // the queue is of no more use
    }
  }

  // Where the caller writes the bytes of a page, before the next call of write, flush or settle.
  std::span<std::byte> write(page_id page) noexcept {
    sum_last();
    const std::uint32_t region = channel_of(page, channels_) % regions_;
    if (halves_[filled_].used[region] == region_pages_) {
      start(halves_[filled_]);  // before the wait, so that the drive always has work
      filled_ = 1 - filled_;
      finish(halves_[filled_]);
    }
    half& to = halves_[filled_];
    const std::size_t at = region * region_pages_ + to.used[region]++;
    to.pages[at] = page;
    last_ = at;
    staged_ = true;
    std::byte* bytes = to.data + at * records_.page_bytes();
    page_record& record = records_[page];
    record.sum = reinterpret_cast<std::uintptr_t>(bytes);
    ++record.generation;
    record.place = page_place::in_memory;
    return {bytes, records_.page_bytes()};
  }

  // Forgets a page.
  void release(page_id page) noexcept {
    page_record& record = records_[page];
    if (record.place == page_place::in_memory) {
      for (half& h : halves_) {
        const std::size_t at =
            static_cast<std::size_t>(record.address() - h.data) / records_.page_bytes();
        if (record.address() >= h.data && at < h.pages.size()) {
          h.pages[at] = no_page;
        }
      }
      std::erase_if(kept_, [&](const kept& k) { return k.page == page; });
    }
    record.place = page_place::nowhere;
  }

  // Writes all pages, and waits for them.
  void flush() noexcept {
    if (staged_) {
      sum_last();
      start(halves_[filled_]);
      finish(halves_[1 - filled_]);
      finish(halves_[filled_]);
      staged_ = false;
    }
  }

  // Tries again the pages that the drive has refused. Throws io_error if it refuses one again.
  void settle() {
    while (!kept_.empty()) {
      const kept& last = kept_.back();
      io_request request = request_of(last.page, last.bytes.get());
      queue_->start(request);
      queue_->wait_for(request);
      if (request.error != 0) {
        throw io_error("drive_files: writing " + files_.name_of(last.page) + " failed, " +
                           std::to_string(kept_.size()) +
                           " pages are kept in memory until it "
                           "succeeds: " +
                           reason(std::max(request.error, 0)),
                       std::max(request.error, 0));
      }
      on_drive(last.page, records_.sum_of(last.page, last.bytes.get()));
      kept_.pop_back();
    }
  }

  std::uint64_t kept_pages() const { return kept_.size(); }
  std::uint64_t written_pages() const { return written_; }

 private:
  struct half {
    std::byte* data = nullptr;
    std::vector<page_id> pages;       // [regions, region_pages]; no_page where one was released
    std::vector<std::uint64_t> sums;  // of the pages
    std::vector<std::size_t> used;    // [regions], pages
    std::vector<io_request> requests;
    std::size_t request_count = 0;
  };
  struct free_aligned {
    void operator()(std::byte* bytes) const { ::operator delete(bytes, alignment); }
  };
  static constexpr std::align_val_t alignment{4096};
  static constexpr std::size_t none = static_cast<std::size_t>(-1);
  struct kept {
    page_id page;
    std::unique_ptr<std::byte, free_aligned> bytes;
  };

  io_request request_of(page_id page, std::byte* bytes) const {
    io_request request;
    request.file = files_.file_of(page);
    request.write = true;
    request.offset = files_.offset_of(page);
    request.data = bytes;
    request.bytes = records_.page_bytes();
    return request;
  }

  // The checksum of the page that was written last, while the processor's cache still has it: half
  // the time of a sum that is taken when the half is full.
  void sum_last() noexcept {
    half& h = halves_[filled_];
    if (last_ != none && h.pages[last_] != no_page) {
      h.sums[last_] = records_.sum_of(h.pages[last_], h.data + last_ * records_.page_bytes());
    }
    last_ = none;
  }

  void start(half& h) noexcept {
    h.request_count = 0;
    for (std::size_t at = 0; at < h.pages.size(); ++at) {
      if (h.pages[at] == no_page) {
        continue;
      }
      std::byte* bytes = h.data + at * records_.page_bytes();
      const io_request next = request_of(h.pages[at], bytes);
      io_request* last = h.request_count > 0 ? &h.requests[h.request_count - 1] : nullptr;
      if (last != nullptr && last->file == next.file && last->offset + last->bytes == next.offset &&
          last->data + last->bytes == next.data) {
        last->bytes += next.bytes;
      } else {
        h.requests[h.request_count++] = next;
      }
    }
    for (std::size_t i = 0; i < h.request_count; ++i) {
      try {
        queue_->start(h.requests[i]);
      } catch (const std::exception&) {  // no memory for the queue
        h.requests[i].error = ENOMEM;
        h.requests[i].finished = true;
      }
    }
    try {
      queue_->submit();
    } catch (const std::exception&) {  // finish() finds the unfinished requests
    }
  }

  // Empties a half that was started.
  void finish(half& h) noexcept {
    try {
      for (std::size_t i = 0; i < h.request_count; ++i) {
        queue_->wait_for(h.requests[i]);
      }
    } catch (const std::exception&) {  // unfinished requests count as refused
    }
    for (std::size_t i = 0; i < h.request_count; ++i) {
      const io_request& request = h.requests[i];
      const bool written = request.finished && request.error == 0;
      for (std::size_t done = 0; done < request.bytes; done += records_.page_bytes()) {
        const std::size_t at =
            static_cast<std::size_t>(request.data + done - h.data) / records_.page_bytes();
        if (h.pages[at] == no_page) {  // released meanwhile
        } else if (written) {
          on_drive(h.pages[at], h.sums[at]);
          ++written_;
        } else {
          keep(h.pages[at], request.data + done);
        }
      }
    }
    h.request_count = 0;
    std::fill(h.pages.begin(), h.pages.end(), no_page);
    std::fill(h.used.begin(), h.used.end(), 0);
  }

  void on_drive(page_id page, std::uint64_t sum) const {
    records_[page].sum = sum;
    records_[page].place = page_place::on_drive;
  }
  void keep(page_id page, const std::byte* bytes) noexcept {
    try {
      kept copy{page, std::unique_ptr<std::byte, free_aligned>(static_cast<std::byte*>(
                          ::operator new(records_.page_bytes(), alignment)))};
      std::memcpy(copy.bytes.get(), bytes, records_.page_bytes());
      records_[page].sum = reinterpret_cast<std::uintptr_t>(copy.bytes.get());
      kept_.push_back(std::move(copy));
    } catch (const std::bad_alloc&) {
      records_[page].place = page_place::lost;
    }
  }

  const channel_files& files_;
  const page_records& records_;
  std::unique_ptr<io_queue> queue_;
  std::uint32_t channels_ = 1;
  std::uint32_t regions_ = 1;
  std::size_t region_pages_ = 1;
  half halves_[2];
  std::size_t filled_ = 0;   // the half that is being filled
  std::size_t last_ = none;  // the page of it that was written last, until it is summed
  bool staged_ = false;      // something is in the halves
  std::vector<kept> kept_;
  std::uint64_t written_ = 0;
};

}  // namespace instinfer::drive
