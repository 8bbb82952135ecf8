#pragma once
// The pages of one operation's plan, read ahead of the kernel that uses them.

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "instinfer/drive/channel_files.hpp"
#include "instinfer/drive/io_queue.hpp"
#include "instinfer/drive/page_records.hpp"
#include "instinfer/drive/read_depth.hpp"
#include "instinfer/layout/page_reader.hpp"

namespace instinfer::drive {

// The reads of a plan are cut into groups of consecutive ones. A group takes a fixed part of the
// buffer, in which its pages lie in the order of the drive: neighbours in a file are neighbours in
// memory, and one request. When the kernel has finished with a group, its part is used for the next
// group that is not under way yet.
//
// The kernel reads pages in the buffer that the drive has filled. It gets no page whose checksum is
// wrong.
class read_window {
 public:
  read_window(const channel_files& files, const page_records& records, std::span<std::byte> buffer,
              std::unique_ptr<io_queue> queue, std::uint32_t channels)
      : files_{files},
        records_{records},
        buffer_{buffer},
        queue_{std::move(queue)},
        channels_{channels},
        slots_(buffer.size() / records.page_bytes()),
        requests_(slots_.size()) {}
  read_window(const read_window&) = delete;
  read_window& operator=(const read_window&) = delete;
  ~read_window() { (void)close(); }

  // Starts to read. Throws bad_argument if the kernel uses more pages at once than fit.
  void open(const access_plan& plan, const layout::read_order& order) {
    reads_ = plan.reads().subspan(order.first, order.last - order.first);
    numbers_.assign(reads_.size(), not_read);
    pages_.clear();
    for (std::size_t i = 0; i < reads_.size(); ++i) {
      if (reads_[i].page == no_page || !order.has(reads_[i].kind)) {
        continue;
      }
      if (pages_.empty() || reads_[i].page != pages_.back()) {  // V may be in the page of its K
        pages_.push_back(reads_[i].page);
      }
      numbers_[i] = static_cast<std::uint32_t>(pages_.size() - 1);
    }
    in_use_ = std::min(std::max<std::size_t>(order.in_use, 1), pages_.size());
    choose_groups();
    asked_ = 0;
    started_ = 0;
    bytes_read_ = 0;
    waited_ = false;
    opened_ = clock::now();
    start_groups();
  }

  const std::byte* at(const page_read& read) {
    const std::size_t n = numbers_[static_cast<std::size_t>(&read - reads_.data())];
    require<error>(n < pages_.size(), [] {
      return std::string("drive_files: a read was asked for that was not announced");
    });
    if (n >= asked_) {
      asked_ = n + 1;
      start_groups();
    }
    slot& s = slots_[n % (groups_ * group_pages_)];
    require<error>(s.number == n && n / group_pages_ < started_, [&] {
      return "drive_files: read " + std::to_string(n) + " of a plan was asked for after read " +
             std::to_string(asked_ - 1) + ", but only " + std::to_string(in_use_) + " are kept";
    });
    if (!s.checked) {
      if (s.request != nullptr) {
        waited_ = waited_ || (!s.request->finished && n >= in_use_ + group_pages_);
        queue_->wait_for(*s.request);
        if (const int code = s.request->error; code != 0) {
          throw io_error("drive_files: reading " + files_.name_of(read.page) +
                             " failed: " + reason(std::max(code, 0)),
                         std::max(code, 0));
        }
        records_.check(read.page, s.data, files_);
      } else if (s.data == nullptr) {
        records_.throw_damaged(read.page, files_);
      }
      s.checked = true;
    }
    return s.data;
  }

  // Waits for what is under way. Returns whether the buffer may be used again.
  bool close() noexcept {
    try {
      const bool whole = asked_ >= pages_.size();
      depth_.learn(whole ? bytes_read_ : 0,
                   std::chrono::duration<double>(clock::now() - opened_).count(), waited_);
      queue_->drain();
    } catch (const std::exception&) {
      return false;
    }
    return true;
  }

  std::uint64_t bytes_read() const { return bytes_read_; }  // since open()

 private:
  struct slot {
    std::size_t number = 0;  // of the read
    const std::byte* data = nullptr;
    io_request* request = nullptr;  // none if the page is still in memory, or lost
    bool checked = false;
  };

  // Pages are read in groups of so many bytes, to have neighbours to merge. 2 MiB of 8 channels are
  // 16 runs of 128 KiB where K and V were appended together.
  static constexpr std::size_t group_bytes = std::size_t{2} << 20;
  static constexpr std::size_t most_group_pages = 512;
  using clock = std::chrono::steady_clock;
  static constexpr std::size_t most_request_bytes = std::size_t{512} << 10;

