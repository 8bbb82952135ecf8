#pragma once
// The processes of one run on many hosts: those that mpirun started, or this one alone without MPI.

#include <string>
#include <vector>

#ifdef INSTINFER_MPI
#include <climits>
#include <stdexcept>

#include <mpi.h>
#endif

namespace instinfer::examples {

// Lives as long as main. The program that was built with MPI runs alone, too.
class ranks {
 public:
#ifdef INSTINFER_MPI
  ranks(int* argc, char*** argv) {
    int provided = 0;  // only the main thread calls MPI
    MPI_Init_thread(argc, argv, MPI_THREAD_FUNNELED, &provided);
    MPI_Comm_rank(MPI_COMM_WORLD, &rank_);
    MPI_Comm_size(MPI_COMM_WORLD, &size_);
  }
  ~ranks() { MPI_Finalize(); }

  // What each rank gives, on rank 0; nothing on the others. Below 2 GB together.
  std::vector<std::string> gather(const std::string& mine) const {
    const int length = static_cast<int>(mine.size());
    std::vector<int> lengths(static_cast<std::size_t>(size_));
    MPI_Gather(&length, 1, MPI_INT, lengths.data(), 1, MPI_INT, 0, MPI_COMM_WORLD);
    std::vector<int> begins;
    long long total = 0;
    for (const int n : lengths) {
      begins.push_back(static_cast<int>(total));
      total += n;
    }
    if (mine.size() > INT_MAX || total > INT_MAX) {
      throw std::length_error("ranks: results of 2 GB or more cannot be gathered");
    }
    std::string all(static_cast<std::size_t>(total), '\0');
    MPI_Gatherv(mine.data(), length, MPI_CHAR, all.data(), lengths.data(), begins.data(), MPI_CHAR,
                0, MPI_COMM_WORLD);
    std::vector<std::string> parts;
    for (std::size_t r = 0; rank_ == 0 && r < lengths.size(); ++r) {
      parts.push_back(
          all.substr(static_cast<std::size_t>(begins[r]), static_cast<std::size_t>(lengths[r])));
    }
    return parts;
  }
#else
  ranks(int* /*argc*/, char*** /*argv*/) {}
  std::vector<std::string> gather(const std::string& mine) const { return {mine}; }
#endif
  ranks(const ranks&) = delete;
  ranks& operator=(const ranks&) = delete;

  std::size_t rank() const { return static_cast<std::size_t>(rank_); }
  std::size_t size() const { return static_cast<std::size_t>(size_); }

 private:
  int rank_ = 0;
  int size_ = 1;
};

}  // namespace instinfer::examples
