#pragma once
// The superblock of a drive that lasts: which commit is the newest, and what the drive is.

#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <type_traits>

#include "instinfer/core/errors.hpp"
#include "instinfer/store/sequences/checked_stream.hpp"

namespace instinfer::drive {

// What a drive and a store that opens it must have in common.
struct drive_geometry {
  std::uint64_t pages_per_channel = 0;
  std::uint32_t channels = 0;
  std::uint32_t folders = 0;
  std::uint32_t page_bytes = 0;
  std::uint32_t unused = 0;
  friend bool operator==(const drive_geometry&, const drive_geometry&) = default;
};

// "8 channels of 1000 pages of 4096 bytes in 1 folders"
inline std::string to_string(const drive_geometry& g) {
  return std::to_string(g.channels) + " channels of " + std::to_string(g.pages_per_channel) +
         " pages of " + std::to_string(g.page_bytes) + " bytes in " + std::to_string(g.folders) +
         " folders";
}

// Numbers have the byte order of memory.
struct superblock {
  static constexpr std::array<char, 8> this_magic{'i', 'n', 's', 't', 'd', 'r', 'v', '\n'};
  static constexpr std::uint32_t this_version = 1;
  static constexpr std::uint32_t this_byte_order = 0x01020304;

  std::array<char, 8> magic = this_magic;
  std::uint32_t version = this_version;
  std::uint32_t byte_order = this_byte_order;
  std::uint64_t store = 0;   // drawn for each drive; part of the checksum of every page
  std::uint64_t commit = 0;  // 0: nothing was committed yet
  std::uint64_t state_bytes = 0;
  std::uint64_t state_sum = 0;
  drive_geometry geometry;
  std::uint64_t sum = 0;  // of all before it

  std::uint64_t own_sum() const {
    store::checksum own;
    own.add(std::as_bytes(std::span(this, 1)).first(offsetof(superblock, sum)));
    return own.value();
  }
  bool valid() const {
    return magic == this_magic && version == this_version && byte_order == this_byte_order &&
           sum == own_sum();
  }
};
static_assert(std::has_unique_object_representations_v<superblock>, "no byte is left out");

// The file holds the newest commit and the one before it, each twice: commit n in blocks 2 (n % 2)
// and 2 (n % 2) + 1. So a write that power interrupts leaves the commit before, and damage of one
// block cannot make the newest commit look like one that was never finished.
class superblocks {
 public:
  static constexpr std::size_t block_bytes = 4096;
  static constexpr std::size_t copies = 2;
  static constexpr std::size_t file_bytes = 2 * copies * block_bytes;
  static constexpr std::size_t slot_bytes = copies * block_bytes;

  using image = std::array<std::byte, file_bytes>;

  static std::uint64_t slot_offset(std::uint64_t commit) { return commit % 2 * slot_bytes; }

  // The bytes of a commit's slot.
  static std::array<std::byte, slot_bytes> slot_of(superblock block) {
    block.sum = block.own_sum();
    std::array<std::byte, slot_bytes> bytes{};
    for (std::size_t copy = 0; copy < copies; ++copy) {
      std::memcpy(bytes.data() + copy * block_bytes, &block, sizeof(block));
    }
    return bytes;
  }

  // The newest valid block; false if there is none.
  static bool newest(const image& file, superblock& found) {
    bool any = false;
    for (std::size_t at = 0; at < file_bytes; at += block_bytes) {
      superblock block;
      std::memcpy(&block, file.data() + at, sizeof(block));
      if (block.valid() && (!any || block.commit > found.commit)) {
        found = block;
        any = true;
      }
    }
    return any;
  }

  // Throws bad_file where a block is of another version or byte order: that is not damage.
  static void check_version(const image& file, const std::string& path) {
    for (std::size_t at = 0; at < file_bytes; at += block_bytes) {
      superblock block;
      std::memcpy(&block, file.data() + at, sizeof(block));
      if (block.magic == superblock::this_magic) {
        require<bad_file>(block.byte_order == superblock::this_byte_order, [&] {
          return "drive_files: " + path + " was written on a computer of another byte order";
        });
        require<bad_file>(block.version == superblock::this_version, [&] {
          return "drive_files: " + path + " is of version " + std::to_string(block.version) +
                 ", this library reads version " + std::to_string(superblock::this_version);
        });
      }
    }
  }
};

}  // namespace instinfer::drive
