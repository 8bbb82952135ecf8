#pragma once
// The time that an attend's reads take on the calibrated drive, by the flash model's timeline.

#include <algorithm>
#include <cstdint>
#include <span>
#include <utility>
#include <vector>

#include "drive/calibration.hpp"
#include "instinfer/attention/observer.hpp"
#include "instinfer/ssd/channel/timeline.hpp"

namespace instinfer::bench {

// The observer of an attend: the sealed pages of each operation of each head, in the order of the
// plans.
struct read_recorder {
  struct head_reads {
    std::vector<std::vector<page_id>> operations;
    void chose(attention::operation, index_view) {}
    void accessed(attention::operation, const access_plan& plan) {
      std::vector<page_id> pages;
      for (const page_read& read : plan.reads()) {
        // V may be in the page of its K.
        if (read.page != no_page && (pages.empty() || pages.back() != read.page)) {
          pages.push_back(read.page);
        }
      }
      if (!pages.empty()) {
        operations.push_back(std::move(pages));
      }
    }
  };
  explicit read_recorder(std::size_t kv_heads) : heads(kv_heads) {}
  head_reads& head(std::uint32_t h) { return heads[h]; }

  std::vector<head_reads> heads;
};

// The requests of an attend as drive/read_window.hpp makes them, [operations]: heads go through
// their operations side by side, and an operation begins when all have ended the one before.
inline std::vector<std::vector<store_request>> requests_of(const read_recorder& reads,
                                                           std::uint32_t channels,
                                                           std::uint32_t page_bytes) {
  constexpr std::size_t most_bytes = 512 << 10;
  constexpr std::size_t group_bytes = std::size_t{2} << 20;
  const std::size_t group = std::clamp<std::size_t>(group_bytes / page_bytes, 1, 512);
  std::vector<std::vector<store_request>> operations;
  for (const read_recorder::head_reads& head : reads.heads) {
    operations.resize(std::max(operations.size(), head.operations.size()));
    for (std::size_t operation = 0; operation < head.operations.size(); ++operation) {
      std::vector<store_request>& requests = operations[operation];
      std::span<const page_id> left = head.operations[operation];
      while (!left.empty()) {
        std::vector<store_request> pages;
        for (const page_id page : left.first(std::min(group, left.size()))) {
          pages.push_back({channel_of(page, channels),
                           std::uint64_t{slot_of(page, channels)} * page_bytes, page_bytes});
        }
        left = left.subspan(pages.size());
        std::ranges::sort(pages, {},
                          [](const store_request& r) { return std::pair(r.channel, r.offset); });
        const std::size_t before = requests.size();
        for (const store_request& page : pages) {
          store_request* const last = requests.size() > before ? &requests.back() : nullptr;
          if (last != nullptr && last->channel == page.channel &&
              last->offset + last->bytes == page.offset && last->bytes + page_bytes <= most_bytes) {
            last->bytes += page_bytes;
          } else {
            requests.push_back(page);
          }
        }
      }
    }
  }
  return operations;
}

struct modelled_reads {
  double seconds = 0;
  double bytes = 0;
};

// A request is a page of 512 KiB, of which so many codewords of 4 KiB are read, on the next server
// in turn. The link is busy beside the servers.
inline modelled_reads model_reads(const std::vector<std::vector<store_request>>& operations,
                                  const calibration& device) {
  constexpr std::uint32_t codeword_bytes = 4096;
  flash::drive_spec drive = device.spec(512 << 10);
  drive.geometry.codeword_bytes = codeword_bytes;
  flash::timeline<> time(drive.geometry, drive.timing);
  modelled_reads sum;
  std::vector<flash::location> requests;
  std::vector<std::int32_t> codewords;
  for (const std::vector<store_request>& operation : operations) {
    requests.clear();
    codewords.clear();
    double bytes = 0;
    for (const store_request& request : operation) {
      requests.push_back(
          {.channel = static_cast<std::int32_t>(
               requests.size() % static_cast<std::size_t>(drive.geometry.channels))});
      codewords.push_back(static_cast<std::int32_t>(request.bytes / codeword_bytes));
      bytes += request.bytes;
    }
    const double flash_s =
        static_cast<double>(time.read_codewords(requests, codewords).makespan_ps()) * 1e-12;
    sum.seconds += std::max(flash_s, bytes / static_cast<double>(drive.link_bytes_per_s));
    sum.bytes += bytes;
  }
  return sum;
}

}  // namespace instinfer::bench
