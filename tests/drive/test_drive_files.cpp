// The store alone: what is written is read back by every way of reading, and the store tells what
// the system allowed.

#include <algorithm>
#include <random>
#include <thread>
#include <vector>

#include <doctest/doctest.h>

#include "faulty_calls.hpp"
#include "filled_store.hpp"
#include "tests/support/refusal.hpp"

namespace instinfer::test_drive_files {

using store::drive_files;
using test::fill;
using test::plan_of;
using test::wrong_pages;

static_assert(store::PageStore<drive_files>);

namespace {

// Where the tests' files are; they have no names.
drive_files::options here() { return {.folders = {"."}}; }

struct way {
  bool direct;
  bool ring;
  unsigned threads;
};

}  // namespace

TEST_CASE("every way of reading gives the bytes that were written, in any order") {
  std::mt19937 random(1);
  for (const way& w : {way{true, true, 0}, way{true, false, 3}, way{false, false, 0}}) {
    for (const std::uint32_t bytes : {512u, 4096u, 65536u}) {
      CAPTURE(w.ring);
      CAPTURE(bytes);
      drive_files::options options = here();
      options.direct = w.direct;
      options.ring = w.ring;
      options.threads = w.threads;
      options.readers = 2;
      options.buffer_bytes = 64 * bytes;  // a reader has room for 30 pages
      drive_files store(options, 3, 200, bytes);
      std::vector<page_id> pages = fill(store, 300, bytes);
      CHECK(wrong_pages(store, plan_of(pages), bytes) == 0);
      std::ranges::shuffle(pages, random);
      CHECK(wrong_pages(store, plan_of(pages), bytes) == 0);
      for (const page_id page : pages) {
        CHECK(std::ranges::equal(store.view(page), test::page_bytes_of(page, 0, bytes)));
      }
      CHECK(store.pages_written() == 300);
      CHECK(store.bytes_read() == 3 * 300 * std::uint64_t{bytes});
      CHECK(store.kept_pages() == 0);
    }
  }
}

TEST_CASE("a page that is written again has its new bytes, on the drive and before") {
  drive_files store(here(), 2, 8, 4096);
  for (std::uint32_t version = 0; version < 20; ++version) {
    const std::vector<page_id> pages = fill(store, 16, 4096, version);
    CHECK(store.free_pages() == 0);
    for (const page_id page : pages) {  // not yet on the drive
      CHECK(std::ranges::equal(store.view(page), test::page_bytes_of(page, version, 4096)));
    }
    CHECK(wrong_pages(store, plan_of(pages), 4096, version) == 0);
    for (const page_id page : pages) {
      CHECK(std::ranges::equal(store.view(page), test::page_bytes_of(page, version, 4096)));
      store.release(page);
    }
  }
}

TEST_CASE("a page that is released before it reaches the drive leaves the others alone") {
  drive_files store(here(), 2, 64, 4096);
  std::vector<page_id> pages = fill(store, 100, 4096);
  for (std::size_t i = 0; i < 50; ++i) {
    store.release(pages[2 * i]);
  }
  std::vector<page_id> left;
  for (std::size_t i = 0; i < 50; ++i) {
    left.push_back(pages[2 * i + 1]);
  }
  const std::vector<page_id> again = fill(store, 60, 4096);
  left.insert(left.end(), again.begin(), again.end());
  CHECK(wrong_pages(store, plan_of(left), 4096) == 0);
}

TEST_CASE("pages stay valid for as long as the kernel said") {
  constexpr std::uint32_t bytes = 512;
  drive_files::options options = here();
  options.readers = 1;
  options.buffer_bytes = 64 * bytes;
  drive_files store(options, 2, 500, bytes);
  const std::vector<page_id> pages = fill(store, 700, bytes);
  const access_plan plan = plan_of(pages);
  for (const std::size_t in_use : {1u, 7u, 25u, 55u}) {
    CAPTURE(in_use);
    const test::reads_of_plan ahead(store, plan, in_use);
    std::vector<const std::byte*> at(pages.size());
    std::size_t wrong = 0;
    for (std::size_t i = 0; i < pages.size(); ++i) {
      at[i] = ahead.reads->at(plan.reads()[i]);
      for (const std::size_t back : {std::size_t{0}, in_use - 1}) {
        if (back <= i) {
          const auto expected = test::page_bytes_of(pages[i - back], 0, bytes);
          wrong += std::memcmp(at[i - back], expected.data(), bytes) != 0 ? 1 : 0;
        }
      }
    }
    CHECK(wrong == 0);
    // What was given up long ago is refused, and never another page in its place.
    CHECK(test::refusal_of<error>([&] {
            ahead.reads->at(plan.reads()[0]);
          }).starts_with("drive_files: read 0 of a plan was asked for after read 699"));
  }
  CHECK(test::refusal_of<bad_argument>([&] { test::reads_of_plan(store, plan, 61); })
            .starts_with("drive_files: an operation uses 61 pages of 512 bytes at a time, a reader "
                         "has room for 60;"));
  CHECK(wrong_pages(store, plan, bytes) == 0);
}

TEST_CASE("neighbours are one request, whatever the plan's order") {
  test::faulty_calls calls;
  drive_files::options options = here();
  options.ring = false;
  options.threads = 0;
  options.calls = &calls;
  drive_files store(options, 4, 256, 4096);
  std::vector<page_id> pages = fill(store, 1024, 4096);
  calls.fail(test::call::write, INT_MAX, 0);
  store.flush();
  CHECK(calls.calls() == 4);  // what was left in the half that was being filled
  std::mt19937 random(1);
  std::ranges::shuffle(pages.begin(), pages.begin() + 512, random);
  calls.fail(test::call::read, INT_MAX, 0);
  CHECK(wrong_pages(store, plan_of(pages), 4096) == 0);
  CHECK(calls.calls() == 8);  // two groups of 512 pages, each 128 pages of 4 channels
}

TEST_CASE("a used drive is written in requests as large as those of a new one") {
  test::faulty_calls calls;
  drive_files::options options = here();
  options.ring = false;
  options.threads = 0;
  options.calls = &calls;
  drive_files store(options, 4, 256, 4096);
  const auto fill_all = [&] {
    calls.fail(test::call::write, INT_MAX, 0);
    const std::vector<page_id> pages = fill(store, 1024, 4096);
    store.flush();
    CHECK(calls.calls() == 8);  // two halves of 128 pages of 4 channels
    CHECK(wrong_pages(store, plan_of(pages), 4096) == 0);
    return pages;
  };
  std::vector<page_id> pages = fill_all();
  std::mt19937 random(1);
  for (const bool shuffled : {false, true}) {
    if (shuffled) {
      std::ranges::shuffle(pages, random);
    }
    std::ranges::for_each(pages, [&](page_id page) { store.release(page); });
    pages = fill_all();
  }
}

TEST_CASE("K and V in one page are one read, in an order that has both or one of them") {
  drive_files store(here(), 2, 64, 4096);
  const std::vector<page_id> pages = fill(store, 100, 4096);
  access_plan plan;
  for (const page_id page : pages) {
    for (const stream kind : {stream::k_by_token, stream::v_by_token}) {
      page_read read;
      read.kind = kind;
      read.page = page;
      plan.add(read);
    }
  }
  CHECK(wrong_pages(store, plan, 4096) == 0);
  CHECK(store.bytes_read() == 100 * 4096);
  for (const layout::read_streams of : {layout::read_streams::keys, layout::read_streams::values}) {
    const std::uint64_t before = store.bytes_read();
    layout::planned_reads* ahead =
        store.read_ahead(plan, {.first = 20, .last = 120, .in_use = 1, .of = of});
    const std::size_t i = of == layout::read_streams::keys ? 20 : 21;
    CHECK(*ahead->at(plan.reads()[i]) == test::page_bytes_of(pages[10], 0, 4096)[0]);
    CHECK_THROWS_AS(ahead->at(plan.reads()[41 - i]), error);  // not of this order
    ahead->close();
    CHECK(store.bytes_read() - before == 50 * 4096);
  }
}

TEST_CASE("threads read at the same time, also when there are more than readers") {
  for (const bool ring : {true, false}) {
    drive_files::options options = here();
    options.ring = ring;
    options.readers = 2;
    drive_files store(options, 4, 256, 4096);
    const std::vector<page_id> pages = fill(store, 1000, 4096);
    const access_plan plan = plan_of(pages);
    std::atomic<std::size_t> wrong = 0;
    std::vector<std::thread> threads;
    for (unsigned t = 0; t < 5; ++t) {
      threads.emplace_back([&, t] {
        std::mt19937 random(t);
        for (int round = 0; round < 5; ++round) {
          wrong += wrong_pages(store, plan, 4096);
          const page_id page = pages[random() % pages.size()];
          wrong += std::ranges::equal(store.view(page), test::page_bytes_of(page, 0, 4096)) ? 0 : 1;
        }
      });
    }
    for (std::thread& thread : threads) {
      thread.join();
    }
    CHECK(wrong == 0);
  }
}

TEST_CASE("the mode is what the system allowed") {
  test::faulty_calls calls;
  drive_files::options options = here();
  options.calls = &calls;
  options.readers = 2;
  CHECK(drive_files(options, 2, 4, 4096).mode().reserved);
  calls.ring = false;
  {
    const drive_files store(options, 2, 4, 4096);
    CHECK(!store.mode().ring);
    CHECK(store.mode().threads == 8);
    CHECK(to_string(store.mode()).ends_with("pread on 8 threads, 2 readers, space reserved"));
  }
  calls.direct = false;
  CHECK(to_string(drive_files(options, 2, 4, 4096).mode()) ==
        "buffered, pread on 8 threads, 2 readers, space reserved");
  calls.direct = true;
  calls.fail(test::call::read, 0, -EINVAL);  // O_DIRECT was taken, but no page of this size is
  CHECK(!drive_files(options, 2, 4, 4096).mode().direct);
  calls.fail(test::call::reserve, 0, -EOPNOTSUPP);
  CHECK(to_string(drive_files(options, 2, 4, 4096).mode()).ends_with("space not reserved"));
  options.ring = false;
  options.threads = 0;
  CHECK(drive_files(options, 2, 4, 4096).mode().threads == 0);
}

TEST_CASE("what cannot be a store is refused") {
  CHECK(test::refusal_of<bad_argument>([] { drive_files({}, 2, 4, 4096); }) ==
        "drive_files: no folder was given");
  CHECK(test::refusal_of<bad_argument>([] { drive_files(here(), 2, 4, 1000); }) ==
        "drive_files: a page must be a multiple of 512 bytes, got 1000");
  CHECK(test::refusal_of<io_error>([] {
          drive_files({.folders = {"./no such folder"}}, 2, 4, 4096);
        }).ends_with("failed: No such file or directory"));
  drive_files::options small = here();
  small.buffer_bytes = 4 * 4096;
  small.readers = 3;
  CHECK(
      test::refusal_of<bad_argument>([&] { drive_files(small, 2, 4, 4096); }) ==
      "drive_files: buffer_bytes = 16384 has no room for a page of 4096 bytes of each of 3 readers "
      "and two that are written");
}

}  // namespace instinfer::test_drive_files
