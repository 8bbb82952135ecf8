#pragma once
// What a caller chooses of a real drive, and what it got.

#include <cstddef>
#include <string>
#include <vector>

#include "instinfer/drive/system_calls.hpp"

namespace instinfer::drive {

struct options {
  // Channel c is a file in folder c % folders. Give one folder for each drive, and the store as
  // many channels: a head's pages go round the channels, and neighbours in a file are one request.
  std::vector<std::string> folders;
  // Of a drive that lasts: its files are FOLDER/NAME.*, and a store of the same name and folders
  // opens them again. Take the model's name, as for a cache file. Empty: a scratch drive.
  std::string name{};
  bool direct = true;  // O_DIRECT: past the system's page cache
  bool ring = true;    // io_uring
  // Threads that read and write where there is no io_uring. With 0, the caller's own does, one
  // request after the other.
  unsigned threads = 8;
  // Operations that read at the same time; 0: two for each core, at most 8. Others wait. Give
  // attends as many workers: the drive then reads for one head while another one computes.
  unsigned readers = 0;
  // Memory of all readers and of pages that are being written. Tables come on top: 16 bytes for
  // each page that was ever used.
  std::size_t buffer_bytes = std::size_t{64} << 20;
  system_calls* calls = nullptr;  // for tests; it must outlive the store
};

// What the system allowed.
struct effective_mode {
  bool direct = false;      // otherwise the system's page cache is between store and drive
  bool ring = false;        // otherwise threads
  bool registered = false;  // the ring knows the buffers
  bool reserved = false;    // the files have all of their space
  unsigned threads = 0;
  unsigned readers = 0;
};

// "O_DIRECT, io_uring with registered buffers, 2 readers, space reserved"
inline std::string to_string(const effective_mode& mode) {
  return std::string(mode.direct ? "O_DIRECT" : "buffered") + ", " +
         (mode.ring ? std::string("io_uring") + (mode.registered ? " with registered buffers" : "")
                    : "pread on " + std::to_string(mode.threads) + " threads") +
         ", " + std::to_string(mode.readers) + " readers, space " +
         (mode.reserved ? "reserved" : "not reserved");
}

}  // namespace instinfer::drive
