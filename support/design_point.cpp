// The engines behind cost_of: one for each page size and layout, all else is decided at run time.

#include "support/design_point.hpp"

#include <cmath>
#include <limits>
#include <utility>

#include "instinfer/layout/dim_indexed.hpp"
#include "instinfer/ssd/report/energy.hpp"

namespace instinfer::examples {
namespace {

// The presets, and drives that the program adds.
std::vector<std::pair<std::string, flash::drive_spec>> presets{
    {"instcsd", flash::instcsd},       {"pcie4_ssd", flash::pcie4_ssd},
    {"tlc_ssd", flash::tlc_ssd},       {"daisyplus", flash::daisyplus},
    {"pcie5_16ch", flash::pcie5_16ch}, {"slc_low_latency", flash::slc_low_latency}};

using format = kv_format<fp16, 128>;

// Dense or sparse by choice at run time: any program over the machine's operations is a policy.
// SparQ differs from SparF by the local window alone.
struct chosen_attention {
  bool dense = true;
  attention::sparf sparse = {};

  using summaries = attention::sparf::summaries;

  template <attention::AttentionMachine M>
  void operator()(M& m, const typename M::query& q) const {
    if (dense) {
      attention::dense{}(m, q);
    } else {
      sparse(m, q);
    }
  }
};

chosen_attention attention_of(const design_point& p) {
  if (p.attention == "dense") {
    return {};
  }
  attention::sparf sparse = attention::sparf::at_compression(p.compression);
  if (p.attention == "sparq") {
    sparse.local = attention::sparq{}.local;
  }
  return {.dense = false, .sparse = sparse};
}

// A context length for which dims_by_context takes `dims`: it is asked for nothing else.
std::uint32_t context_for(std::uint32_t dims, std::uint32_t page_bytes) {
  return dims == 8 ? 1
                   : 4 * (page_bytes / static_cast<std::uint32_t>(format::element_bytes)) / dims;
}

constexpr flash::drive_spec with_pages_of(std::uint32_t page_bytes) {
  flash::drive_spec drive = flash::instcsd;
  drive.geometry.page_bytes = static_cast<std::int32_t>(page_bytes);
  return drive;
}

struct chosen_arbitration {
  flash::bus_turn first = flash::bus_turn::data_out;
  flash::bus_turn choose() const { return first; }
};

// The three routes to the GPU are one, host_bounce, on three machines: DMA to the GPU has no second
// hop, and without a file system there is one command for all pages, whose cost shows once. A test
// compares them with the routes themselves.
transfer::route_spec machine_of(const design_point& p) {
  transfer::route_spec machine;
  constexpr double unlimited = std::numeric_limits<double>::infinity();
  if (p.route == "gpu_direct" || p.route == "peer_to_peer") {
    machine.gpu_link = {unlimited, 0};
  }
  if (p.route == "peer_to_peer") {
    machine.request_bytes = unlimited;
    machine.file_system_ns = machine.nvme_command_ns;
  }
  return machine;
}

flash::drive_rules rules_of(const design_point& p) {
  return {.pair = p.pairing == "any" ? flash::pairing::any : flash::pairing::same_block_and_page,
          .cache_read = p.cache_read == "yes",
          .transfer = p.transfer == "codeword" ? flash::transfer_size::codeword
                                               : flash::transfer_size::page};
}

template <class Layout, class Route>
step_cost cost_with(const design_point& p, flash::chrome_trace* trace) {
  using point = design<chosen_attention, Layout, with_pages_of(Layout::page_bytes), Route>;
  using engine = flash::engine<point, format, flash::random_selection, chosen_arbitration>;
  const auto whole = [](double x) { return static_cast<std::uint32_t>(x); };
  const flash::drive_spec drive = drive_of(p);
  const std::uint32_t dims = whole(p.dims);
  engine clock(
      {.layers = 1,
       .q_heads = static_cast<int>(p.heads * p.group),
       .kv_heads = static_cast<int>(p.heads)},
      {.bytes = static_cast<std::uint64_t>(drive.geometry.bytes()) / whole(p.layers),
       .context_tokens = dims == 0 ? whole(p.context) : context_for(dims, Layout::page_bytes)},
      attention_of(p), {}, drive, machine_of(p), rules_of(p),
      {p.arbitration == "command_first" ? flash::bus_turn::command : flash::bus_turn::data_out});

  step_cost cost{.drive = drive, .prompt = {}, .step = {}};
  const std::vector<float> q(static_cast<std::size_t>(p.heads * p.group) * format::k_dim);
  std::vector<float> out(q.size());
  std::vector<typename engine::request> batch;
  for (std::uint32_t s = 0; s < whole(p.batch); ++s) {
    const sequence seq = clock.open();
    if (s + 1 < whole(p.batch)) {
      clock.append_untimed(seq, 0, whole(p.context));
    } else {
      cost.prompt = clock.append_count(seq, 0, whole(p.context));
    }
    batch.push_back({seq, q, out});
  }
  cost.step = clock.attend_batch(0, batch, trace);

  // A wanted element takes a multiplication and an addition for each query head of its group; on
  // the GPU they are not ours.
  const traffic& moved = cost.step.traffic;
  const double wanted = static_cast<double>(moved.filtered_bytes + moved.buffer_bytes) /
                        static_cast<double>(format::element_bytes);
  cost.energy_j =
      flash::energy_of(flash::work_of(moved, Route::computes_in_drive ? 2 * wanted * p.group : 0.0,
                                      cost.step.total_ns() * 1e-9),
                       drive.geometry, drive.timing)
          .total_j();
  return cost;
}

template <class Layout>
step_cost cost_on(const design_point& p, flash::chrome_trace* trace) {
  return p.route == "in_storage" ? cost_with<Layout, transfer::in_storage>(p, trace)
                                 : cost_with<Layout, transfer::host_bounce>(p, trace);
}

template <std::uint32_t PageBytes>
step_cost cost_with_pages(const design_point& p, flash::chrome_trace* trace) {
  if (p.layout == "token_indexed") {
    return cost_on<layout::token_indexed<PageBytes>>(p, trace);
  }
  if (p.layout == "dual") {
    return cost_on<layout::dual<PageBytes>>(p, trace);
  }
  return cost_on<layout::dim_indexed<PageBytes>>(p, trace);
}

}  // namespace

std::vector<std::string> drive_names() {
  std::vector<std::string> all;
  for (const auto& [name, drive] : presets) {
    all.push_back(name);
  }
  return all;
}

void add_drive(const std::string& name, const flash::drive_spec& drive) {
  flash::validate(drive);
  const auto known = std::ranges::find(presets, name, &decltype(presets)::value_type::first);
  if (known != presets.end()) {
    known->second = drive;
  } else {
    presets.emplace_back(name, drive);
  }
}

design_point resolved(design_point p) {
  const auto preset = std::ranges::find(presets, p.drive, &decltype(presets)::value_type::first);
  require(preset != presets.end(), [&] { return "drive: there is no preset \"" + p.drive + "\""; });
  const flash::geometry& g = preset->second.geometry;
  const flash::timing& t = preset->second.timing;
  const auto fill = [](double& x, double of_preset) { x = x == 0 ? of_preset : x; };
  fill(p.channels, g.channels);
  fill(p.chips, g.chips);
  fill(p.dies, g.dies);
  fill(p.planes, g.planes);
  fill(p.page_kib, g.page_bytes / 1024.0);
  fill(p.codeword_kib, g.codeword_bytes / 1024.0);
  fill(p.bus_gb_s, static_cast<double>(t.bus_bytes_per_s) / 1e9);
  fill(p.tr_us, static_cast<double>(t.read_ps) / 1e6);
  if (p.layout == "token_indexed") {
    p.dims = 0;
  }
  if (p.attention == "dense") {
    p.compression = 1;
  }
  if (p.route != "in_storage") {
    p.units = "preset";
    p.heads_at_once = 0;
  }
  return p;
}

flash::drive_spec drive_of(const design_point& p) {
  flash::drive_spec drive =
      std::ranges::find(presets, p.drive, &decltype(presets)::value_type::first)->second;
  flash::geometry& g = drive.geometry;
  const auto whole = [](double x) { return static_cast<std::int32_t>(x); };
  g.channels = whole(p.channels);
  g.chips = whole(p.chips);
  g.dies = whole(p.dies);
  g.planes = whole(p.planes);
  const std::int32_t larger = whole(p.page_kib) * 1024 / g.page_bytes;
  require(larger > 0 && g.blocks % larger == 0, [&] {
    return "page_kib: the preset's " + std::to_string(g.blocks) + " blocks of " +
           std::to_string(g.page_bytes) + "-byte pages do not divide into blocks of " +
           std::to_string(whole(p.page_kib)) + " KiB pages";
  });
  g.blocks /= larger;
  g.page_bytes *= larger;
  g.spare_bytes *= larger;
  g.codeword_bytes = static_cast<std::int32_t>(std::llround(p.codeword_kib * 1024));
  drive.timing.bus_bytes_per_s = std::llround(p.bus_gb_s * 1e9);
  const std::int64_t read_ps = std::llround(p.tr_us * 1e6);
  require(drive.timing.types.count == 1 || read_ps == drive.timing.read_ps, [&] {
    return "tr_us: " + p.drive + " has " + std::to_string(drive.timing.types.count) +
           " types of pages, each with a tR of its own; leave tr_us to the preset";
  });
  drive.timing.read_ps = read_ps;
  flash::validate(drive);
  if (p.units == "scaled") {
    drive.units = flash::accelerator_for(drive, whole(p.group));
  }
  drive.units.heads_at_once = whole(p.heads_at_once);
  require(p.route != "in_storage" || drive.units.present(),
          [&] { return "units: " + p.drive + " has no engine; choose units scaled to its rate"; });
  return drive;
}

step_cost cost_of(const design_point& p, flash::chrome_trace* trace) {
  switch (static_cast<int>(p.page_kib)) {
    case 4:
      return cost_with_pages<4096>(p, trace);
    case 8:
      return cost_with_pages<8192>(p, trace);
    case 16:
      return cost_with_pages<16384>(p, trace);
    default:
      throw bad_argument("page_kib: layouts are built for 4, 8 and 16 KiB pages, got " +
                         std::to_string(p.page_kib));
  }
}

}  // namespace instinfer::examples
