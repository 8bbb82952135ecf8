// Fuzz target of all that reads files: any bytes are a cache file, a commit's state or a drive, or
// are refused with an error of the library, and what was there before is as it was.
//
// The first byte chooses the reader. So that mutations get past the checksums, an input has the
// mark `checksum_here` where a file has a checksum, and gets the right one; a drive gets
// superblocks.

#include <sys/stat.h>

#include <algorithm>
#include <array>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <random>
#include <string>
#include <vector>

#include "instinfer/drive/page_files.hpp"
#include "instinfer/layout/dual.hpp"
#include "instinfer/store/pages/memory.hpp"
#include "instinfer/store/sequences/commit.hpp"
#include "instinfer/store/sequences/kv_cache.hpp"
#include "instinfer/summaries/mean_value.hpp"
#include "instinfer/summaries/page_bounds.hpp"
#include "tests/support/fuzz.hpp"

namespace instinfer::test {

namespace {

constexpr std::array<char, 8> checksum_here{'\xFE', 'c', 'h', 'e', 'c', 'k', 's', '\xFE'};

// Gives the bytes of an input, with checksums for marks. It is a store::file_reader's stream, and
// adds up what the reader adds up.
class marked_stream {
 public:
  explicit marked_stream(std::string_view bytes) : left_{bytes} {}
  void read(char* to, std::ptrdiff_t count) {
    got_ = std::min(count, static_cast<std::ptrdiff_t>(left_.size()));
    std::copy_n(left_.begin(), got_, to);
    left_.remove_prefix(static_cast<std::size_t>(got_));
    if (count == 8 && got_ == 8 && std::memcmp(to, checksum_here.data(), 8) == 0) {
      const std::uint64_t sum = sum_.value();
      std::memcpy(to, &sum, 8);
    }
    sum_.add(std::as_bytes(std::span(to, static_cast<std::size_t>(got_))));
  }
  std::ptrdiff_t gcount() const { return got_; }
  bool good() const { return true; }

 private:
  std::string_view left_;
  std::ptrdiff_t got_ = 0;
  store::checksum sum_;
};

// The other way round: a store::file_writer's stream.
class marking_stream {
 public:
  void write(const char* from, std::ptrdiff_t count) {
    std::string part(from, static_cast<std::size_t>(count));
    const std::uint64_t sum = sum_.value();
    sum_.add(std::as_bytes(std::span(part)));
    if (count == 8 && std::memcmp(from, &sum, 8) == 0) {
      part.assign(checksum_here.begin(), checksum_here.end());
    }
    bytes += part;
  }
  bool good() const { return true; }
  void flush() {}
  std::string bytes;

