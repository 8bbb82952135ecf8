#pragma once
// System calls that are recorded, and the files that a loss of power may leave of a part of them.

#include <algorithm>
#include <map>
#include <random>
#include <string>
#include <vector>

#include "lasting_drive.hpp"

namespace instinfer::test {

struct recorded_call {
  enum kind { wrote, synced, sized, marked } what;
  std::string path;
  std::uint64_t offset = 0;  // or size, or mark
  std::string bytes = {};
};

class recorded_calls : public drive::system_calls {
 public:
  std::vector<recorded_call> log;
  void mark(std::uint64_t what) { log.push_back({recorded_call::marked, "", what}); }

  int open(const char* path, int flags) override {
    const int file = system_calls::open(path, flags);
    if (file >= 0) {
      const std::string name(path);
      paths_[file] = name.substr(name.rfind('/') + 1);
      if ((flags & O_CREAT) != 0) {
        log.push_back({recorded_call::sized, paths_[file], 0});
      }
    }
    return file;
  }
  int reserve(int file, std::uint64_t bytes) override {
    log.push_back({recorded_call::sized, paths_[file], bytes});
    return system_calls::reserve(file, bytes);
  }
  std::int64_t write(int file, const std::byte* from, std::size_t bytes,
                     std::uint64_t offset) override {
    log.push_back({recorded_call::wrote, paths_[file], offset,
                   std::string(reinterpret_cast<const char*>(from), bytes)});
    return system_calls::write(file, from, bytes, offset);
  }
  int sync(int file) override {
    log.push_back({recorded_call::synced, paths_[file]});
    return 0;
  }

 private:
  std::map<int, std::string> paths_;
};

// What is in the files after some calls: what was synced, and what was written since.
class files_after {
 public:
  struct write {
    std::string path;
    std::uint64_t offset;
    std::string bytes;
  };
  using contents = std::map<std::string, std::string>;

  void add(const recorded_call& call) {
    std::string& file = synced_[call.path];
    if (call.what == recorded_call::wrote) {
      pending_.push_back({call.path, call.offset, call.bytes});
    } else if (call.what == recorded_call::sized) {
      file.resize(std::max<std::size_t>(file.size(), call.offset));
    } else if (call.what == recorded_call::synced) {
      std::erase_if(pending_, [&](const write& w) {
        if (w.path == call.path) {
          apply(synced_, w);
        }
        return w.path == call.path;
      });
    }
  }
  const std::vector<write>& pending() const { return pending_; }

  // All that was written; only what was synced.
  contents kept() const { return with(pending_); }
  contents lost() const { return synced_; }
  // Some of the writes, in any order.
  contents reordered(std::mt19937& random) const {
    std::vector<write> some = pending_;
    std::ranges::shuffle(some, random);
    some.resize(random() % (some.size() + 1));
    return with(some);
  }
  // Some of the sectors of all writes.
  contents sectors(std::mt19937& random) const {
    std::vector<write> some;
    for (const write& w : pending_) {
      for (std::size_t at = 0; at < w.bytes.size(); at += 512) {
        if (random() % 2 == 0) {
          some.push_back({w.path, w.offset + at, w.bytes.substr(at, 512)});
        }
      }
    }
    return with(some);
  }
  // The first bytes of the latest write, and all before it.
  contents torn(std::size_t bytes) const {
    std::vector<write> some = pending_;
    some.back().bytes.resize(bytes);
    return with(some);
  }

  static void put(const own_folder& folder, const contents& files) {
    folder.clear();
    for (const auto& [name, bytes] : files) {
      if (!name.empty()) {
        write_file(folder / name, bytes);
      }
    }
  }

 private:
  static void apply(contents& to, const write& w) {
    std::string& file = to[w.path];
    file.resize(std::max<std::size_t>(file.size(), w.offset + w.bytes.size()));
    std::ranges::copy(w.bytes, file.begin() + static_cast<std::ptrdiff_t>(w.offset));
  }
  contents with(const std::vector<write>& writes) const {
    contents files = synced_;
    for (const write& w : writes) {
      apply(files, w);
    }
    return files;
  }

  contents synced_;
  std::vector<write> pending_;  // in order
};

}  // namespace instinfer::test
