#pragma once
// The report of a system's run: seconds by purpose, bytes per link, memory, tokens per second.

#include <array>
#include <cmath>
#include <string>
#include <string_view>

#include "instinfer/system/memory.hpp"
#include "instinfer/system/spec/workload.hpp"

namespace instinfer::system {

// Seconds of one decode step of the whole batch. Overlapped time counts once, for the part that is
// visible, so the parts add up.
struct step_time {
  double weights_s = 0;      // streaming weights, as far as the GPU waits for them
  double compute_s = 0;      // GPU operators
  double kv_drive_s = 0;     // KV access: flash, and the accelerator inside the drive
  double kv_link_s = 0;      // KV access: pages over links
  double kv_software_s = 0;  // KV access: host file system, copies, swapping
  double kv_write_s = 0;     // transfer of new K and V to their storage
  double qo_link_s = 0;      // in-storage attention: q, k, v down, the output up
  double command_s = 0;      // in-storage attention: NVMe commands

  // The paper calls this KV access in Fig. 4, 18 and 19.
  constexpr double kv_access_s() const { return kv_drive_s + kv_link_s + kv_software_s; }
  constexpr double total_s() const {
    return weights_s + compute_s + kv_access_s() + kv_write_s + qo_link_s + command_s;
  }
  constexpr double kv_access_share() const { return kv_access_s() / total_s(); }

  constexpr step_time& operator+=(const step_time& s) {
    weights_s += s.weights_s;
    compute_s += s.compute_s;
    kv_drive_s += s.kv_drive_s;
    kv_link_s += s.kv_link_s;
    kv_software_s += s.kv_software_s;
    kv_write_s += s.kv_write_s;
    qo_link_s += s.qo_link_s;
    command_s += s.command_s;
    return *this;
  }
  constexpr step_time scaled(double f) const {
    return {f * weights_s,     f * compute_s,  f * kv_drive_s, f * kv_link_s,
            f * kv_software_s, f * kv_write_s, f * qo_link_s,  f * command_s};
  }
};

// A part of a step by name.
struct step_part {
  std::string_view name;
  double s = 0;
};

// The part that takes longest; the first of equal ones.
constexpr step_part largest_part(const step_time& t) {
  const std::array<step_part, 8> parts{{{"weights over the GPU's link", t.weights_s},
                                        {"GPU", t.compute_s},
                                        {"drives", t.kv_drive_s},
                                        {"KV over links", t.kv_link_s},
                                        {"host software", t.kv_software_s},
                                        {"writes of new KV", t.kv_write_s},
                                        {"q and outputs over links", t.qo_link_s},
                                        {"attend commands", t.command_s}}};
  step_part largest = parts[0];
  for (const step_part& part : parts) {
    largest = part.s > largest.s ? part : largest;
  }
  return largest;
}

// Bytes that one step moves.
struct step_bytes {
  double weights = 0;      // host to GPU
  double gpu_link_kv = 0;  // KV entries and pages, or q, k, v and outputs, over the GPUs' links
  double drive_link = 0;   // over the links of all drives
  double flash_read = 0;   // pages over the flash channels
  double kv_wanted = 0;    // entries of these pages that attention uses
  double kv_written = 0;   // to the storage of the cache

  constexpr step_bytes& operator+=(const step_bytes& b) {
    weights += b.weights;
    gpu_link_kv += b.gpu_link_kv;
    drive_link += b.drive_link;
    flash_read += b.flash_read;
    kv_wanted += b.kv_wanted;
    kv_written += b.kv_written;
    return *this;
  }
  constexpr step_bytes scaled(double f) const {
    return {f * weights,    f * gpu_link_kv, f * drive_link,
            f * flash_read, f * kv_wanted,   f * kv_written};
  }
};

struct decode_step {
  step_time time;
  step_bytes bytes;
};

// All prompts through the model. The layer-wise pipeline overlaps a layer's KV transfer with the
// next layer's computation.
struct prefill_time {
  double compute_s = 0;
  double weights_s = 0;
  double kv_write_s = 0;
  double total_s = 0;
  double kv_written_bytes = 0;
};

struct report {
  workload job;
  memory_use memory;
  prefill_time prefill;
  decode_step mean;  // over all steps of the run
  double decode_s = 0;

  bool fits() const { return memory.fits(); }
  double total_s() const { return prefill.total_s + decode_s; }
  // Generated tokens over the time of the whole run, with prefill; 0 if memory is too small.
  double tokens_per_s() const { return fits() ? job.tokens_out() / total_s() : 0.0; }
};

}  // namespace instinfer::system
