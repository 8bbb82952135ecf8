#pragma once
// What goes wrong with a real drive.

#include <cstring>
#include <string>

#include "instinfer/core/errors.hpp"
#include "instinfer/core/page_key.hpp"

namespace instinfer {

// A system call on a drive's files failed, or a file ended early. what() has the call, the place
// and the system's reason.
struct io_error : error {
  io_error(const std::string& what, int code_) : error{what}, code{code_} {}
  int code;  // errno; 0 where a file ended early
};

// A page on the drive is not the one that was written: bits flipped, or it is another page, an old
// one, or nothing. Its values were not used.
struct page_damaged : error {
  page_damaged(const std::string& what, page_id page_) : error{what}, page{page_} {}
  page_id page;
};

namespace drive {

inline std::string reason(int code) {
  return code == 0 ? "the file ended early" : std::strerror(code);
}

}  // namespace drive

}  // namespace instinfer
