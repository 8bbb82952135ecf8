// Dealing heads to workers: longest first, few cut, nobody waits for long.

#include <doctest/doctest.h>

#include <algorithm>
#include <numeric>
#include <random>
#include <vector>

#include "instinfer/core/work_split.hpp"

namespace instinfer::test_work_split {

namespace {

constexpr std::uint64_t mega = 1 << 20;

std::vector<head_job> jobs_of(const std::vector<std::uint64_t>& bytes) {
  std::vector<head_job> jobs;
  for (std::uint32_t r = 0; r < bytes.size(); ++r) {
    jobs.push_back({r, 0, bytes[r]});
  }
  return jobs;
}

std::size_t cut_of(const std::vector<std::uint64_t>& bytes, std::uint32_t parts) {
  std::vector<head_job> jobs = jobs_of(bytes);
  std::vector<std::uint64_t> heap;
  return deal(jobs, parts, heap);
}

}  // namespace

TEST_CASE("by hand: what is cut, and what is not") {
  CHECK(cut_of({}, 4) == 0);
  CHECK(cut_of({100 * mega}, 1) == 0);                                  // nobody to share with
  CHECK(cut_of({100 * mega}, 2) == 1);                                  // one long head for all
  CHECK(cut_of({1000}, 2) == 0);                                        // not worth it
  CHECK(cut_of({50 * mega, 50 * mega}, 2) == 0);                        // one each
  CHECK(cut_of({50 * mega, 50 * mega, 50 * mega}, 2) == 1);             // then one each
  CHECK(cut_of({90 * mega, 5 * mega, 5 * mega}, 2) == 1);               // the long one
  CHECK(cut_of({40 * mega, 20 * mega, 20 * mega}, 2) == 0);             // 40 and 40
  CHECK(cut_of({80 * mega, 80 * mega, 80 * mega, 80 * mega}, 3) == 1);  // then three
  // The busiest may have 256 KiB more than its share, 1.75 MiB here, and no byte more.
  CHECK(cut_of({2 * mega, mega + mega / 2}, 2) == 0);
  CHECK(cut_of({2 * mega + 2, mega + mega / 2}, 2) == 2);  // and so the other one
}

TEST_CASE("jobs are sorted, longest first, ties by request and head, wherever they stood") {
  std::mt19937 random(1);
  std::vector<head_job> jobs;
  for (std::uint32_t r = 0; r < 20; ++r) {
    for (std::uint32_t h = 0; h < 4; ++h) {
      jobs.push_back({r, h, mega * (r % 3)});
    }
  }
  std::vector<std::uint64_t> heap;
  std::vector<head_job> other = jobs;
  std::ranges::shuffle(other, random);
  CHECK(deal(jobs, 3, heap) == deal(other, 3, heap));
  for (std::size_t i = 0; i < jobs.size(); ++i) {
    CHECK(jobs[i].request == other[i].request);
    CHECK(jobs[i].kv_head == other[i].kv_head);
    if (i > 0) {
      const head_job& a = jobs[i - 1];
      const head_job& b = jobs[i];
      CHECK((a.bytes > b.bytes || (a.bytes == b.bytes && a.request < b.request) ||
             (a.bytes == b.bytes && a.request == b.request && a.kv_head < b.kv_head)));
    }
  }
}

TEST_CASE(
    "random batches: the busiest worker has at most 1/16 more than its share, and one cut less breaks that") {
  std::mt19937 random(2);
  std::vector<std::uint64_t> heap;
  for (int round = 0; round < 300; ++round) {
    CAPTURE(round);
    std::vector<std::uint64_t> bytes(1 + random() % 60);
    for (std::uint64_t& b : bytes) {
      b = mega * (random() % 5 == 0 ? 1 + random() % 500 : 1 + random() % 20);  // skewed
    }
    const auto parts = static_cast<std::uint32_t>(1 + random() % 16);
    std::vector<head_job> jobs = jobs_of(bytes);
    const std::size_t cut = deal(jobs, parts, heap);
    const std::uint64_t total = std::accumulate(bytes.begin(), bytes.end(), std::uint64_t{0});
    // Workers one by one, the least busy takes the next job; a slow copy of the rule.
    const auto most_after = [&](std::size_t first) {
      std::vector<std::uint64_t> load(parts);
      for (std::size_t j = first; j < jobs.size(); ++j) {
        *std::ranges::min_element(load) += jobs[j].bytes;
      }
      std::uint64_t shared = 0;
      for (std::size_t j = 0; j < first; ++j) {
        shared += jobs[j].bytes;
      }
      return *std::ranges::max_element(load) + shared / parts;
    };
    const std::uint64_t fair =
        total / parts + std::max(total / parts / 16, least_split_bytes) + parts;
    CHECK((parts == 1 || most_after(cut) <= fair));
    CHECK((cut == 0 || most_after(cut - 1) + parts > total / parts + total / parts / 16));
  }
}

}  // namespace instinfer::test_work_split