  static constexpr std::uint32_t not_read = 0xFFFF'FFFFu;

  void choose_groups() {
    const std::size_t page = records_.page_bytes();
    group_pages_ = std::clamp<std::size_t>(group_bytes / page, 1, most_group_pages);
    while (group_pages_ > 1 && slots_.size() < in_use_ + 3 * group_pages_) {
      group_pages_ /= 2;
    }
    const std::size_t wanted = in_use_ + std::max<std::size_t>(depth_.bytes() / page, 32);
    groups_ = std::min(slots_.size() / group_pages_, wanted / group_pages_ + 2);
    const std::size_t room = groups_ * group_pages_;
    require(room + 1 >= in_use_ + group_pages_ || room >= pages_.size(), [&] {
      return "drive_files: an operation uses " + std::to_string(in_use_) + " pages of " +
             std::to_string(page) + " bytes at a time, a reader has room for " +
             std::to_string(slots_.size()) + "; raise buffer_bytes, or take fewer readers";
    });
  }

  // Starts each group whose part of the buffer is free.
  void start_groups() {
    const std::size_t all = (pages_.size() + group_pages_ - 1) / group_pages_;
    const std::size_t before = started_;
    while (started_ < all &&
           (started_ < groups_ || (started_ - groups_ + 1) * group_pages_ + in_use_ <= asked_)) {
      start_group(started_++);
    }
    if (started_ > before) {
      queue_->submit();
    }
  }

  void start_group(std::size_t group) {
    const std::size_t first = group * group_pages_;
    const std::size_t count = std::min(group_pages_, pages_.size() - first);
    const std::size_t part = group % groups_ * group_pages_;  // of slots, requests and the buffer
    sorted_.clear();
    for (std::size_t n = first; n < first + count; ++n) {
      sorted_.push_back(n);
    }
    std::sort(sorted_.begin(), sorted_.end(), [&](std::size_t a, std::size_t b) {
      const std::uint32_t a_channel = channel_of(pages_[a], channels_);
      const std::uint32_t b_channel = channel_of(pages_[b], channels_);
      return a_channel != b_channel ? a_channel < b_channel : pages_[a] < pages_[b];
    });
    std::size_t place = part;
    io_request* last = nullptr;
    std::size_t requests = part;
    for (const std::size_t n : sorted_) {
      const page_record& record = records_[pages_[n]];
      slot& s = slots_[part + (n - first)];
      s = {.number = n};
      if (record.place == page_place::in_memory) {
        s.data = record.address();
        last = nullptr;
        continue;
      }
      if (record.place != page_place::on_drive) {
        continue;
      }
      std::byte* to = buffer_.data() + place++ * records_.page_bytes();
      const int file = files_.file_of(pages_[n]);
      const std::uint64_t offset = files_.offset_of(pages_[n]);
      if (last != nullptr && last->file == file && last->offset + last->bytes == offset &&
          last->bytes + records_.page_bytes() <= most_request_bytes) {
        last->bytes += records_.page_bytes();
      } else {
        last = &requests_[requests++];
        *last = {};
        last->file = file;
        last->offset = offset;
        last->data = to;
        last->bytes = records_.page_bytes();
      }
      bytes_read_ += records_.page_bytes();
      s.data = to;
      s.request = last;
    }
    for (std::size_t i = part; i < requests; ++i) {
      queue_->start(requests_[i]);
    }
  }

  const channel_files& files_;
  const page_records& records_;
  std::span<std::byte> buffer_;
  std::unique_ptr<io_queue> queue_;
  std::uint32_t channels_;
  std::vector<slot> slots_;           // [pages of the buffer], by the read's number
  std::vector<io_request> requests_;  // [pages of the buffer]

  std::span<const page_read> reads_;    // of the operation
  std::vector<std::uint32_t> numbers_;  // [reads_], of those whose page is read
  std::vector<page_id> pages_;          // by number
  std::vector<std::size_t> sorted_;     // of a group
  std::size_t in_use_ = 1;
  std::size_t group_pages_ = 1;
  std::size_t groups_ = 1;   // parts of the buffer
  std::size_t asked_ = 0;    // the number after the latest that was asked for
  std::size_t started_ = 0;  // groups
  std::uint64_t bytes_read_ = 0;
  read_depth depth_;
  bool waited_ = false;  // the kernel, for a page that was not among the first
  clock::time_point opened_;
};

}  // namespace instinfer::drive
