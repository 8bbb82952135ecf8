#pragma once
// The files of a drive: one for each flash channel, with its space reserved.

#include <algorithm>
#include <cstdint>
#include <limits>
#include <span>
#include <string>
#include <vector>

#include "instinfer/drive/errors.hpp"
#include "instinfer/drive/system_calls.hpp"
#include "instinfer/store/pages/reserved_memory.hpp"

namespace instinfer::drive {

// The result of a call that a signal may interrupt.
template <class Call>
int retried(Call&& call) {
  int result = -EINTR;
  for (int attempt = 0; attempt < 100 && (result == -EINTR || result == -EAGAIN); ++attempt) {
    result = call();
  }
  return result;
}

// Throws io_error.
inline void sync_file(system_calls& calls, int file, const std::string& path) {
  const int result = retried([&] { return calls.sync(file); });
  if (result < 0) {
    throw io_error("drive_files: syncing " + path + " failed: " + reason(-result), -result);
  }
}
// Makes the names of new files last.
inline void sync_folder(system_calls& calls, const std::string& folder) {
  const int file = calls.open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (file < 0) {
    throw io_error("drive_files: opening " + folder + " failed: " + reason(-file), -file);
  }
  const int result = retried([&] { return calls.sync(file); });
  (void)calls.close(file);
  if (result < 0 && result != -EINVAL) {  // a file system that cannot sync folders
    throw io_error("drive_files: syncing " + folder + " failed: " + reason(-result), -result);
  }
}

// The file of a channel of a drive that lasts.
inline std::string page_path(std::span<const std::string> folders, const std::string& name,
                             std::uint32_t channel) {
  return folders[channel % folders.size()] + "/" + name + "." + std::to_string(channel) + ".pages";
}

// Files of a scratch drive have no name: they are removed from the folder as soon as they are open.
// So nothing is left behind, whatever ends the program.
class channel_files {
 public:
  // Channel c is in folder c % folders. Files of a name that is not empty last: they are opened, or
  // made if `make`. Throws bad_argument without a folder; io_error if a file cannot be had, or its
  // space.
  channel_files(system_calls& calls, std::span<const std::string> folders, const std::string& name,
                bool make, std::uint32_t channels, std::uint64_t pages_per_channel,
                std::uint32_t page_bytes, bool direct)
      : calls_{calls}, channels_{channels}, page_bytes_{page_bytes}, direct_{direct} {
    require(!folders.empty(), [] { return std::string("drive_files: no folder was given"); });
    // Sums and direct requests take pages of whole sectors.
    require(page_bytes % 512 == 0, [&] {
      return "drive_files: a page must be a multiple of 512 bytes, got " +
             std::to_string(page_bytes);
    });
    const std::uint64_t bytes = pages_per_channel * page_bytes;
    require(bytes <= static_cast<std::uint64_t>(std::numeric_limits<off_t>::max()), [&] {
      return "drive_files: this system has no files of " + std::to_string(bytes) + " bytes";
    });
    try {
      for (std::uint32_t channel = 0; channel < channels; ++channel) {
        const std::string& folder = folders[channel % folders.size()];
        if (name.empty()) {
          add_nameless(folder);
        } else {
          add_named(page_path(folders, name, channel), make);
        }
        reserve(bytes, "reserving " + std::to_string(bytes) + " bytes for channel " +
                           std::to_string(channel) + " in " + folder);
      }
      if (make && !name.empty()) {
        sync();
        std::for_each(folders.begin(), folders.end(),
                      [&](const std::string& folder) { sync_folder(calls_, folder); });
      }
      if (direct && (!direct_ || !takes_direct())) {
        for (const int file : files_) {
          check(calls_.leave_direct(file), "leaving O_DIRECT");
        }
        direct_ = false;
      }
    } catch (...) {
      close();
      throw;
    }
  }
  channel_files(const channel_files&) = delete;
  channel_files& operator=(const channel_files&) = delete;
  ~channel_files() { close(); }

  int file_of(page_id page) const { return files_[channel_of(page, channels_)]; }
  std::uint64_t offset_of(page_id page) const {
    return std::uint64_t{slot_of(page, channels_)} * page_bytes_;
  }
  // "page 17 (channel 1, byte 8192)"
  std::string name_of(page_id page) const {
    return "page " + std::to_string(static_cast<std::uint32_t>(page)) + " (channel " +
           std::to_string(channel_of(page, channels_)) + ", byte " +
           std::to_string(offset_of(page)) + ")";
  }

  // All pages that were written last when this returns. Throws io_error. What was written since the
  // last success may then be lost, although a later sync says nothing of it.
  void sync() const {
    for (std::size_t channel = 0; channel < files_.size(); ++channel) {
      sync_file(calls_, files_[channel], "the pages of channel " + std::to_string(channel));
    }
  }

  bool direct() const { return direct_; }      // requests pass the page cache of the system
  bool reserved() const { return reserved_; }  // no write can find the drive full

 private:
  void add_named(const std::string& path, bool make) {
    const int flags = O_RDWR | O_CLOEXEC | (make ? O_CREAT : 0);
    int file = calls_.open(path.c_str(), direct_ ? flags | O_DIRECT : flags);
    if (file == -EINVAL && direct_) {  // a file system without O_DIRECT
      direct_ = false;
      file = calls_.open(path.c_str(), flags);
    }
    check(file, "opening " + path);
    files_.push_back(file);
  }
  void add_nameless(const std::string& folder) {
    int file = -EEXIST;
    for (unsigned number = 0; file == -EEXIST; ++number) {
      const std::string path = folder + "/instinfer-" + std::to_string(::getpid()) + "-" +
                               std::to_string(number) + ".pages";
      const int flags = O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC;
      file = calls_.open(path.c_str(), direct_ ? flags | O_DIRECT : flags);
      if (file == -EINVAL && direct_) {     // a file system without O_DIRECT
        (void)calls_.unlink(path.c_str());  // the file may be there all the same
        direct_ = false;
        file = calls_.open(path.c_str(), flags);
      }
      if (file != -EEXIST) {
        check(file, "making " + path);
        files_.push_back(file);
        check(calls_.unlink(path.c_str()), "removing " + path);
      }
    }
  }
  void reserve(std::uint64_t bytes, const std::string& what) {
    const int result = retried([&] { return calls_.reserve(files_.back(), bytes); });
    if (result == -EOPNOTSUPP) {
      reserved_ = false;
      check(calls_.resize(files_.back(), bytes), what);
    } else {
      check(result, what);
    }
  }

  // A page is read into memory that is aligned as all buffers are. The last page of a channel, to
  // see its offset taken, too.
  bool takes_direct() const {
    const store::reserved_memory page(page_bytes_);
    for (const int file : files_) {
      if (calls_.read(file, page.data(), page_bytes_, page_bytes_) == -EINVAL) {
        return false;
      }
    }
    return true;
  }

  static void check(int result, const std::string& what) {
    if (result < 0) {
      throw io_error("drive_files: " + what + " failed: " + reason(-result), -result);
    }
  }
  void close() noexcept {
    for (const int file : files_) {
      (void)calls_.close(file);
    }
  }

  system_calls& calls_;
  std::uint32_t channels_;
  std::uint32_t page_bytes_;
  bool direct_;
  bool reserved_ = true;
  std::vector<int> files_;  // [channels]
};

}  // namespace instinfer::drive
