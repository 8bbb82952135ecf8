#pragma once
// The rate of fio, the usual measure of a drive, on a store's own files.

#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <set>
#include <string>
#include <string_view>

#include "instinfer/core/errors.hpp"

namespace instinfer::bench {

// The open page files of this process, as fio takes a list. They have no names, but the system
// shows them to other programs as long as they are open. A file that is open twice is listed once.
inline std::string open_page_files() {
  const std::string folder = "/proc/" + std::to_string(::getpid()) + "/fd";
  std::string list;
  std::set<ino_t> listed;
  for (const auto& entry : std::filesystem::directory_iterator(folder)) {
    std::error_code gone;
    const std::string target = std::filesystem::read_symlink(entry.path(), gone).string();
    struct stat at = {};
    if (target.find("/instinfer-") != target.npos && target.find(".pages") != target.npos &&
        ::stat(entry.path().c_str(), &at) == 0 && listed.insert(at.st_ino).second) {
      list += (list.empty() ? "" : ":") + entry.path().string();
    }
  }
  return list;
}

enum class fio_load { random_reads, reads, writes };

// Bytes per second of requests of so many bytes, for half a second. Writes destroy the files'
// contents. Throws bad_file if fio does not run.
inline double fio_rate(fio_load load, std::size_t bytes, bool direct, int depth) {
  const char* const how = load == fio_load::random_reads ? " --readonly --rw=randread"
                          : load == fio_load::reads      ? " --readonly --rw=read"
                                                         : " --rw=write";
  const std::string command =
      "fio --name=load --ioengine=io_uring --fixedbufs --runtime=500ms --time_based "
      "--output-format=json --filename=" +
      open_page_files() + how + " --bs=" + std::to_string(bytes) +
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
  const char* const section = load == fio_load::writes ? "\"write\" : {" : "\"read\" : {";
  const std::size_t at = output.find(key, std::min(output.size(), output.find(section)));
  require<bad_file>(at != output.npos, [&] {
    return "fio gave no rate; is it installed? It said: " + output.substr(0, 500);
  });
  return std::strtod(output.c_str() + at + key.size(), nullptr);
}

// The depth with the higher rate.
inline int best_fio_depth(fio_load load, std::size_t bytes, bool direct, int shallow, int deep) {
  return fio_rate(load, bytes, direct, shallow) < fio_rate(load, bytes, direct, deep) ? deep
                                                                                      : shallow;
}

}  // namespace instinfer::bench
