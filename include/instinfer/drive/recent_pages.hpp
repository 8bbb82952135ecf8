#pragma once
// The last pages that a thread has read without a plan.

#include <algorithm>
#include <array>
#include <cstdint>
#include <span>
#include <string>

#include "instinfer/drive/channel_files.hpp"
#include "instinfer/drive/io_queue.hpp"
#include "instinfer/drive/page_records.hpp"
#include "instinfer/store/pages/reserved_memory.hpp"

namespace instinfer::drive {

class recent_pages {
 public:
  // The bytes of a page, valid until the eighth call after it. Sets `read` if it had to read them.
  // Throws io_error and page_damaged.
  std::span<const std::byte> get(page_id page, const page_records& records,
                                 const channel_files& files, io_queue& alone, bool& read) {
    const std::size_t bytes = records.page_bytes();
    const std::uint32_t generation = records[page].generation;
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
    request.file = files.file_of(page);
    request.offset = files.offset_of(page);
    request.data = memory_.data() + i * bytes;
    request.bytes = bytes;
    alone.start(request);
    if (request.error != 0) {
      throw io_error("drive_files: reading " + files.name_of(page) +
                         " failed: " + reason(std::max(request.error, 0)),
                     std::max(request.error, 0));
    }
    records.check(page, request.data, files);
    slots_[i] = {page, generation};
    read = true;
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

}  // namespace instinfer::drive
