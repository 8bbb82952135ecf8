// Whatever ends a process or the power, a drive that lasts has the last commit that was
// acknowledged, or the one that was being made, as a whole.
// INSTINFER_LONG=SEED: 1,000 rounds of kill -9, and a longer run cut at every call and sector.

#include <signal.h>
#include <sys/wait.h>

#include <cstdio>
#include <random>
#include <string>
#include <vector>

#include <doctest/doctest.h>

#include "recorded_calls.hpp"
#include "tests/support/long_run.hpp"

namespace instinfer::test_crash {

using test::expected_states;
using test::files_after;
using test::is_long;
using test::lasting_engine;
using test::lasting_options;
using test::open_lasting;
using test::own_folder;
using test::seed_of_run;
using test::seen;
using test::take_step;

namespace {

constexpr std::uint32_t pages = 64;
// Each commit and the one before have pages of their own, and children differ in how far they get.
constexpr std::uint32_t pages_of_children = 256;

// What comes of opening a drive that should have `acknowledged` steps, or `under_way`.
enum class outcome { right, refused, wrong };
outcome opened(const own_folder& folder, std::uint32_t size, expected_states& expected,
               std::size_t acknowledged, std::size_t under_way) {
  try {
    lasting_engine e = open_lasting(lasting_options(folder), size);
    const std::vector<float> what = seen(e);
    return what == expected.after(acknowledged) || what == expected.after(under_way)
               ? outcome::right
               : outcome::wrong;
  } catch (const error& e) {
    INFO(e.what());
    return outcome::refused;
  }
}

struct counts {
  std::size_t cases = 0, refused = 0, wrong = 0;
  void add(outcome of) {
    ++cases;
    refused += of == outcome::refused ? 1 : 0;
    wrong += of == outcome::wrong ? 1 : 0;
  }
};

// Opens what each part of the calls may leave. A mark is the number of steps that a commit was
// acknowledged for; the commit after it is that of `steps_of_commit` more.
counts cut_everywhere(const std::vector<test::recorded_call>& log, expected_states& expected,
                      std::size_t steps_of_commit, std::size_t cuts_of_write,
                      std::mt19937& random) {
  const own_folder folder;
  counts count;
  files_after files;
  std::size_t acknowledged = 0;
  for (const test::recorded_call& call : log) {
    if (call.what == test::recorded_call::marked) {
      acknowledged = call.offset;
      continue;
    }
    files.add(call);
    const auto check = [&](const files_after::contents& left) {
      files_after::put(folder, left);
      count.add(opened(folder, pages, expected, acknowledged, acknowledged + steps_of_commit));
    };
    check(files.lost());
    if (files.pending().empty()) {
      continue;
    }
    check(files.kept());
    check(files.reordered(random));
    check(files.sectors(random));
    const std::size_t bytes = files.pending().back().bytes.size();
    const std::size_t step = std::max<std::size_t>(512, bytes / cuts_of_write / 512 * 512);
    for (std::size_t cut = 512; cut < bytes; cut += step) {
      check(files.torn(cut));
    }
  }
  return count;
}

}  // namespace

TEST_CASE("power is lost after each call: unsynced writes kept, lost, reordered, torn") {
  constexpr unsigned steps_of_commit = 3;
  const unsigned commits = is_long() ? 30 : 5;
  std::vector<test::recorded_call> log;
  {
    const own_folder folder;
    test::recorded_calls calls;
    for (unsigned step = 0; step < commits * steps_of_commit;) {
      lasting_engine e = open_lasting(lasting_options(folder, &calls), pages);
      for (int i = 0; i < 2 && step < commits * steps_of_commit; ++i) {  // then it is opened again
        for (unsigned end = step + steps_of_commit; step < end; ++step) {
          take_step(e, step);
        }
        e.commit();
        calls.mark(step);
      }
    }
    log = std::move(calls.log);
  }
  expected_states expected(pages);
  std::mt19937 random(seed_of_run());
  const counts count = cut_everywhere(log, expected, steps_of_commit, is_long() ? 1000 : 4, random);
  MESSAGE(count.cases << " losses of power in " << log.size() << " calls, seed " << seed_of_run());
  CHECK(count.cases > 300);
  CHECK(count.refused == 0);
  CHECK(count.wrong == 0);

  // The canary: a drive that says it has synced pages, and has not, loses some. That is noticed,
  // and no number is computed from what is left.
  std::erase_if(log, [](const test::recorded_call& call) {
    return call.what == test::recorded_call::synced && call.path.ends_with(".pages");
  });
  const counts canary = cut_everywhere(log, expected, steps_of_commit, 1, random);
  CHECK(canary.refused > 0);
  CHECK(canary.wrong == 0);
}

namespace {

constexpr unsigned steps_of_commit = 3;

// Takes steps and commits from `step` on until it is killed, and writes the number of steps of each
// acknowledged commit to the pipe. One that lies acknowledges what it does not commit, and waits.
[[noreturn]] void run_child(const drive::options& options, unsigned step, int pipe, bool lies) {
  try {
    lasting_engine e = open_lasting(options, pages_of_children);
    for (;; ++step) {
      take_step(e, step);
      if ((step + 1) % steps_of_commit == 0) {
        if (!lies) {
          e.commit();
        }
        const unsigned steps = step + 1;
        if (::write(pipe, &steps, sizeof(steps)) != sizeof(steps)) {
          ::_exit(2);
        }
        while (lies) {
          ::pause();
        }
      }
    }
  } catch (const std::exception& e) {
    std::fprintf(stderr, "the child at step %u: %s\n", step, e.what());
    ::_exit(1);
  }
}

// Runs a child that starts after `steps`, and kills it after some time, or after its first
// acknowledged commit if that time is 0. Returns the last number of steps acknowledged.
unsigned run_and_kill(const drive::options& options, unsigned steps, unsigned microseconds,
                      bool lies) {
  int ends[2];
  REQUIRE(::pipe(ends) == 0);
  const pid_t child = ::fork();
  if (child == 0) {
    ::close(ends[0]);
    run_child(options, steps, ends[1], lies);
  }
  ::close(ends[1]);
  unsigned acknowledged = steps;
  unsigned next = 0;
  if (microseconds > 0) {
    ::usleep(microseconds);
  } else if (::read(ends[0], &next, sizeof(next)) == sizeof(next)) {
    acknowledged = next;
  }
  ::kill(child, SIGKILL);
  while (::read(ends[0], &next, sizeof(next)) == sizeof(next)) {
    acknowledged = next;
  }
  ::close(ends[0]);
  int status = 0;
  REQUIRE(::waitpid(child, &status, 0) == child);
  CHECK(WIFSIGNALED(status));  // it has not ended by itself
  return acknowledged;
}

}  // namespace

TEST_CASE("kill -9 at any time") {
  const unsigned rounds = is_long() ? 1000 : 12;
  std::mt19937 random(seed_of_run());
  expected_states expected(pages_of_children);
  const own_folder folder;
  unsigned steps = 0;  // that the drive has
  unsigned commits = 0;
  std::size_t lost = 0;
  for (unsigned round = 0; round < rounds; ++round) {
    CAPTURE(round);
    if (round % 40 == 39) {  // a drive that is being made
      folder.clear();
      steps = 0;
    }
    drive::options options = lasting_options(folder, nullptr);
    options.ring = random() % 2 == 0;
    options.direct = random() % 2 == 0;
    options.threads = static_cast<unsigned>(random() % 3);
    const auto microseconds = static_cast<unsigned>(1 + random() % 150000);
    const unsigned acknowledged = run_and_kill(options, steps, microseconds, false);
    commits += (acknowledged - steps) / steps_of_commit;
    const outcome of =
        opened(folder, pages_of_children, expected, acknowledged, acknowledged + steps_of_commit);
    CHECK(of == outcome::right);
    lost += of == outcome::right ? 0 : 1;
    lasting_engine e = open_lasting(lasting_options(folder), pages_of_children);
    steps = seen(e) == expected.after(acknowledged) ? acknowledged : acknowledged + steps_of_commit;
  }
  MESSAGE(rounds << " rounds of kill -9, seed " << seed_of_run() << ": " << commits
                 << " commits were acknowledged, " << lost << " rounds lost one");

  // The canary: a child that acknowledges what it does not commit is noticed.
  const unsigned claimed = run_and_kill(lasting_options(folder), steps, 0, true);
  CHECK(claimed > steps);
  const auto shows = [&](std::size_t acknowledged) {
    return opened(folder, pages_of_children, expected, acknowledged, acknowledged);
  };
  CHECK(shows(claimed) == outcome::wrong);
  CHECK(shows(steps) == outcome::right);
}

}  // namespace instinfer::test_crash
