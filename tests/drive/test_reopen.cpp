// A drive that lasts: an engine over it has what the last commit had, bit by bit, and nothing else;
// another cache, another size and a second owner are refused.

#include <sys/wait.h>

#include <optional>
#include <random>
#include <string>
#include <string_view>
#include <vector>

#include <doctest/doctest.h>

#include "lasting_drive.hpp"
#include "tests/support/refusal.hpp"

namespace instinfer::test_reopen {

using store::drive_files;
using test::in_memory;
using test::lasting_engine;
using test::lasting_options;
using test::open_lasting;
using test::own_folder;
using test::refusal_of;
using test::seen;
using test::take_step;

static_assert(store::LastingStore<drive_files>);
static_assert(!store::LastingStore<store::memory>);

namespace {
constexpr std::uint32_t pages = 64;
}

TEST_CASE("an engine over the same drive goes on with the bits of the last commit") {
  const own_folder folder;
  auto expected = in_memory(pages);
  for (unsigned step = 0; step < 40;) {
    CAPTURE(step);
    drive::options options = lasting_options(folder, nullptr);
    options.ring = options.direct = step % 2 == 0;  // all ways write the same files
    options.threads = step % 4 == 1 ? 2 : 0;
    lasting_engine e = open_lasting(options, pages);
    CHECK(e.sequences().size() == expected.sequences().size());
    CHECK(e.pages().commits() == (step + 4) / 5);
    REQUIRE(seen(e) == seen(expected));
    for (const unsigned end = step + 5; step < end; ++step) {
      take_step(e, step);
      take_step(expected, step);
    }
    e.commit();
    CHECK(!e.pages().to_reopen());
    CHECK(e.pages().held_pages() == 0);
    CHECK(e.pages().free_pages() == expected.pages().free_pages());
    CHECK(seen(e) == seen(expected));
    // What comes after the commit is not on the drive, and does not touch what is.
    take_step(e, step);
    e.reclaim(e.sequences()[0]);
    const sequence other = e.open();
    const std::vector<fp16> rows(64 * 100, from_float<fp16>(1.0f));
    e.append(other, 0, rows, rows);
  }
  CHECK(folder.files() ==
        std::vector<std::string>{"m.0.pages", "m.0.state", "m.1.pages", "m.1.state", "m.drive"});
}

TEST_CASE("a released page that the last commit has is free after the next one") {
  const own_folder folder;
  lasting_engine e = open_lasting(lasting_options(folder), pages);
  const std::vector<fp16> rows(64 * 64, from_float<fp16>(1.0f));
  const auto fill = [&] {
    const sequence seq = e.open();
    e.append(seq, 0, rows, rows);
    return seq;
  };
  const sequence first = fill();
  const std::uint64_t taken = pages - e.pages().free_pages();
  CHECK(taken == 4);  // 64 tokens of 128 bytes: 2 pages of K and of V; K by dim is still open
  e.reclaim(first);
  CHECK(e.pages().free_pages() == pages);  // no commit has them
  const sequence second = fill();
  e.commit();
  e.reclaim(second);
  CHECK(e.pages().held_pages() == taken);
  CHECK(e.pages().free_pages() == pages - taken);
  std::vector<sequence> more;
  while (e.pages().free_pages() >= taken) {
    more.push_back(fill());
  }
  CHECK_THROWS_AS(fill(), drive_full);
  e.commit();
  CHECK(e.pages().held_pages() == 0);
  CHECK(e.pages().free_pages() == pages - more.size() * taken);
  fill();
}

TEST_CASE("a commit takes 20 bytes for each sealed page, open pages and summaries") {
  const own_folder folder;
  lasting_engine e = open_lasting(lasting_options(folder), 512);
  e.commit();
  const std::uint64_t nothing = e.pages().commit_bytes();
  const sequence seq = e.open();
  const std::vector<fp16> rows(64 * 1024, from_float<fp16>(1.0f));
  e.append(seq, 0, rows, rows);  // whole tiles of all streams: 32 pages each
  e.commit();
  const std::uint64_t first = e.pages().commit_bytes();
  CHECK(first > nothing);
  for (int i = 0; i < 3; ++i) {
    e.append(seq, 0, rows, rows);
  }
  e.commit();
  CHECK(e.pages().commit_bytes() - first == 3 * 96 * 20);
  e.append(seq, 0, std::span(rows).first(64 * 3), std::span(rows).first(64 * 3));
  e.commit();  // the open pages of K, K again and V have room for 4 tokens, of 64 dims
  CHECK(e.pages().commit_bytes() - first == 3 * 96 * 20 + 3 * 4 * 64 * sizeof(fp16));
}

TEST_CASE("another cache and another size of the drive are refused, with both") {
  const own_folder folder;
  {
    lasting_engine e = open_lasting(lasting_options(folder), pages);
    take_step(e, 0);
    e.commit();
  }
  const auto with_channels = [&](std::uint32_t channels, std::uint32_t of_each) {
    return refusal_of<bad_file>(
        [&] { drive_files(lasting_options(folder), channels, of_each, test::lasting_page); });
  };
  const std::string is =
      "drive_files: " + folder.path() +
      "/m.drive has 2 channels of 32 pages of 4096 bytes in 1 folders, the store was asked for ";
  CHECK(with_channels(4, 16) == is + "4 channels of 16 pages of 4096 bytes in 1 folders");
  CHECK(with_channels(2, 33) == is + "2 channels of 33 pages of 4096 bytes in 1 folders");

  const auto store_of = [&] {
    return drive_files(lasting_options(folder), 2, pages / 2, test::lasting_page);
  };
  const auto reopened_as = [&](const model_shape& shape, std::uint32_t context = 64) {
    return refusal_of<bad_file>(
        [&] { lasting_engine(shape, {.context_tokens = context}, store_of()); });
  };
  CHECK(reopened_as({.layers = 3, .q_heads = 2, .kv_heads = 1}) ==
        "reopen: the drive is of another cache: it has \"layers: 2\", the engine \"layers: 3\"");
  CHECK(reopened_as({.layers = 2, .q_heads = 4, .kv_heads = 1}) ==
        "reopen: the drive is of another cache: it has \"query heads: 2\", the engine \"query "
        "heads: 4\"");
  CHECK(reopened_as(test::lasting_shape, 4096)
            .starts_with("reopen: the drive is of a cache for another context: context_tokens = "));
  for (const std::string& name : folder.files()) {  // under another name it is another model
    ::rename((folder / name).c_str(), (folder / ("n" + name.substr(1))).c_str());
  }
  drive::options renamed = lasting_options(folder);
  renamed.name = "n";
  CHECK(refusal_of<bad_file>([&] { open_lasting(renamed, pages); }) ==
        "reopen: the drive is of another cache: it has \"model: m\", the engine \"model: n\"");
}

TEST_CASE("a page in the tables of two caches on a drive is refused, within one it is shared") {
  struct pages_of_a_commit {
    std::vector<bool> has{true, true, true, false};
    unsigned shared = 0;
    bool holds(page_id page) const { return has[static_cast<std::uint32_t>(page)]; }
    void reserve_owners(std::span<const page_id>) {}
    void share(std::span<const page_id> more) { shared += static_cast<unsigned>(more.size()); }
    static std::uint64_t capacity_pages() { return 4; }
    static std::uint64_t free_pages() { return 1; }
  };
  pages_of_a_commit first, second;
  store::page_owners owners(4);
  const page_id of_first[] = {page_id{0}, page_id{2}, page_id{0}};
  owners.add(first, of_first);
  CHECK(first.shared == 1);
  CHECK(refusal_of<bad_file>([&] { owners.require_all(first); }) ==
        "reopen: the commit has 3 pages, its tables name 2");
  owners.next_cache();
  const page_id of_second[] = {page_id{1}, page_id{1}};
  owners.add(second, of_second);
  CHECK(second.shared == 1);
  owners.require_all(second);
  const auto refusal = [&](page_id page) {
    return refusal_of<bad_file>([&] { owners.add(second, {&page, 1}); });
  };
  CHECK(refusal(page_id{2}) == "reopen: page 2 is in the tables of two caches");
  CHECK(refusal(page_id{3}) ==
        "reopen: a table names page 3, which is not among the pages of the commit");
  CHECK(refusal(page_id{4}) ==
        "reopen: a table names page 4, which is not among the pages of the commit");
}

// Reads of one page give the bytes of another one, as from a drive that mixes up addresses.
struct misdirected_reads : test::unsynced_calls {
  struct place {
    int file = -1;
    std::uint64_t offset = 0;
  };
  std::vector<int> files;  // of the channels
  std::optional<place> from, to;

