#pragma once
// A store of pages with known bytes, and plans over them.

#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "instinfer/drive/drive_files.hpp"

namespace instinfer::test {

// The bytes of a page: a pattern of the page and of how often it was written.
inline std::vector<std::byte> page_bytes_of(page_id page, std::uint32_t version,
                                            std::uint32_t bytes) {
  std::vector<std::byte> content(bytes);
  std::uint64_t x = (std::uint64_t{version} << 32 | static_cast<std::uint32_t>(page)) + 1;
  for (std::byte& b : content) {
    x = x * 6364136223846793005u + 1442695040888963407u;
    b = static_cast<std::byte>(x >> 56);
  }
  return content;
}

inline void write_page(store::drive_files& to, page_id page, std::uint32_t version,
                       std::uint32_t bytes) {
  const std::vector<std::byte> content = page_bytes_of(page, version, bytes);
  std::memcpy(to.write(page).data(), content.data(), bytes);
}

// Allocates and writes `count` pages, on one channel after the other.
inline std::vector<page_id> fill(store::drive_files& to, std::size_t count, std::uint32_t bytes,
                                 std::uint32_t version = 0) {
  std::vector<page_id> pages;
  for (std::size_t i = 0; i < count; ++i) {
    pages.push_back(to.allocate(static_cast<std::uint32_t>(i)));
    write_page(to, pages.back(), version, bytes);
  }
  return pages;
}

inline access_plan plan_of(const std::vector<page_id>& pages) {
  access_plan plan;
  for (const page_id page : pages) {
    page_read read;
    read.page = page;
    plan.add(read);
  }
  return plan;
}

// An operation of a kernel: closes its reads in any case.
struct reads_of_plan {
  reads_of_plan(const store::drive_files& from, const access_plan& plan, std::size_t in_use = 1)
      : reads{from.read_ahead(plan, {0, plan.reads().size(), in_use})} {}
  reads_of_plan(const reads_of_plan&) = delete;
  reads_of_plan& operator=(const reads_of_plan&) = delete;
  ~reads_of_plan() { reads->close(); }
  layout::planned_reads* reads;
};

// The number of the plan's pages whose bytes are not those of `version`.
inline std::size_t wrong_pages(const store::drive_files& from, const access_plan& plan,
                               std::uint32_t bytes, std::uint32_t version = 0) {
  const reads_of_plan ahead(from, plan);
  std::size_t wrong = 0;
  for (const page_read& read : plan.reads()) {
    const std::vector<std::byte> expected = page_bytes_of(read.page, version, bytes);
    wrong += std::memcmp(ahead.reads->at(read), expected.data(), bytes) != 0 ? 1 : 0;
  }
  return wrong;
}

}  // namespace instinfer::test
