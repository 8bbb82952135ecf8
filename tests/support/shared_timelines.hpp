#pragma once
// The timelines that many tests share: those of drives that send data first, and the clocks of
// attends over them. shared_timelines.cpp compiles them once; the tests that include this header
// only call them.

#include "instinfer/flash/attend/attend_clock.hpp"

// Templates: `extern template` or `template`.
#define INSTINFER_TEST_TIMELINES(Templates)                                            \
  Templates class instinfer::flash::timeline<instinfer::flash::data_out_first>;        \
  Templates class instinfer::flash::attend_timeline<instinfer::flash::data_out_first>; \
  INSTINFER_TEST_CLOCK(Templates, true)                                                \
  INSTINFER_TEST_CLOCK(Templates, false)
#define INSTINFER_TEST_CLOCK(Templates, InDrive)                                                  \
  Templates class instinfer::flash::attend_clock<InDrive, instinfer::flash::data_out_first>;      \
  Templates void instinfer::flash::attend_clock<InDrive, instinfer::flash::data_out_first>::time( \
      const attend_work&, std::span<const location>, call_times&, no_trace*, route_time);

#if !defined(INSTINFER_TEST_COMPILES_TIMELINES)
INSTINFER_TEST_TIMELINES(extern template)
#endif
