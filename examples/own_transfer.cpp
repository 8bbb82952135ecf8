// A transfer policy of your own: which bytes cross the link, and how long they take.
//
// This one is a memory expander: the GPU loads whole pages over CXL in 256-byte flits, with no file
// system and no copy in host memory, and computes attention itself.

#include "support/on_every_path.hpp"
#include "support/program.hpp"

using namespace instinfer;

struct over_cxl {
  static constexpr bool computes_in_drive = false;

  static transfer::link_bytes bytes(const traffic& pages, std::uint64_t /*query_bytes*/,
                                    std::uint64_t /*output_bytes*/) {
    return {.up = pages.channel_bytes + pages.buffer_bytes, .down = 0};
  }

  // CXL 3 over PCIe 5 x8: 32 GB/s raw; 236 of the 256 bytes of a flit are payload (256 B flit
  // mode). Latency assumed.
  static transfer::route_time time(transfer::link_bytes moved,
                                   const transfer::route_spec& /*machine*/) {
    const double payload_bytes_per_ns = 32.0 * 236 / 256;
    return {.link_ns = static_cast<double>(moved.up + moved.down) / payload_bytes_per_ns,
            .latency_ns = 400,
            .software_ns = 0};
  }
};

static_assert(transfer::Transfer<over_cxl>);

template <class Transfer>
using dense_over = design<attention::dense, layout::token_indexed<>, flash::pcie4_ssd, Transfer>;

// One layer of OPT-13B, 16 sequences of 2048 tokens: no values are needed to time it.
template <class Design>
void time_step(const char* name) {
  using engine = flash::engine<Design>;
  engine drive({.layers = 1, .q_heads = 40, .kv_heads = 40},
               {.bytes = std::uint64_t{4} << 30, .context_tokens = 2048});
  const std::vector<float> q(40 * 128, 1.0f);
  std::vector<float> out(40 * 128);
  std::vector<typename engine::request> batch;
  for (int i = 0; i < 16; ++i) {
    batch.push_back({drive.open(), q, out});
    drive.append_count(batch.back().seq, 0, 2048);
  }
  const flash::receipt receipt = drive.attend_batch(0, batch);
  std::printf("%-18s %6.1f MB over the link, %6.2f ms\n", name,
              static_cast<double>(receipt.traffic.link_bytes) / 1e6, receipt.total_ns() / 1e6);
}

int main() {
  return program::run("own_transfer", [] {
    const bool agree = examples::on_every_path<dense_over<over_cxl>, kv_format<fp16, 64>>(
        {.layers = 1, .q_heads = 4, .kv_heads = 2}, 3000);
    time_step<dense_over<transfer::host_bounce>>("host bounce");
    time_step<dense_over<transfer::gpu_direct>>("GPU direct");
    time_step<dense_over<transfer::peer_to_peer>>("peer to peer");
    time_step<dense_over<over_cxl>>("CXL (ours)");
    time_step<insta>("in storage, dense");
    time_step<insta_sparf>("in storage, SparF");
    return agree ? 0 : 1;
  });
}
