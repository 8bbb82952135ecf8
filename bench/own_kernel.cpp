// A fold kernel of one's own beside the library's: checked, and against the processor's limits.
//
// A kernel is one operation of the arithmetic. my_arithmetic replaces the fold and keeps the rest,
// so all policies, layouts and batches run with it. Every case is checked against fp64 first, and
// has the counters of ./dev bench cpu; time_over_ours is over the library's kernel on the same
// pages. Write your own in place of my_arithmetic::fold.

#include "cpu_cases.hpp"
#include "run_benchmarks.hpp"
#include "support/program.hpp"

namespace {

using namespace instinfer;
namespace hn = cpu::hn;

// A first kernel: a horizontal sum for each key, no prefetch, and each query head reads K and V
// again.
template <class Format>
class my_arithmetic : public cpu::arithmetic<Format> {
  using cursor = cpu::row_cursor<typename Format::storage>;

 public:
  // Folds the rows of K and V that a plan lists into the softmax state of each query head.
  // q [group, k_dim].
  void fold(const attention::query_group& q, const access_plan& plan, const layout::head_pages&,
            const layout::page_reader<Format>& pages) {
    cursor k_rows;
    cursor v_rows;
    k_rows.begin(false, 0, plan.reads().size());
    v_rows.begin(true, 0, plan.reads().size());
    typename cursor::block k;
    typename cursor::block v;
    for (k_rows.take(plan, pages, k); k.count > 0; k_rows.take(plan, pages, k)) {
      v_rows.take(plan, pages, v);
      sums_.reset(q.group, Format::v_dim, k.count);
      for (std::uint32_t h = 0; h < q.group; ++h) {
        fold_block(q.values.subspan(h * Format::k_dim).data(), q.logits.scale_for(Format::k_dim), k,
                   v, h);
      }
      this->state().merge(sums_, q.first_head);
    }
  }

 private:
  // One block of up to 16 tokens for head h: logits, their maximum, weights, and the sum of V.
  void fold_block(const float* q, float scale, const typename cursor::block& k,
                  const typename cursor::block& v, std::uint32_t h) {
    float logits[cursor::block_rows];
    softmax_state<float>& state = sums_.state(h);
    for (std::uint32_t t = 0; t < k.count; ++t) {
      auto sum = hn::Zero(cpu::float_tag{});
      for (int i = 0; i < Format::k_dim; i += int{cpu::lanes}) {
        sum = hn::MulAdd(cpu::load(k.rows[t] + i), hn::LoadU(cpu::float_tag{}, q + i), sum);
      }
      logits[t] = scale * cpu::sum(sum);
      state.max = std::max(state.max, logits[t]);
    }
    for (std::uint32_t t = 0; t < k.count; ++t) {
      const float weight = std::ldexp(std::exp(logits[t] - state.max), -int(sums_.shift()));
      state.sum += weight;
      cpu::add_row<1>(v.rows[t], &weight, 1, sums_.row(h).data(), Format::v_dim);
    }
  }

  cpu::group_sums sums_;  // of one block
};

struct my_path {
  template <class Format>
  using arithmetic = my_arithmetic<Format>;
};

}  // namespace

int main(int argc, char** argv) {
  return program::run("bench_own_kernel", [&] {
    using namespace instinfer::bench;
    using f16 = kv_format<fp16, 128>;
    for (const auto& [q_heads, kv_heads] : {std::pair{32, 32}, std::pair{32, 8}}) {
      const shape s{q_heads, kv_heads, {32768}};
      add<insta, f16>("ours", s, {1});
      add<insta, f16, my_path>("mine", s, {1});
    }
    return run_benchmarks(argc, argv, [] { add_machine_to_header(); });
  });
}
