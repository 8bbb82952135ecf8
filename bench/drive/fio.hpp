#pragma once
// The rate of fio, the usual measure of a drive, on a store's own files.

#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <initializer_list>
#include <string>
#include <string_view>

#include "instinfer/core/errors.hpp"

namespace instinfer::bench {

// The open page files of this process, as fio takes a list. They have no names, but the system
// shows them to other programs as long as they are open.
inline std::string open_page_files() {
  const std::string folder = "/proc/" + std::to_string(::getpid()) + "/fd";
  std::string list;
  for (const auto& entry : std::filesystem::directory_iterator(folder)) {
    std::error_code gone;
    const std::string target = std::filesystem::read_symlink(entry.path(), gone).string();
    if (target.find("/instinfer-") != target.npos && target.find(".pages") != target.npos) {
      list += (list.empty() ? "" : ":") + entry.path().string();
    }
  }
  return list;
}

// Bytes per second of reads of so many bytes, the best of some depths. Throws bad_file if fio does
// not run.
inline double fio_rate(bool random, std::size_t bytes, bool direct,
                       std::initializer_list<int> depths) {
  const std::string files = open_page_files();
  double best = 0;
  for (const int depth : depths) {
    const std::string command =
        "fio --name=reads --readonly --ioengine=io_uring --fixedbufs --runtime=1 --time_based "
        "--output-format=json --filename=" +
        files + " --rw=" + (random ? "randread" : "read") + " --bs=" + std::to_string(bytes) +
        " --iodepth=" + std::to_string(depth) + " --direct=" + (direct ? "1" : "0") + " 2>&1";
    std::string output;
    if (FILE* pipe = ::popen(command.c_str(), "r"); pipe != nullptr) {
      std::array<char, 4096> part;
      while (const std::size_t n = std::fread(part.data(), 1, part.size(), pipe)) {
        output.append(part.data(), n);
      }
      ::pclose(pipe);
    }
    constexpr std::string_view key = "\"bw_bytes\" : ";
    const std::size_t at = output.find(key, std::min(output.size(), output.find("\"read\" : {")));
    require<bad_file>(at != output.npos, [&] {
      return "fio gave no rate; is it installed? It said: " + output.substr(0, 500);
    });
    best = std::max(best, std::strtod(output.c_str() + at + key.size(), nullptr));
  }
  return best;
}

}  // namespace instinfer::bench
