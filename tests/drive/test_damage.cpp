// Damage of a drive that lasts, and system calls that fail: what is wrong is refused with an error
// of its own type, and no number is computed from it.
// INSTINFER_LONG: every bit of every file, every length, and more calls.

#include <algorithm>
#include <climits>
#include <string>
#include <vector>

#include <doctest/doctest.h>

#include "faulty_calls.hpp"
#include "lasting_drive.hpp"
#include "tests/support/long_run.hpp"
#include "tests/support/refusal.hpp"

namespace instinfer::test_damage {

using test::call;
using test::expected_states;
using test::is_long;
using test::lasting_engine;
using test::lasting_options;
using test::open_lasting;
using test::own_folder;
using test::seen;
using test::take_step;

namespace {

constexpr std::uint32_t pages = 16;  // 524,288 bits
constexpr unsigned steps = 8;

// A folder with a drive after some commits, its files, and what an engine over it shows.
struct damaged_drive {
  explicit damaged_drive(unsigned last = steps) {
    lasting_engine e = open_lasting(lasting_options(folder), pages);
    for (unsigned step = 0; step < last; ++step) {
      take_step(e, step);
      e.commit();
    }
    expected = seen(e);
    state_bytes = e.pages().commit_bytes();
    for (const std::string& name : folder.files()) {
      files.emplace_back(name, test::bytes_of_file(folder / name));
    }
  }
  std::string& of(const std::string& name) {
    return std::ranges::find(files, name, [](const auto& f) { return f.first; })->second;
  }

  own_folder folder;
  std::vector<std::pair<std::string, std::string>> files;
  std::vector<float> expected;
  std::uint64_t state_bytes = 0;  // the file may be longer: an earlier state was
};

struct counts {
  std::size_t cases = 0, refused = 0, harmless = 0, silent = 0;

