#pragma once
// The time that an attend's reads take on the calibrated drive, by the flash model's timeline.

#include <algorithm>
#include <cstdint>
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

struct modelled_reads {
  double seconds = 0;
  double bytes = 0;
};

// Heads go through their operations side by side; an operation begins when all have ended the
// one before, as on the routes to a host. Pages become requests as drive/read_window.hpp
// makes them. A request is a page of 512 KiB, of which so many codewords of 4 KiB are read, on the
// next server in turn. The link is busy beside the servers.
inline modelled_reads model_reads(const read_recorder& reads, const calibration& device,
                                  std::uint32_t channels, std::uint32_t page_bytes) {
  constexpr std::uint32_t request_bytes = 512 << 10;
  constexpr std::uint32_t codeword_bytes = 4096;
  constexpr std::size_t group_bytes = std::size_t{2} << 20;
  flash::drive_spec drive = device.spec(request_bytes);
  drive.geometry.codeword_bytes = codeword_bytes;
  flash::timeline<> time(drive.geometry, drive.timing);
  modelled_reads sum;
  std::vector<flash::location> requests;
  std::vector<std::int32_t> codewords;
  for (std::size_t phase = 0;; ++phase) {
    requests.clear();
    codewords.clear();
    double bytes = 0;
    for (const read_recorder::head_reads& head : reads.heads) {
      if (phase >= head.operations.size()) {
        continue;
      }
      std::vector<page_id> pages = head.operations[phase];
      bytes += static_cast<double>(pages.size()) * page_bytes;
      const std::size_t group =
          std::clamp<std::size_t>(group_bytes / page_bytes, 1, std::size_t{512});
      for (std::size_t first = 0; first < pages.size(); first += group) {
        const auto begin = pages.begin() + static_cast<std::ptrdiff_t>(first);
        const auto end = begin + std::min(std::ssize(pages) - static_cast<std::ptrdiff_t>(first),
                                          static_cast<std::ptrdiff_t>(group));
        const auto at = [&](page_id page) {
          return std::pair(channel_of(page, channels), slot_of(page, channels));
        };
        std::sort(begin, end, [&](page_id a, page_id b) { return at(a) < at(b); });
        for (auto page = begin; page != end; ++page) {
          const auto [channel, slot] = at(*page);
          const bool neighbour = page != begin && at(*(page - 1)) == std::pair(channel, slot - 1);
          const auto words = static_cast<std::int32_t>(page_bytes / codeword_bytes);
          if (neighbour && codewords.back() + words <=
                               static_cast<std::int32_t>(request_bytes / codeword_bytes)) {
            codewords.back() += words;
          } else {
            requests.push_back(
                {.channel = static_cast<std::int32_t>(
                     requests.size() % static_cast<std::size_t>(drive.geometry.channels))});
            codewords.push_back(words);
          }
        }
      }
    }
    if (requests.empty()) {
      return sum;
    }
    const double flash_s =
        static_cast<double>(time.read_codewords(requests, codewords).makespan_ps()) * 1e-12;
    sum.seconds += std::max(flash_s, bytes / static_cast<double>(drive.link_bytes_per_s));
    sum.bytes += bytes;
  }
}

}  // namespace instinfer::bench
