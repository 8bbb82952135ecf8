#pragma once
// Umbrella header of the flash path: time, energy and wear of attention on a modelled drive, and
// the drive alone.
// It needs only the standard library.

#include "instinfer/engine/layered_engine.hpp"
#include "instinfer/flash/background_writes.hpp"
#include "instinfer/flash/engine.hpp"
#include "instinfer/flash/ftl_store.hpp"
#include "instinfer/flash/step_summary.hpp"
#include "instinfer/ssd/channel/closed_loop.hpp"
#include "instinfer/ssd/channel/mixed_timeline.hpp"
#include "instinfer/ssd/channel/timeline.hpp"
#include "instinfer/ssd/report/chrome_trace.hpp"
#include "instinfer/ssd/report/cost.hpp"
#include "instinfer/ssd/report/endurance.hpp"
#include "instinfer/ssd/report/energy.hpp"
#include "instinfer/ssd/report/event_bars.hpp"
#include "instinfer/ssd/report/gantt.hpp"
#include "instinfer/ssd/report/stream_latencies.hpp"