  // Opens a drive and computes all that it shows.
  std::string add(const damaged_drive& drive, const std::vector<float>& expected) {
    ++cases;
    try {
      lasting_engine e = open_lasting(lasting_options(drive.folder), pages);
      (seen(e) == expected ? harmless : silent) += 1;
    } catch (const error& e) {  // bad_file, page_damaged, io_error
      ++refused;
      return e.what();
    }
    return "no error";
  }
};

std::string to_string(const counts& c) {
  return std::to_string(c.cases) + " cases: " + std::to_string(c.refused) + " refused, " +
         std::to_string(c.harmless) + " harmless, " + std::to_string(c.silent) + " silent";
}

}  // namespace

TEST_CASE("a flipped bit of any file is refused or harmless") {
  const damaged_drive drive;
  counts all;
  for (const auto& [name, bytes] : drive.files) {
    counts of_file;
    const std::size_t bits = bytes.size() * 8;
    const std::size_t step = is_long() ? 1 : bits / 60 + 1;
    for (std::size_t bit = name.size() % step; bit < bits; bit += step) {
      std::string damaged = bytes;
      damaged[bit / 8] = static_cast<char>(damaged[bit / 8] ^ (1 << bit % 8));
      test::write_file(drive.folder / name, damaged);
      of_file.add(drive, drive.expected);
    }
    test::write_file(drive.folder / name, bytes);
    MESSAGE("flips of " << name << ", " << to_string(of_file));
    CHECK(of_file.silent == 0);
    all.cases += of_file.cases;
    all.refused += of_file.refused;
  }
  CHECK(all.refused > all.cases / 10);
  CHECK(all.cases >= (is_long() ? 524288u : 250u));

  // The canary: an engine that shows something else is noticed.
  const damaged_drive other(steps + 1);
  counts canary;
  canary.add(other, drive.expected);
  CHECK(canary.silent == 1);
}

TEST_CASE("a file that is cut off at any length is refused or harmless") {
  const damaged_drive drive;
  counts all;
  for (const auto& [name, bytes] : drive.files) {
    const std::size_t step = is_long() ? 1 : bytes.size() / 16 + 1;
    for (std::size_t length = 0; length < bytes.size(); length += step) {
      test::write_file(drive.folder / name, bytes.substr(0, length));
      all.add(drive, drive.expected);
    }
    test::write_file(drive.folder / name, bytes);
  }
  MESSAGE("truncations, " << to_string(all));
  CHECK(all.silent == 0);
  CHECK(all.refused > all.cases / 10);
}

TEST_CASE("pages and states of another place or an earlier time are refused") {
  damaged_drive drive;
  damaged_drive earlier(steps - 2);  // of another number, so all of its pages are others
  counts all;
  const auto try_file = [&](const std::string& name, const std::string& bytes) {
    test::write_file(drive.folder / name, bytes);
    const std::string what = all.add(drive, drive.expected);
    test::write_file(drive.folder / name, drive.of(name));
    return what;
  };
  for (const std::string name : {"m.0.pages", "m.1.pages"}) {
    const std::string& right = drive.of(name);
    for (std::size_t to = 0; to < right.size(); to += test::lasting_page) {
      for (std::size_t from = 0; from < right.size(); from += test::lasting_page) {
        std::string bytes = right;  // misdirected
        bytes.replace(to, test::lasting_page, right, from, test::lasting_page);
        try_file(name, bytes);
      }
      std::string bytes = right;  // stale, or zeros where it was not yet written then
      bytes.replace(to, test::lasting_page, earlier.of(name), to, test::lasting_page);
      try_file(name, bytes);
    }
  }
  CHECK(all.cases == pages * (pages / 2 + 1));
  CHECK(all.silent == 0);
  CHECK(all.refused > all.cases / 4);
  MESSAGE("misdirected and stale pages, " << to_string(all));

  const std::string newest = steps % 2 == 0 ? "m.0.state" : "m.1.state";
  const std::string former = steps % 2 == 0 ? "m.1.state" : "m.0.state";
  const std::string wrong = "drive_files: " + drive.folder.path() + "/" + newest +
                            " is damaged: its " + std::to_string(drive.state_bytes) +
                            " bytes are not those of commit " + std::to_string(steps);
  CHECK(try_file(newest, drive.of(former)) == wrong);
  CHECK(try_file(newest, earlier.of(newest)) == wrong);
  CHECK(try_file("m.drive", earlier.of("m.drive")) != "no error");
  CHECK(try_file(former, drive.of(newest)) == "no error");  // only the next commit uses it
  CHECK(all.silent == 0);
}

namespace {

// Opens, decodes, commits and opens again, while the n-th call of a kind gives `result`, `times`
// times. Returns whether that many calls were made.
bool survives(call kind, int n, std::int64_t result, int times, expected_states& expected) {
  const own_folder folder;
  test::faulty_calls calls;
  calls.ring = false;
  calls.fail(kind, n, result, times);
  unsigned acknowledged = 0;  // steps
  unsigned under_way = 0;
  unsigned step = 0;
  const auto decode = [&](unsigned end) {
    lasting_engine e = open_lasting(lasting_options(folder, &calls), 32);
    const std::vector<float> reopened = seen(e);
    acknowledged = reopened == expected.after(under_way) ? under_way : acknowledged;
    const bool last_commit = reopened == expected.after(acknowledged);
    CHECK(last_commit);
    step = acknowledged;
    while (step < end) {
      take_step(e, step++);
      under_way = step;
      try {
        e.commit();
      } catch (const io_error& error) {
        CHECK((error.code == -result || error.code == EIO));
        calls.stop_failing();
        REQUIRE(seen(e) == expected.after(step));  // the engine goes on
        e.commit();                                // throws again where a sync of pages has failed
      }
      acknowledged = step;
    }
    const std::vector<float> goes_on = seen(e);
    CHECK((goes_on == expected.after(step)));
  };
  for (const unsigned end : {3u, 6u}) {
    try {
      decode(end);
    } catch (const io_error& error) {
      CHECK((error.code == -result || error.code == EIO));
    }
  }
  const bool reached = calls.failed();
  calls.stop_failing();
  lasting_engine e = open_lasting(lasting_options(folder), 32);
  const std::vector<float> what = seen(e);
  CHECK((what == expected.after(acknowledged) || what == expected.after(under_way)));
  return reached;
}

}  // namespace

TEST_CASE("every system call fails, once and for ever, and the last commit is there") {
  expected_states expected(32);
  int sites = 0;
  const auto each_call = [&](call kind, std::initializer_list<std::int64_t> results) {
    for (const std::int64_t result : results) {
      for (const int times : {1, INT_MAX}) {
        if (result > 0 && times > 1) {
          continue;  // a short transfer is no error, at any time
        }
        const int step = is_long() || kind == call::lock ? 1 : 2;
        int n = 0;
        while (survives(kind, n, result, times, expected)) {
          CAPTURE(n);
          n += step;
          ++sites;
        }
      }
    }
  };
  each_call(call::open, {-EIO, -EMFILE, -ENOSPC});
  each_call(call::reserve, {-EIO, -ENOSPC, -EINTR});
  each_call(call::lock, {-EIO, -ENOLCK, -EINTR});
  each_call(call::read, {-EIO, -EINTR, -EAGAIN, 512});
  each_call(call::write, {-EIO, -ENOSPC, -EINTR, -EAGAIN, 512});
  each_call(call::sync, {-EIO, -ENOSPC, -EINTR});
  MESSAGE(sites << " failures of system calls");
  CHECK(sites > 200);
}

TEST_CASE("a failed sync of pages ends commits, and what is committed stays") {
  const own_folder folder;
  test::faulty_calls calls;
  expected_states expected(pages);
  {
    lasting_engine e = open_lasting(lasting_options(folder, &calls), pages);
    take_step(e, 0);
    e.commit();
    take_step(e, 1);
    calls.fail(call::sync, 1, -EIO);
    CHECK(test::refusal_of<io_error>([&] { e.commit(); }) ==
          "drive_files: syncing the pages of channel 1 failed: Input/output error");
    CHECK(test::refusal_of<io_error>([&] {
            e.commit();
          }).starts_with("commit: a sync of the pages has failed, so some of them may be lost"));
    CHECK(seen(e) == expected.after(2));
  }
  lasting_engine e = open_lasting(lasting_options(folder), pages);
  CHECK(seen(e) == expected.after(1));
}

TEST_CASE("a commit whose superblock may be on the drive is taken back before it is made again") {
  const own_folder folder;
  test::faulty_calls calls;
  expected_states expected(pages);
  const auto failing = [&](int sync, int writes_until_kill) {
    lasting_engine e = open_lasting(lasting_options(folder, &calls), pages);
    take_step(e, 1);
    calls.fail(call::sync, sync, -EIO);
    CHECK_THROWS_AS(e.commit(), io_error);
    take_step(e, 2);
    calls.fail(call::write, writes_until_kill, -EIO, INT_MAX);
    CHECK_THROWS_AS(e.commit(), io_error);
    calls.stop_failing();
  };
  {
    lasting_engine e = open_lasting(lasting_options(folder), pages);
    take_step(e, 0);
    e.commit();
  }
  failing(3, 0);  // pages of two channels, the state, then the superblock: it is written
  {
    lasting_engine e = open_lasting(lasting_options(folder), pages);
    CHECK(seen(e) == expected.after(2));
    CHECK(e.pages().commits() == 2);
  }
}

}  // namespace instinfer::test_damage
