#pragma once
// Messages between ranks, on MPI. Only this header calls MPI to move bytes.

#include <algorithm>
#include <cstdio>
#include <exception>
#include <new>
#include <span>
#include <string>
#include <vector>

// The C interface alone.
#ifndef OMPI_SKIP_MPICXX
#define OMPI_SKIP_MPICXX
#endif
#ifndef MPICH_SKIP_MPICXX
#define MPICH_SKIP_MPICXX
#endif
#include <mpi.h>

#include "instinfer/cluster/message.hpp"

namespace instinfer::cluster {

// MPI for a whole program: make one in main, before anything of this room. Only the thread that
// made it calls MPI. An exception that leaves its scope ends the job, since other ranks may wait.
class session {
 public:
  session(int* argc, char*** argv) {
    int provided = 0;
    MPI_Init_thread(argc, argv, MPI_THREAD_FUNNELED, &provided);
  }
  ~session() {
    if (std::uncaught_exceptions() > 0) {
      std::fputs("instinfer: an exception leaves a rank; the job ends\n", stderr);
      MPI_Abort(MPI_COMM_WORLD, 1);
    }
    MPI_Finalize();
  }
  session(const session&) = delete;
  session& operator=(const session&) = delete;
};

// A duplicate of the caller's communicator, so that no message meets one of the caller's. An error
// of MPI ends the job with a sentence: the ranks could no longer agree on what happened.
class communicator {
 public:
  // Collective. MPI must be initialised, and stay so while this lives.
  explicit communicator(MPI_Comm of) {
    check(MPI_Comm_dup(of, &comm_), "duplicate the communicator");
    MPI_Comm_set_errhandler(comm_, MPI_ERRORS_RETURN);
    MPI_Comm_rank(comm_, &rank_);
    MPI_Comm_size(comm_, &size_);
    sends_.reserve(static_cast<std::size_t>(size_));
  }
  // Collective over `of`: some of its ranks. The others are in none, and must not use it.
  communicator(const communicator& of, bool member) {
    check(MPI_Comm_split(of.comm_, member ? 0 : MPI_UNDEFINED, of.rank_, &comm_),
          "split the communicator");
    if (member) {
      MPI_Comm_set_errhandler(comm_, MPI_ERRORS_RETURN);
      MPI_Comm_rank(comm_, &rank_);
      MPI_Comm_size(comm_, &size_);
    }
  }
  ~communicator() {
    if (comm_ != MPI_COMM_NULL) {
      MPI_Comm_free(&comm_);
    }
  }
  communicator(const communicator&) = delete;
  communicator& operator=(const communicator&) = delete;

  int rank() const { return rank_; }
  int size() const { return size_; }

  void send(int to, message& m) {
    start_send(to, m);
    finish_sends();
  }
  // The message must stay as it is until finish_sends.
  void start_send(int to, message& m) noexcept {
    for (std::span<std::byte> rest = m.to_send(); !rest.empty();) {
      const std::span<std::byte> part = rest.first(std::min(rest.size(), largest_part));
      sends_.emplace_back();
      check(MPI_Isend(part.data(), static_cast<int>(part.size()), MPI_BYTE, to, tag, comm_,
                      &sends_.back()),
            "send");
      rest = rest.subspan(part.size());
    }
  }
  void finish_sends() {
    check(MPI_Waitall(static_cast<int>(sends_.size()), sends_.data(), MPI_STATUSES_IGNORE),
          "finish a send");
    sends_.clear();
  }

  // Waits for the next message of a rank.
  void receive(int from, message& m) {
    MPI_Message matched;
    MPI_Status status;
    check(MPI_Mprobe(from, tag, comm_, &matched, &status), "wait for a message");
    m.clear();
    int bytes = 0;
    MPI_Get_count(&status, MPI_BYTE, &bytes);
    check(MPI_Mrecv(room(m, static_cast<std::size_t>(bytes)).data(), bytes, MPI_BYTE, &matched,
                    MPI_STATUS_IGNORE),
          "receive");
    std::size_t have = m.size();
    if (const std::size_t all = m.announced(); all > have) {
      const std::span<std::byte> whole = room(m, all);
      while (have < all) {
        const std::size_t part = std::min(all - have, largest_part);
        check(MPI_Recv(whole.data() + have, static_cast<int>(part), MPI_BYTE, from, tag, comm_,
                       MPI_STATUS_IGNORE),
              "receive");
        have += part;
      }
    }
  }

  // Collective: combines the elements of all ranks, each of `width` values, on rank 0.
  void reduce(std::span<float> values, std::size_t width, MPI_Datatype element, MPI_Op op) {
    while (!values.empty()) {
      const std::span<float> part =
          values.first(std::min(values.size(), largest_part / width * width));
      const void* mine = rank_ == 0 ? MPI_IN_PLACE : part.data();
      check(MPI_Reduce(mine, rank_ == 0 ? part.data() : nullptr,
                       static_cast<int>(part.size() / width), element, op, 0, comm_),
            "merge results");
      values = values.subspan(part.size());
    }
  }

  // Ends the job of all ranks.
  [[noreturn]] void abort(const char* what) const {
    std::fprintf(stderr, "instinfer: rank %d: %s; the job ends\n", rank_, what);
    MPI_Abort(comm_, 1);
    std::terminate();
  }

 private:
  static constexpr int tag = 0;
  // MPI counts bytes as int.
  static constexpr std::size_t largest_part = std::size_t{1} << 30;

  void check(int status, const char* what) const {
    if (status != MPI_SUCCESS) [[unlikely]] {
      char reason[MPI_MAX_ERROR_STRING] = "";
      int length = 0;
      MPI_Error_string(status, reason, &length);
      abort(("MPI cannot " + std::string(what) + ": " + reason).c_str());
    }
  }
  // The sender has sent already, so there is no way back where memory does not suffice.
  std::span<std::byte> room(message& m, std::size_t bytes) const {
    try {
      return m.to_receive(bytes);
    } catch (const std::bad_alloc&) {
      abort("no memory for a message");
    }
  }

  MPI_Comm comm_ = MPI_COMM_NULL;
  int rank_ = 0;
  int size_ = 1;
  std::vector<MPI_Request> sends_;
};

}  // namespace instinfer::cluster
