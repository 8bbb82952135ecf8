#pragma once
// The pages of a drive's last commit: what the commit keeps of them, and those that wait for the
// next one to become free.

#include <cstdint>
#include <string>
#include <utility>

#include "instinfer/drive/page_records.hpp"
#include "instinfer/store/pages/ledger.hpp"
#include "instinfer/store/sequences/checked_stream.hpp"

namespace instinfer::drive {

// A page that a commit may have is not written again before a later commit is there.
class committed_pages {
 public:
  committed_pages(store::ledger& ledger, const page_records& records)
      : ledger_{ledger}, records_{records} {}

  std::uint64_t held_pages() const { return held_pages_; }

  // Keeps a released page from the ledger if a commit may have it. Returns whether it does.
  bool hold(page_id page) noexcept {
    page_record& record = records_[page];
    if (record.committed == 0) {
      return false;
    }
    record.sum = static_cast<std::uint32_t>(std::exchange(held_, page));
    record.place = page_place::held;
    ++held_pages_;
    return true;
  }
  // After a commit: held pages are not in it.
  void free_held() noexcept {
    while (held_ != no_page) {
      page_record& record = records_[held_];
      const page_id page = std::exchange(held_, page_id{static_cast<std::uint32_t>(record.sum)});
      record.place = page_place::nowhere;
      record.committed = 0;
      ledger_.release(page);
    }
    held_pages_ = 0;
  }

  // Throws page_damaged if the drive has refused a page that is allocated, and nobody has it.
  void require_none_lost(const channel_files& files) const {
    for_each_allocated([&](page_id page, const page_record& record) {
      if (record.place == page_place::lost) {
        records_.throw_damaged(page, files);
      }
    });
  }
  // Counts all pages on the drive as those of a commit.
  void add_all() noexcept {
    for_each_allocated([](page_id, page_record& record) {
      record.committed = record.place == page_place::on_drive ? 1 : record.committed;
    });
  }

  // Writes what a commit keeps of the pages on the drive: how many, and the record of each.
  template <class Out>
  void write(Out& out) const {
    store::file_writer to{out};
    std::uint64_t count = 0;
    for_each_allocated([&](page_id, const page_record& record) {
      count += record.place == page_place::on_drive ? 1 : 0;
    });
    to(count);
    for_each_allocated([&](page_id page, const page_record& record) {
      if (record.place == page_place::on_drive) {
        kept_record kept{page, record.generation, record.sum};
        to(kept);
      }
    });
    to.end_block();
  }
  // Of a new store. Throws bad_file for what no commit writes.
  template <class In>
  void read(In& in, const std::string& name) {
    store::file_reader from{in};
    std::uint64_t count = 0;
    from(count);
    for (std::uint64_t i = 0; i < count; ++i) {
      kept_record kept{};
      from(kept);
      const auto number = static_cast<std::uint32_t>(kept.page);
      require<bad_file>(
          number < ledger_.capacity_pages() && records_[kept.page].place == page_place::nowhere,
          [&] {
            return "drive_files: the commit of " + name + " has page " + std::to_string(number) +
                   " twice, or beyond the drive's " + std::to_string(ledger_.capacity_pages()) +
                   " pages";
          });
      records_[kept.page] = {kept.sum, kept.generation, page_place::on_drive, 1};
    }
    from.end_block();
    ledger_.restore([&](page_id page) { return records_[page].place == page_place::on_drive; });
  }

 private:
  struct kept_record {
    page_id page;
    std::uint32_t generation;
    std::uint64_t sum;
  };

  template <class F>
  void for_each_allocated(F&& f) const {
    for (std::uint32_t channel = 0; channel < ledger_.channels(); ++channel) {
      for (std::uint32_t slot = 0; slot < ledger_.used_slots(channel); ++slot) {
        const page_id page = make_page_id(channel, slot, ledger_.channels());
        if (ledger_.taken(page)) {
          f(page, records_[page]);
        }
      }
    }
  }

  store::ledger& ledger_;
  const page_records& records_;
  page_id held_ = no_page;  // a list, by page_record::sum
  std::uint64_t held_pages_ = 0;
};

}  // namespace instinfer::drive
