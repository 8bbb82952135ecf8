// Faults of the drive and of the system: each is found and named, nothing damaged is handed out,
// and the store goes on.

#include <algorithm>
#include <atomic>
#include <random>
#include <string>
#include <vector>

#include <doctest/doctest.h>

#include "faulty_calls.hpp"
#include "filled_store.hpp"
#include "instinfer/store/pages/reserved_memory.hpp"
#include "tests/support/long_run.hpp"
#include "tests/support/refusal.hpp"

namespace instinfer::test_drive_faults {

using store::drive_files;
using test::call;
using test::fill;
using test::plan_of;
using test::wrong_pages;

namespace {

constexpr std::uint32_t bytes = 512;
constexpr std::uint32_t channels = 2;

// The ways to the drive: the ring, threads, the caller's own thread.
drive_files::options way(int number, test::faulty_calls& calls) {
  drive_files::options options{.folders = {"."}};
  options.ring = number == 0;
  options.threads = number == 1 ? 2 : 0;
  options.readers = 1;
  options.buffer_bytes = 64 * bytes;
  options.calls = &calls;
  return options;
}

// Reads or writes the bytes of a page behind the store's back.
void on_file(const test::faulty_calls& calls, page_id page, bool write, std::byte* data) {
  const store::reserved_memory aligned(bytes);  // as O_DIRECT wants it
  std::memcpy(aligned.data(), data, bytes);
  const int file = calls.files()[channel_of(page, channels)];
  const off_t at = static_cast<off_t>(slot_of(page, channels)) * bytes;
  REQUIRE((write ? ::pwrite(file, aligned.data(), bytes, at)
                 : ::pread(file, aligned.data(), bytes, at)) == bytes);
  std::memcpy(data, aligned.data(), bytes);
}

// What comes of reading one page by a plan of it alone.
enum class outcome { right, damaged, silent };
outcome read_one(const drive_files& from, page_id page, std::uint32_t version) {
  try {
    return wrong_pages(from, plan_of({page}), bytes, version) == 0 ? outcome::right
                                                                   : outcome::silent;
  } catch (const page_damaged& e) {
    return e.page == page ? outcome::damaged : outcome::silent;
  }
}

}  // namespace

TEST_CASE("every single bit of a store flipped is found") {
  // INSTINFER_LONG: 1024 pages, 4,194,304 flips; otherwise 128 pages, 524,288 flips.
  const std::size_t count = test::is_long() ? 1024 : 128;
  test::faulty_calls calls;
  drive_files::options options = way(2, calls);
  options.direct = false;  // so that a flip costs 4 us
  drive_files store(options, channels, count, bytes);
  const std::vector<page_id> pages = fill(store, count, bytes);
  store.flush();
  std::size_t found = 0;
  for (const page_id page : pages) {
    const std::vector<std::byte> right = test::page_bytes_of(page, 0, bytes);
    for (std::size_t bit = 0; bit < bytes * 8; ++bit) {
      const std::byte mask{static_cast<unsigned char>(1u << bit % 8)};
      const off_t at =
          static_cast<off_t>(slot_of(page, channels)) * bytes + static_cast<off_t>(bit / 8);
      const int file = calls.files()[channel_of(page, channels)];
      const std::byte flipped = right[bit / 8] ^ mask;
      REQUIRE(::pwrite(file, &flipped, 1, at) == 1);
      found += read_one(store, page, 0) == outcome::damaged ? 1 : 0;
      REQUIRE(::pwrite(file, &right[bit / 8], 1, at) == 1);
    }
    CHECK(read_one(store, page, 0) == outcome::right);
  }
  CHECK(found == count * bytes * 8);
}

TEST_CASE("another page, an old page, a torn page and zeros are found") {
  for (int number = 0; number < 3; ++number) {
    CAPTURE(number);
    test::faulty_calls calls;
    drive_files store(way(number, calls), channels, 8, bytes);
    std::vector<page_id> pages = fill(store, 16, bytes);
    store.flush();
    std::vector<std::byte> old(bytes);
    on_file(calls, pages[0], false, old.data());
    CHECK(old == test::page_bytes_of(pages[0], 0, bytes));  // the file is the one that is damaged

    for (const page_id page : pages) {
      store.release(page);
    }
    pages = fill(store, 16, bytes, 1);
    store.flush();
    CHECK(wrong_pages(store, plan_of(pages), bytes, 1) == 0);
    std::vector<std::byte> right = test::page_bytes_of(pages[0], 1, bytes);
    std::vector<std::byte> old_of_first = test::page_bytes_of(pages[0], 0, bytes);
    std::vector<std::byte> other = test::page_bytes_of(pages[5], 1, bytes);
    std::vector<std::byte> torn = right;
    std::copy_n(old_of_first.begin(), 64, torn.begin());
    std::vector<std::byte> zeros(bytes);
    for (std::vector<std::byte>* wrong : {&old_of_first, &other, &torn, &zeros}) {
      on_file(calls, pages[0], true, wrong->data());
      CHECK(read_one(store, pages[0], 1) == outcome::damaged);
      CHECK(test::refusal_of<page_damaged>([&] { store.view(pages[0]); }) ==
            "drive_files: page " + std::to_string(static_cast<std::uint32_t>(pages[0])) +
                " (channel " + std::to_string(channel_of(pages[0], channels)) + ", byte " +
                std::to_string(slot_of(pages[0], channels) * bytes) +
                ") is damaged: its checksum is not the one that was kept of generation 2");
      for (std::size_t i = 1; i < pages.size(); ++i) {
        CHECK(read_one(store, pages[i], 1) == outcome::right);
      }
      on_file(calls, pages[0], true, right.data());
      CHECK(read_one(store, pages[0], 1) == outcome::right);
    }
  }
}

TEST_CASE("the same bytes of another store do not pass") {
  test::faulty_calls calls;
  test::faulty_calls other_calls;
  drive_files store(way(2, calls), channels, 4, bytes);
  drive_files other(way(2, other_calls), channels, 4, bytes);
  const std::vector<page_id> pages = fill(store, 4, bytes);
  const std::vector<page_id> others = fill(other, 4, bytes, 1);
  store.flush();
  other.flush();
  std::vector<std::byte> content(bytes);
  on_file(other_calls, others[0], false, content.data());
  on_file(calls, pages[0], true, content.data());
  CHECK(read_one(store, pages[0], 0) == outcome::damaged);
  // A page that was never written has no bytes either.
  CHECK_THROWS_AS(wrong_pages(store, plan_of({store.allocate(0)}), bytes), page_damaged);
}

TEST_CASE("a page file that is cut off ends reads with an error, and the rest can be read") {
  for (int number = 0; number < 3; ++number) {
    CAPTURE(number);
    test::faulty_calls calls;
    drive_files store(way(number, calls), channels, 8, bytes);
    const std::vector<page_id> pages = fill(store, 16, bytes);
    store.flush();
    for (int left = 7; left >= 0; --left) {
      REQUIRE(::ftruncate(calls.files()[1], left * int{bytes}) == 0);
      for (const page_id page : pages) {
        CAPTURE(static_cast<std::uint32_t>(page));
        const bool gone = channel_of(page, channels) == 1 &&
                          slot_of(page, channels) >= static_cast<std::uint32_t>(left);
        const std::string what =
            test::refusal_of<io_error>([&] { (void)wrong_pages(store, plan_of({page}), bytes); });
        CHECK(what ==
              (gone ? "drive_files: reading page " +
                          std::to_string(static_cast<std::uint32_t>(page)) + " (channel 1, byte " +
                          std::to_string(slot_of(page, channels) * bytes) +
                          ") failed: the file ended early"
                    : "no error"));
      }
    }
  }
}

TEST_CASE("the n-th read that fails, for every n, ends one operation with its error") {
  for (int number = 0; number < 3; ++number) {
    for (const int code : {EIO, ENXIO, ENOMEM}) {
      CAPTURE(number);
      CAPTURE(code);
      test::faulty_calls calls;
      drive_files store(way(number, calls), channels, 100, bytes);
      std::vector<page_id> pages = fill(store, 200, bytes);
      std::mt19937 random(1);
      std::ranges::shuffle(pages.begin(), pages.begin() + 20, random);  // few neighbours
      const access_plan plan = plan_of(pages);
      CHECK(wrong_pages(store, plan, bytes) == 0);
      int n = 0;
      for (;; ++n) {
        calls.fail(call::read, n, -code);
        try {
          const std::size_t wrong = wrong_pages(store, plan, bytes);
          CHECK(wrong == 0);
          break;
        } catch (const io_error& e) {
          CHECK(e.code == code);
        }
        CHECK(calls.failed());
        calls.stop_failing();
        CHECK(wrong_pages(store, plan, bytes) == 0);
      }
      CHECK(!calls.failed());
      CHECK(n == calls.calls());
      CHECK(n >= 10);
      calls.fail(call::read, 3, -code, INT_MAX);  // for ever
      CHECK_THROWS_AS(wrong_pages(store, plan, bytes), io_error);
      CHECK_THROWS_AS(store.view(pages[7]), io_error);
      calls.stop_failing();
      CHECK(wrong_pages(store, plan, bytes) == 0);
    }
  }
}

TEST_CASE("interrupted and short transfers go on where they stopped, at every call") {
  for (int number = 0; number < 3; ++number) {
    for (const std::int64_t result :
         {std::int64_t{-EINTR}, std::int64_t{-EAGAIN}, std::int64_t{512}}) {
      for (const call kind : {call::read, call::write}) {
        CAPTURE(number);
        CAPTURE(result);
        test::faulty_calls calls;
        drive_files store(way(number, calls), channels, 100, 2 * bytes);
        for (int n = 0; n < 12; ++n) {
          calls.fail(kind, n, result, 2);
          const std::vector<page_id> pages = fill(store, 100, 2 * bytes);
          CHECK(wrong_pages(store, plan_of(pages), 2 * bytes) == 0);
          CHECK(store.kept_pages() == 0);
          CHECK(calls.failed());
          calls.stop_failing();
          std::ranges::for_each(pages, [&](page_id page) { store.release(page); });
        }
      }
    }
  }
  test::faulty_calls calls;
  drive_files store(way(2, calls), channels, 8, bytes);
  const std::vector<page_id> pages = fill(store, 8, bytes);
  store.flush();
  calls.fail(call::read, 0, -EINTR, INT_MAX);  // not for ever
  CHECK(test::refusal_of<io_error>([&] {
          store.view(pages[0]);
        }).ends_with("Interrupted system call"));
}

TEST_CASE("pages that the drive refuses, at every call, are read from memory until it takes them") {
  for (int number = 0; number < 3; ++number) {
    for (const int code : {EIO, ENOSPC}) {
      for (const int times : {1, INT_MAX}) {
        CAPTURE(number);
        CAPTURE(times);
        test::faulty_calls calls;
        drive_files store(way(number, calls), channels, 100, bytes);
        bool all_written = false;
        for (int n = 0; !all_written; ++n) {
          CAPTURE(n);
          calls.fail(call::write, n, -code, times);
          std::vector<page_id> pages = fill(store, 30, bytes);
          store.flush();
          all_written = !calls.failed();
          CHECK((store.kept_pages() == 0) == all_written);
          CHECK(wrong_pages(store, plan_of(pages), bytes) == 0);
          if (times > 1 && !all_written) {
            const std::string what = test::refusal_of<io_error>([&] { store.begin_writes(0); });
            CHECK(what.ends_with(
                std::to_string(store.kept_pages()) +
                " pages are kept in memory until it succeeds: " + drive::reason(code)));
          }
          store.release(pages.back());
          pages.pop_back();
          calls.stop_failing();
          store.begin_writes(0);
          CHECK(store.kept_pages() == 0);
          CHECK(wrong_pages(store, plan_of(pages), bytes) == 0);
          std::ranges::for_each(pages, [&](page_id page) { store.release(page); });
        }
      }
    }
  }
}

TEST_CASE("requests that end late and in another order give the right pages, also at the end") {
  class late_calls : public drive::system_calls {
   public:
    std::int64_t read(int file, std::byte* to, std::size_t n, std::uint64_t offset) override {
      wait();
      return system_calls::read(file, to, n, offset);
    }
    std::int64_t write(int file, const std::byte* from, std::size_t n,
                       std::uint64_t offset) override {
      wait();
      return system_calls::write(file, from, n, offset);
    }

   private:
    void wait() { ::usleep(++calls_ * 7919 % 13 * 100); }
    std::atomic<unsigned> calls_ = 0;
  };
  late_calls late;
  drive_files::options options{.folders = {"."}};
  options.ring = false;
  options.threads = 4;
  options.readers = 1;
  options.buffer_bytes = 64 * bytes;
  options.calls = &late;
  for (int round = 0; round < 5; ++round) {
    drive_files store(options, channels, 100, bytes);
    std::vector<page_id> pages = fill(store, 150, bytes);
    std::mt19937 random(static_cast<unsigned>(round));
    std::ranges::shuffle(pages, random);
    CHECK(wrong_pages(store, plan_of(pages), bytes) == 0);
    fill(store, 10, bytes);  // under way when the store goes, which waits for them
  }
}

TEST_CASE("a store that cannot have its files or space is not made, at every call") {
  for (const call kind : {call::open, call::reserve}) {
    for (const int code : {ENOSPC, EMFILE, EDQUOT}) {
      test::faulty_calls calls;
      for (int n = 0; n < 4; ++n) {
        calls.fail(kind, n, -code);
        CHECK(test::refusal_of<io_error>([&] {
                drive_files(way(2, calls), 4, 8, bytes);
              }).ends_with("failed: " + drive::reason(code)));
      }
      calls.fail(kind, 4, -code);
      CHECK(drive_files(way(2, calls), 4, 8, bytes).free_pages() == 32);
      calls.fail(call::reserve, 1, -EINTR, 3);
      CHECK(drive_files(way(2, calls), 4, 8, bytes).mode().reserved);
    }
  }
}

}  // namespace instinfer::test_drive_faults
