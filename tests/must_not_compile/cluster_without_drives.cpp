// expect: instinfer: cluster_system spreads a system's drives over hosts; the system lacks kv() or gpu(), see system/cluster.hpp
// A cluster of a system that keeps its cache on the GPU.
#include "instinfer/system/cluster.hpp"
#include "instinfer/system/recomp.hpp"

#ifdef CONTROL
using spread = instinfer::system::insta_system<>;
#else
using spread = instinfer::system::recomp_system;
#endif

double seconds(const instinfer::system::cluster_system<spread>& c) {
  return c.step(1'024).time.total_s();
}
