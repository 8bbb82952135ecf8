#pragma once
// The rates of a device under the store's own requests: sizes, depths, sequential, random, and
// reads beside writes. A drive_spec is fitted to them.

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <memory>
#include <random>
#include <span>
#include <sstream>
#include <string>
#include <vector>

#include <instinfer/drive.hpp>

#include "instinfer/store/pages/reserved_memory.hpp"

namespace instinfer::bench {

// "virtio disk vda", "NVMe drive nvme0n1", or the device's number where the system does not say.
inline std::string kind_of_device(const std::string& folder) {
  struct stat at = {};
  if (::stat(folder.c_str(), &at) != 0) {
    return "unknown";
  }
  const std::string number =
      std::to_string(major(at.st_dev)) + ":" + std::to_string(minor(at.st_dev));
  std::error_code none;
  const std::string path = std::filesystem::canonical("/sys/dev/block/" + number, none).string();
  if (none) {
    return "device " + number;
  }
  const std::string name = path.substr(path.rfind('/') + 1);
  const char* const kind = path.find("/virtio") != path.npos ? "virtio disk "
                           : path.find("/nvme") != path.npos ? "NVMe drive "
                                                             : "disk ";
  return kind + name;
}

// A read of the store: neighbours in the file of a channel, up to 512 KiB.
struct store_request {
  std::uint32_t channel = 0;
  std::uint64_t offset = 0;
  std::uint32_t bytes = 0;
};

// Open page files of a store, read and written below it.
class device_load {
 public:
  struct load {
    std::size_t bytes = 4096;
    std::size_t depth = 1;
    bool random = true;
    unsigned writes_in_8 = 0;  // so many of 8 requests are writes
  };

  // files: paths as fio takes them, "a:b:c", each of file_bytes. The files' contents are lost where
  // loads write.
  device_load(const std::string& files, std::uint64_t file_bytes, const drive::effective_mode& mode)
      : file_bytes_{file_bytes}, buffer_(most_depth * most_bytes) {
    std::istringstream list(files);
    for (std::string path; std::getline(list, path, ':');) {
      const int file = ::open(path.c_str(), O_RDWR | O_CLOEXEC | (mode.direct ? O_DIRECT : 0));
      require<bad_file>(file >= 0, [&] { return path + ": cannot be opened"; });
      files_.push_back(file);
    }
    if (mode.ring) {
      queue_ = drive::io_ring::make(calls_, {buffer_.data(), most_depth * most_bytes});
    }
    if (queue_ == nullptr) {
      pool_ = std::make_unique<drive::io_pool>(std::max(mode.threads, 1u));
      queue_ = std::make_unique<drive::io_pool::queue>(calls_, *pool_);
    }
  }
  device_load(const device_load&) = delete;
  device_load& operator=(const device_load&) = delete;
  ~device_load() {
    queue_->drain();
    for (const int file : files_) {
      ::close(file);
    }
  }

  // Bytes a second while `seconds` pass. Throws io_error.
  double rate(const load& of, double seconds) {
    using clock = std::chrono::steady_clock;
    std::vector<drive::io_request> requests(of.depth);
    std::uint64_t at = 0;  // of sequential requests
    std::uint64_t started = 0;
    const auto start = [&](drive::io_request& r) {
      const std::uint64_t slots = file_bytes_ / of.bytes * files_.size();
      const std::uint64_t slot = of.random ? random_() % slots : at++ % slots;
      r = {};
      r.file = files_[of.random ? slot % files_.size() : slot / (slots / files_.size())];
      r.offset = (of.random ? slot / files_.size() : slot % (slots / files_.size())) * of.bytes;
      r.write = started++ % 8 < of.writes_in_8;
      r.data = buffer_.data() + static_cast<std::size_t>(&r - requests.data()) * of.bytes;
      r.bytes = of.bytes;
      queue_->start(r);
    };
    std::uint64_t done = 0;
    const auto begin = clock::now();
    const auto passed = [&] { return std::chrono::duration<double>(clock::now() - begin).count(); };
    for (drive::io_request& r : requests) {
      start(r);
    }
    queue_->submit();
    while (passed() < seconds) {
      queue_->wait();
      for (drive::io_request& r : requests) {
        if (r.finished) {
          require_read(r);
          done += r.bytes;
          start(r);
        }
      }
      queue_->submit();
    }
    const double rate = static_cast<double>(done) / passed();
    queue_->drain();
    return rate;
  }

  // Seconds of these reads, with so many under way at any time. Throws io_error.
  double seconds_of(std::span<const store_request> reads, std::size_t depth) {
    std::vector<drive::io_request> requests(std::min(depth, reads.size()));
    std::size_t next = 0;
    const auto begin = std::chrono::steady_clock::now();
    while (next < reads.size() || queue_->under_way() > 0) {
      for (drive::io_request& r : requests) {
        if ((r.finished || next < requests.size()) && next < reads.size()) {
          require_read(r);
          const store_request& read = reads[next++];
          r = {};
          r.file = files_.at(read.channel);
          r.offset = read.offset;
          r.data = buffer_.data() + static_cast<std::size_t>(&r - requests.data()) * most_bytes;
          r.bytes = read.bytes;
          queue_->start(r);
        }
      }
      queue_->submit();
      queue_->wait();
    }
    std::ranges::for_each(requests, require_read);
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  }

  static constexpr std::size_t most_depth = 256;
  static constexpr std::size_t most_bytes = 512 << 10;

 private:
  static void require_read(const drive::io_request& r) {
    if (r.error != 0) {
      throw io_error("device_load: a request failed: " + drive::reason(std::max(r.error, 0)),
                     std::max(r.error, 0));
    }
  }

  std::uint64_t file_bytes_;
  drive::system_calls calls_;
  store::reserved_memory buffer_;
  std::unique_ptr<drive::io_pool> pool_;
  std::unique_ptr<drive::io_queue> queue_;
  std::vector<int> files_;
  std::mt19937_64 random_{1};
};

}  // namespace instinfer::bench
