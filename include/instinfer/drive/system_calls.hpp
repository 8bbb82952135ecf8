#pragma once
// The system calls of the drive room, so that tests can let each of them fail.

#if !defined(__linux__)
#error "instinfer/drive.hpp needs Linux"
#endif

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <cerrno>
#include <cstddef>
#include <cstdint>

namespace instinfer::drive {

// Every call returns what the system's does, or the negative error number. Calls may come from
// several threads.
class system_calls {
 public:
  virtual ~system_calls() = default;

  virtual int open(const char* path, int flags) { return checked(::open(path, flags, 0600)); }
  virtual int close(int file) { return checked(::close(file)); }
  virtual int unlink(const char* path) { return checked(::unlink(path)); }
  // Takes the space of a whole file now, so that no later write finds the drive full.
  virtual int reserve(int file, std::uint64_t bytes) {
    return checked(::fallocate(file, 0, 0, static_cast<off_t>(bytes)));
  }
  virtual int resize(int file, std::uint64_t bytes) {
    return checked(::ftruncate(file, static_cast<off_t>(bytes)));
  }
  // What was written to the file before lasts when this returns, also if power is lost then.
  virtual int sync(int file) { return checked(::fdatasync(file)); }
  // One owner at a time, in all processes, until the file is closed.
  virtual int lock(int file) { return checked(::flock(file, LOCK_EX | LOCK_NB)); }
  virtual int leave_direct(int file) { return checked(::fcntl(file, F_SETFL, 0)); }

  virtual std::int64_t read(int file, std::byte* to, std::size_t bytes, std::uint64_t offset) {
    return checked(::pread(file, to, bytes, static_cast<off_t>(offset)));
  }
  virtual std::int64_t write(int file, const std::byte* from, std::size_t bytes,
                             std::uint64_t offset) {
    return checked(::pwrite(file, from, bytes, static_cast<off_t>(offset)));
  }

  // Whether io_uring may be tried.
  virtual bool may_use_ring() { return true; }
  // What io_uring reports of a request of so many bytes.
  virtual std::int64_t completed(bool /*write*/, std::size_t /*bytes*/, std::int64_t result) {
    return result;
  }

 private:
  template <class Result>
  static Result checked(Result result) {
    return result < 0 ? static_cast<Result>(-errno) : result;
  }
};

}  // namespace instinfer::drive