  place of(page_id page) const {
    return {files[channel_of(page, test::lasting_channels)],
            slot_of(page, test::lasting_channels) * std::uint64_t{test::lasting_page}};
  }
  int open(const char* path, int flags) override {
    const int file = system_calls::open(path, flags);
    if (file >= 0 && std::string_view(path).ends_with(".pages")) {
      files.push_back(file);
    }
    return file;
  }
  std::int64_t read(int file, std::byte* into, std::size_t bytes, std::uint64_t offset) override {
    const std::int64_t done = system_calls::read(file, into, bytes, offset);
    if (from && from->file == file && from->offset >= offset && from->offset < offset + bytes) {
      system_calls::read(to->file, into + (from->offset - offset), test::lasting_page, to->offset);
    }
    return done;
  }
};

// All pages are of the first generation: heads, layers, K and V, sequences, a fork; before and
// after a commit.
TEST_CASE("a page that is read in the place of any other one is found, and named") {
  const own_folder folder;
  std::mt19937 random(4);
  const auto drawn = [&](std::size_t n, auto element) {
    std::vector<decltype(element)> x(n);
    for (auto& e : x) {
      e = from_float<decltype(element)>(static_cast<float>(random() % 512) / 128 - 2);
    }
    return x;
  };
  misdirected_reads calls;
  const auto open = [&] {
    calls.files.clear();
    return lasting_engine({.layers = 2, .q_heads = 4, .kv_heads = 2}, {.context_tokens = 64},
                          drive_files(lasting_options(folder, &calls), 2, 100, test::lasting_page));
  };
  const std::vector<float> q = drawn(4 * 64, 0.0f);
  std::vector<page_id> all;
  const auto check = [&](lasting_engine& e) {
    std::vector<float> out(q.size());
    std::vector<std::vector<float>> expected;
    const auto attends = [&](auto&& f) {
      for (const sequence seq : e.sequences()) {
        for (int l = 0; l < 2; ++l) {
          f([&, seq, l] { e.attend(seq, l, q, out); });
        }
      }
    };
    attends([&](auto&& attend) {
      attend();
      expected.push_back(out);
    });
    std::size_t found = 0, silent = 0, wrongly_named = 0;
    for (std::size_t p = 0; p < all.size(); ++p) {
      calls.from = calls.of(all[p]);
      calls.to = calls.of(all[(p + 1 + random() % (all.size() - 1)) % all.size()]);
      std::size_t i = 0;
      attends([&](auto&& attend) {
        try {
          attend();
          silent += out != expected[i] ? 1 : 0;  // it must not have read the page
        } catch (const page_damaged& error) {
          ++found;
          wrongly_named += error.page != all[p] ? 1 : 0;
        }
        ++i;
      });
      calls.from.reset();
    }
    CHECK(found >= all.size());  // most pages by two sequences, some by none
    CHECK(silent == 0);
    CHECK(wrongly_named == 0);
  };
  {
    lasting_engine e = open();
    for (int s = 0; s < 2; ++s) {
      const sequence seq = e.open();
      for (int l = 0; l < 2; ++l) {
        const std::vector<fp16> k = drawn(170 * 2 * 64, fp16{});
        e.append(seq, l, k, drawn(170 * 2 * 64, fp16{}));
        all.insert(all.end(), e.written().begin(), e.written().end());
      }
    }
    e.fork(e.sequences()[0]);
    e.commit();
    check(e);
  }
  lasting_engine e = open();
  check(e);
}

TEST_CASE("a second store on the drive is refused, in this process and in another one") {
  const own_folder folder;
  const std::string refused =
      "drive_files: " + folder.path() +
      "/m.drive is in use: another store has opened it, in this process or in another one";
  const auto refusal = [&] {
    return refusal_of<io_error>([&] { open_lasting(lasting_options(folder), pages); });
  };
  {
    lasting_engine e = open_lasting(lasting_options(folder), pages);
    take_step(e, 0);
    CHECK(refusal() == refused);
    const pid_t child = ::fork();
    if (child == 0) {
      ::_exit(refusal() == refused ? 0 : 1);
    }
    int status = -1;
    REQUIRE(::waitpid(child, &status, 0) == child);
    CHECK(status == 0);
    e.commit();
  }
  CHECK(refusal() == "no error");
}

TEST_CASE("files that are not a drive, and drives without their files, are refused") {
  const own_folder folder;
  const auto refusal = [&] {
    return refusal_of<error>([&] { open_lasting(lasting_options(folder), pages); });
  };
  test::write_file(folder / "m.1.pages", "somebody's bytes");
  CHECK(refusal() == "drive_files: " + folder.path() + "/m.1.pages is there, but " + folder.path() +
                         "/m.drive has no superblock that can be read: it is damaged or not of "
                         "this drive; remove both for a new drive");
  CHECK(test::bytes_of_file(folder / "m.1.pages") == "somebody's bytes");
  folder.clear();
  {
    lasting_engine e = open_lasting(lasting_options(folder), pages);
    take_step(e, 0);
    e.commit();
  }
  drive_files waits(lasting_options(folder), 2, pages / 2, test::lasting_page);
  CHECK(refusal_of<bad_argument>([&] { waits.begin_writes(0); }) ==
        "drive_files: m holds commit 1, which nothing has reopened; an engine of the same kind "
        "does");
  waits.reopen([](auto&) {});
  waits.begin_writes(0);
  CHECK_THROWS_AS(waits.reopen([](auto&) {}), bad_argument);
  drive_files gone = std::move(waits);
  {
    const drive_files closes = std::move(gone);
  }
  ::unlink((folder / "m.1.pages").c_str());
  CHECK(refusal() ==
        "drive_files: opening " + folder.path() + "/m.1.pages failed: No such file or directory");
  lasting_engine scratch(
      test::lasting_shape, test::lasting_room(pages),
      drive_files({.folders = {folder.path()}}, 2, pages / 2, test::lasting_page));
  take_step(scratch, 0);
  CHECK(refusal_of<bad_argument>([&] { scratch.commit(); }) ==
        "commit: the drive has no name and goes with its store, see drive::options::name");
}

}  // namespace instinfer::test_reopen
