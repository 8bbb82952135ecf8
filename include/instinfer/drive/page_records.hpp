#pragma once
// What a store knows of each page outside of the page: its place, generation and checksum.

#include <cstdint>
#include <span>
#include <string>

#include "instinfer/drive/channel_files.hpp"
#include "instinfer/drive/errors.hpp"
#include "instinfer/drive/page_sum.hpp"
#include "instinfer/store/pages/reserved_memory.hpp"

namespace instinfer::drive {

enum class page_place : std::uint16_t {
  nowhere,    // never written, or released
  in_memory,  // written, but not yet on the drive
  on_drive,
  lost,  // the drive refused it, and there was no memory to keep it in
  held,  // released, but the last commit has it: free after the next one
};

// 16 bytes a page. All bytes are zero at first, and pages that are never used take no memory.
struct page_record {
  // Of a page on the drive. Its address, of a page in memory. The number of the next, of one held.
  std::uint64_t sum;
  std::uint32_t generation;
  page_place place;
  std::uint16_t committed;  // 1: a commit may have it, so it must not be written

  std::byte* address() const { return reinterpret_cast<std::byte*>(sum); }
};

class page_records {
 public:
  page_records(std::uint64_t store, std::uint64_t pages, std::uint32_t page_bytes)
      : store_{store}, page_bytes_{page_bytes}, records_{pages * sizeof(page_record)} {}

  page_record& operator[](page_id page) const {
    return reinterpret_cast<page_record*>(records_.data())[static_cast<std::uint32_t>(page)];
  }
  std::uint32_t page_bytes() const { return page_bytes_; }

  std::uint64_t sum_of(page_id page, const std::byte* bytes) const {
    return page_sum({bytes, page_bytes_}, {store_, page, (*this)[page].generation});
  }

  // Throws page_damaged unless `bytes`, which were read from the drive, are those of the page.
  void check(page_id page, const std::byte* bytes, const channel_files& files) const {
    const page_record& record = (*this)[page];
    if (record.place != page_place::on_drive || sum_of(page, bytes) != record.sum) [[unlikely]] {
      throw_damaged(page, files);
    }
  }
  [[noreturn]] void throw_damaged(page_id page, const channel_files& files) const {
    const bool lost = (*this)[page].place == page_place::lost;
    throw page_damaged("drive_files: " + files.name_of(page) +
                           (lost ? " was lost when it was written: the drive refused it, and there "
                                   "was no memory to keep it in"
                                 : " is damaged: its checksum is not the one that was kept of "
                                   "generation " +
                                       std::to_string((*this)[page].generation)),
                       page);
  }

 private:
  std::uint64_t store_;
  std::uint32_t page_bytes_;
  store::reserved_memory records_;
};

}  // namespace instinfer::drive
