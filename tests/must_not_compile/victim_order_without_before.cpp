// expect: instinfer: a victim order lacks before(job, job) -> bool, see store/sequences/reclaim_jobs.hpp
// An order that compares nothing.
#include "instinfer/store/sequences/reclaim_jobs.hpp"

struct by_slot {
#ifdef CONTROL
  bool before(const instinfer::store::reclaim_job& a,
              const instinfer::store::reclaim_job& b) const {
    return a.seq.slot < b.seq.slot;
  }
#endif
};

void use() { instinfer::store::reclaim_jobs<by_slot> jobs; }