 private:
  store::checksum sum_;
};

// Pages in memory, which a state may name.
class kept_pages : public store::memory {
 public:
  using store::memory::memory;
  bool holds(page_id page) const { return held[static_cast<std::uint32_t>(page)]; }
  std::vector<bool> held = std::vector<bool>(capacity_pages());
};

constexpr std::uint32_t page_bytes = 512;
constexpr std::uint32_t seed_pages = 40;  // K and V of 5 tiles, 2 heads, 2 layers
constexpr model_shape shape{.layers = 2, .q_heads = 2, .kv_heads = 2};
const store::capacity room{.bytes = 64 * page_bytes, .context_tokens = 64, .buffer_bytes = 1 << 20};
using format = kv_format<fp16, 64>;
using cache_type = store::kv_cache<
    format, layout::dual<page_bytes>,
    std::tuple<attention::mean_value::state<format>, attention::page_bounds<16>::state<format>>,
    kept_pages>;

cache_type empty_cache() { return {shape, room, 2}; }

void fill(cache_type& cache, sequence seq, std::size_t tokens) {
  std::vector<fp16> rows(tokens * 2 * 64, from_float<fp16>(0.5f));
  std::vector<page_id> written;
  for (int l = 0; l < shape.layers; ++l) {
    cache.append(seq, l, rows, rows, written);
  }
  for (const page_id page : written) {
    cache.pages().held[static_cast<std::uint32_t>(page)] = true;
  }
}

// A check of the target itself.
void must(bool holds, const char* what) {
  if (!holds) {
    std::fprintf(stderr, "fuzz_files: %s\n", what);
    std::abort();
  }
}

// The cache works, and all of its pages can be given back.
void use(cache_type& cache) {
  for (const sequence seq : cache.sequences()) {
    for (int l = 0; l < shape.layers; ++l) {
      const auto& layer = cache.at(seq, l);
      must(layer.first() <= layer.tokens(), "live tokens end before they begin");
      must(layer.open_bytes() <= room.buffer_bytes, "open pages beyond the group buffer");
    }
    cache.reclaim(seq);
  }
  must(cache.pages().free_pages() == cache.pages().capacity_pages(), "pages were lost");
  must(cache.buffered_bytes() == 0, "room in the group buffer was lost");
}

void load_cache_file(std::string_view bytes) {
  cache_type cache = empty_cache();
  const sequence seq = cache.open();
  marked_stream in(bytes);
  std::vector<page_id> written;
  try {
    store::load(cache, seq, "m", in, written);
  } catch (const error&) {
    must(cache.at(seq, 0).tokens() == 0 && written.empty(), "a refused file left something");
    use(cache);
    throw;
  }
  use(cache);
}

void read_commit(std::string_view bytes) {
  cache_type cache = empty_cache();
  for (std::uint32_t page = 0; page < seed_pages;
       ++page) {  // as the drive's own part of a commit has it
    cache.pages().held[static_cast<std::uint32_t>(cache.pages().allocate(page))] = true;
  }
  marked_stream in(bytes);
  store::read_state(cache, "m", in);
  use(cache);
}

// Nobody cuts the power of the test's machine: syncs take no time.
class unsynced_calls : public drive::system_calls {
 public:
  int sync(int /*file*/) override { return 0; }
};

// A drive whose superblock is right, and whose state is the input; or whose superblocks are.
void open_drive(std::string_view bytes, bool state) {
  std::string folder = "fuzz-XXXXXX";
  must(::mkdtemp(folder.data()) != nullptr, "no folder can be made here");
  const auto write = [](const std::string& path, std::string_view content) {
    std::FILE* file = std::fopen(path.c_str(), "wb");
    must(file != nullptr &&
             std::fwrite(content.data(), 1, content.size(), file) == content.size() &&
             std::fclose(file) == 0,
         "a file cannot be written");
  };
  std::string image(bytes.substr(0, drive::superblocks::file_bytes));
  if (state) {
    drive::superblock block;
    block.commit = 2;
    block.state_bytes = bytes.size();
    block.geometry = {8, 2, 1, page_bytes, 0};
    store::checksum sum = drive::begin_state_sum(block.commit);
    for (std::size_t at = 0; at < bytes.size(); at += drive::state_chunk) {
      sum.add(std::as_bytes(std::span(bytes.substr(at, drive::state_chunk))));
    }
    block.state_sum = sum.value();
    const auto slot = drive::superblocks::slot_of(block);
    image.assign(drive::superblocks::file_bytes, '\0');
    std::memcpy(image.data(), slot.data(), slot.size());
  }
  write(folder + "/m.drive", image);
  write(folder + "/m.0.state", state ? bytes : std::string_view());
  write(folder + "/m.0.pages", "");
  write(folder + "/m.1.pages", "");
  const auto clean = [&] {
    for (const char* name : {"/m.drive", "/m.0.state", "/m.1.state", "/m.0.pages", "/m.1.pages"}) {
      ::unlink((folder + name).c_str());
    }
    ::rmdir(folder.c_str());
  };
  unsynced_calls calls;
  try {
    drive::page_files files({.folders = {folder},
                             .name = "m",
                             .direct = false,
                             .ring = false,
                             .threads = 0,
                             .readers = 1,
                             .buffer_bytes = 8 * page_bytes,
                             .calls = &calls},
                            2, 8, page_bytes);
    for (std::uint32_t page = 0; page < 16; ++page) {  // zeros
      try {
        (void)files.view(page_id{page});
        must(false, "a page passes that nobody has written");
      } catch (const page_damaged&) {
      }
    }
  } catch (...) {
    clean();
    throw;
  }
  clean();
}

}  // namespace

bool fuzz_one(std::string_view input) {
  if (input.empty()) {
    return false;
  }
  const std::string_view rest = input.substr(1);
  try {
    switch (static_cast<unsigned char>(input[0]) % 4) {
      case 0:
        load_cache_file(rest);
        break;
      case 1:
        read_commit(rest);
        break;
      case 2:
        open_drive(rest, true);
        break;
      default:
        open_drive(rest, false);
    }
  } catch (const error&) {
    return false;
  }
  return true;
}

std::vector<std::string> fuzz_seeds() {
  std::vector<std::string> seeds;
  cache_type cache = empty_cache();
  const sequence first = cache.open();
  fill(cache, first, 21);
  marking_stream file;
  store::save(cache, first, "m", file);
  seeds.push_back(std::string(1, '\0') + file.bytes);
  cache.fork(first);
  cache.reclaim(cache.open());
  cache.reclaim(first, {.tokens_before = 3});
  must(cache.pages().capacity_pages() - cache.pages().free_pages() == seed_pages,
       "the seed's pages");
  marking_stream state;
  store::write_state(cache, "m", state);
  seeds.push_back(std::string(1, '\1') + state.bytes);

  // The drive's part: a number of records, each a page, its generation and its checksum.
  const auto number = [](std::string& to, auto value) {
    to.append(reinterpret_cast<const char*>(&value), sizeof(value));
  };
  std::string records(1, '\2');
  number(records, std::uint64_t{3});
  for (std::uint32_t page = 0; page < 3; ++page) {
    number(records, page * 5);
    number(records, std::uint32_t{1});
    number(records, std::uint64_t{0x1234567});
  }
  store::checksum sum;
  sum.add(std::as_bytes(std::span(records).subspan(1, 8)));
  for (std::size_t at = 9; at < records.size(); at += 16) {
    sum.add(std::as_bytes(std::span(records).subspan(at, 16)));
  }
  number(records, sum.value());
  seeds.push_back(records);

  drive::superblock block;
  block.geometry = {8, 2, 1, page_bytes, 0};
  const auto slot = drive::superblocks::slot_of(block);
  std::string image(1 + drive::superblocks::file_bytes, '\0');
  image[0] = '\3';
  std::memcpy(image.data() + 1, slot.data(), slot.size());
  seeds.push_back(image);
  return seeds;
}

}  // namespace instinfer::test

extern "C" int LLVMFuzzerTestOneInput(const unsigned char* data, std::size_t size) {
  instinfer::test::fuzz_one({reinterpret_cast<const char*>(data), size});
  return 0;
}
