// Everything that g++ and clang++ can include, as a user with many warnings does, after macros that
// other libraries leave behind. Engines of each path are instantiated, since templates warn only
// then. .ci/run compiles it without making code.

#include <algorithm>
#include <limits>
#include <random>
#include <string>
#include <vector>

#define min(a, b) (((a) < (b)) ? (a) : (b))
#define max(a, b) (((a) > (b)) ? (a) : (b))
#define near
#define far

#include <instinfer/cpu.hpp>
#include <instinfer/drive.hpp>
#include <instinfer/flash.hpp>
#include <instinfer/methods.hpp>
#include <instinfer/reference.hpp>
#include <instinfer/system.hpp>

using namespace instinfer;

template <class Engine>
double one_token(const typename Engine::policy& policy = {}) {
  using element = typename Engine::element;
  Engine engine({.layers = 1, .q_heads = 2, .kv_heads = 1}, {.context_tokens = 64}, policy);
  const sequence seq = engine.open();
  const std::vector<element> row(64);
  const std::vector<float> q(128);
  std::vector<float> out(128);
  engine.append(seq, 0, row, row);
  const auto done = engine.attend(seq, 0, q, out);
  const sequence copy = engine.fork(seq);
  engine.truncate(copy, 0);
  engine.reclaim(seq);
  return static_cast<double>(done.traffic.pages_read);
}

std::string on_drive() {
  engine<insta, kv_format<fp16, 64>, cpu::path, store::drive_files> engine(
      {.layers = 1, .q_heads = 2, .kv_heads = 1}, {.context_tokens = 64},
      store::drive_files({.folders = {"."}}, 2, 16, 4096));
  return to_string(engine.pages().mode());
}

template <class Policy>
using on_instcsd = design<Policy, layout::dual<>, flash::instcsd, transfer::in_storage>;

double everything() {
  return one_token<reference::engine<insta_sparf, kv_format<fp16, 64>>>() +
         one_token<cpu::engine<insta_sparf, kv_format<bf16, 64>>>() +
         one_token<cpu::engine<on_instcsd<attention::hgca>, kv_format<fp32, 64>>>() +
         one_token<cpu::engine<on_instcsd<attention::quest>, kv_format<fp32, 64>>>() +
         one_token<flash::engine<insta_sparf, kv_format<fp16, 64>>>() +
         system::run(system::insta_system<>(system::opt_6_7b, system::paper_server(),
                                            system::paper_opt_workload(8)))
             .tokens_per_s();
}
