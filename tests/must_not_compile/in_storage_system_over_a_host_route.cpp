// expect: instinfer: insta_system needs a design whose transfer policy computes in the drive, see design.hpp
// FlexGen's design takes pages to the GPU; a system whose drives attend cannot run on it.
#include "instinfer/system/insta.hpp"

#ifdef CONTROL
using mine = instinfer::system::insta_system<instinfer::insta>;
#else
using mine = instinfer::system::insta_system<instinfer::flexgen>;
#endif

double use(const mine& system) { return system.step(1024).time.total_s(); }
