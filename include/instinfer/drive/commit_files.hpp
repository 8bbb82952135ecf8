#pragma once
// The commits of a drive that lasts: its superblocks, and a file of state for each of the last two.

#include <sys/random.h>

#include <array>
#include <cstdint>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "instinfer/drive/channel_files.hpp"
#include "instinfer/drive/state_stream.hpp"
#include "instinfer/drive/superblock.hpp"

namespace instinfer::drive {

// Differs from store to store, unless the system has no random numbers.
inline std::uint64_t drawn_number() {
  std::uint64_t number = 0;
  (void)!::getrandom(&number, sizeof(number), 0);
  return number;
}

// In the first folder: NAME.drive has the superblocks and is locked while the store is open,
// NAME.0.state and NAME.1.state have the states of even and odd commits.
//
// A commit writes the state, syncs it, writes the superblock, and syncs that. Until the last step
// the commit before is the newest one, and neither its state nor its superblock is touched.
class commit_files {
 public:
  // Opens what is there, or begins a new drive. Throws io_error where files cannot be had or
  // another store has them; bad_file where the drive is damaged or another one.
  commit_files(system_calls& calls, std::span<const std::string> folders, const std::string& name,
               const drive_geometry& geometry)
      : calls_{calls}, path_{name.empty() || folders.empty() ? "" : folders[0] + "/" + name} {
    if (path_.empty()) {
      current_.store = drawn_number();
      return;
    }
    try {
      super_ = opened(path_ + ".drive");
      const int locked = retried([&] { return calls_.lock(super_); });
      if (locked == -EWOULDBLOCK) {
        throw io_error("drive_files: " + path_ + ".drive is in use: another store has opened it, " +
                           "in this process or in another one",
                       EWOULDBLOCK);
      }
      check(locked, "locking " + path_ + ".drive");
      superblocks::image image{};
      if (read_superblocks(image) && superblocks::newest(image, current_)) {
        take_up(image, geometry);
      } else {
        superblocks::check_version(image, path_ + ".drive");
        begin(folders, name, geometry);
      }
      for (std::size_t i = 0; i < states_.size(); ++i) {
        states_[i] = opened(state_path(i));
      }
      require_state();
    } catch (...) {
      close();
      throw;
    }
  }
  commit_files(const commit_files&) = delete;
  commit_files& operator=(const commit_files&) = delete;
  ~commit_files() { close(); }

  bool lasts() const { return !path_.empty(); }
  std::uint64_t store() const { return current_.store; }
  std::uint64_t commits() const { return current_.commit; }
  std::uint64_t state_bytes() const { return current_.state_bytes; }

  // The state of the newest commit.
  state_reader reader() const {
    const std::uint64_t slot = commits() % 2;
    return {calls_, states_[slot], state_path(slot), current_.state_bytes};
  }

  // Calls content(out), and makes what it writes the newest commit. Throws io_error, and what
  // content throws; the commit before is then the newest one, or this one as a whole.
  template <class Content>
  void write(Content&& content) {
    superblock next = current_;
    ++next.commit;
    if (doubtful_) {  // the drive may have this superblock, whose state is written anew
      const std::array<std::byte, superblocks::slot_bytes> nothing{};
      write_slot(next.commit, nothing);
      doubtful_ = false;
    }
    const std::uint64_t slot = next.commit % 2;
    state_writer out(calls_, states_[slot], state_path(slot), next.commit);
    content(out);
    out.flush();
    sync_file(calls_, states_[slot], state_path(slot));
    next.state_bytes = out.bytes();
    next.state_sum = out.sum();
    doubtful_ = true;
    write_slot(next.commit, superblocks::slot_of(next));
    doubtful_ = false;
    current_ = next;
  }

 private:
  static void check(int result, const std::string& what) {
    if (result < 0) {
      throw io_error("drive_files: " + what + " failed: " + reason(-result), -result);
    }
  }
  int opened(const std::string& path) {
    const int file = calls_.open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC);
    check(file, "opening " + path);
    return file;
  }
  std::string state_path(std::size_t slot) const {
    return path_ + "." + std::to_string(slot) + ".state";
  }

  // Whether the file has all of its bytes.
  bool read_superblocks(superblocks::image& image) {
    const int error = transfer_all(calls_, super_, false, image.data(), superblocks::file_bytes, 0);
    check(error == io_request::ended_early ? 0 : -error, "reading " + path_ + ".drive");
    return error == 0;
  }
  void write_superblocks(std::span<std::byte> bytes, std::uint64_t offset) {
    const int error = transfer_all(calls_, super_, true, bytes.data(), bytes.size(), offset);
    check(-std::max(error, 0), "writing " + path_ + ".drive");
    sync_file(calls_, super_, path_ + ".drive");
  }
  void write_slot(std::uint64_t commit, std::array<std::byte, superblocks::slot_bytes> bytes) {
    write_superblocks(bytes, superblocks::slot_offset(commit));
  }

  void take_up(const superblocks::image& image, const drive_geometry& geometry) {
    require<bad_file>(current_.geometry == geometry, [&] {
      return "drive_files: " + path_ + ".drive has " + to_string(current_.geometry) +
             ", the store was asked for " + to_string(geometry);
    });
    // Another process may have ended between writing this superblock and syncing it. A copy that
    // is not there is made again.
    const auto slot = superblocks::slot_of(current_);
    const std::uint64_t at = superblocks::slot_offset(current_.commit);
    if (std::memcmp(image.data() + at, slot.data(), slot.size()) != 0) {
      write_slot(current_.commit, slot);
    } else {
      sync_file(calls_, super_, path_ + ".drive");
    }
  }

  // A new drive. The superblock is there before the files of pages, so these are never taken from
  // a drive whose superblocks were lost.
  void begin(std::span<const std::string> folders, const std::string& name,
             const drive_geometry& geometry) {
    for (std::uint32_t channel = 0; channel < geometry.channels; ++channel) {
      const std::string path = page_path(folders, name, channel);
      const int file = calls_.open(path.c_str(), O_RDONLY | O_CLOEXEC);
      if (file >= 0) {
        (void)calls_.close(file);
        throw bad_file("drive_files: " + path + " is there, but " + path_ +
                       ".drive has no superblock that can be read: it is damaged or not of this "
                       "drive; remove both for a new drive");
      }
      check(file == -ENOENT ? 0 : file, "looking for " + path);
    }
    current_ = {};
    current_.store = drawn_number();
    current_.geometry = geometry;
    superblocks::image image{};
    std::ranges::copy(superblocks::slot_of(current_), image.begin());
    write_superblocks(image, 0);
    sync_folder(calls_, folders[0]);
  }

  void require_state() const {
    if (commits() > 0) {
      std::uint64_t sum = 0;
      try {
        sum = reader().sum_of_all(commits());
      } catch (const io_error& e) {
        if (e.code != 0) {
          throw;
        }
        sum = ~current_.state_sum;  // the file ended early
      }
      require<bad_file>(sum == current_.state_sum, [&] {
        return "drive_files: " + state_path(commits() % 2) + " is damaged: its " +
               std::to_string(current_.state_bytes) + " bytes are not those of commit " +
               std::to_string(commits());
      });
    }
  }

  void close() noexcept {
    for (const int file : {super_, states_[0], states_[1]}) {
      if (file >= 0) {
        (void)calls_.close(file);
      }
    }
  }

  system_calls& calls_;
  std::string path_;  // without the last part; empty for a scratch drive
  int super_ = -1;
  std::array<int, 2> states_{-1, -1};
  superblock current_;
  bool doubtful_ = false;  // the superblock after current_ may be on the drive
};

}  // namespace instinfer::drive
