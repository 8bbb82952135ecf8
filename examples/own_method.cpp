// A selection method with a summary of its own, from scratch: chunks of 16 tokens by their mean
// key.
//
// A summary is told of every token that comes and goes. This one keeps the mean key of each chunk
// in fast memory; the policy scores the chunks, reads the best ones and a window, and leaves the
// rest. Nothing else in the library knows of the two.

#include <instinfer/summaries/chunks.hpp>

#include "support/on_every_path.hpp"
#include "support/program.hpp"

using namespace instinfer;

struct chunk_means {
  template <class Format>
  class state {
   public:
    using element = typename Format::element;
    static constexpr std::uint32_t chunk = 16;
    static constexpr std::size_t row_dim = Format::k_dim;
    static constexpr std::size_t row_bytes = row_dim * sizeof(float);

    // Takes memory here, where it may fail; append may not.
    void reserve(std::uint32_t count) {
      means_.reserve(((tokens_ + count + chunk - 1) / chunk) * row_dim);
    }
    void append(std::span<const element> k, std::span<const element> /*v*/) noexcept {
      const auto already = static_cast<float>(tokens_ % chunk);  // tokens of the last chunk
      if (tokens_++ % chunk == 0) {
        means_.resize(means_.size() + row_dim);
      }
      float* mean = means_.data() + means_.size() - row_dim;
      for (std::size_t i = 0; i < row_dim; ++i) {
        mean[i] += (to_float(k[i]) - mean[i]) / (already + 1.0f);
      }
    }
    void forget(std::span<const element> /*k*/, std::span<const element> /*v*/) noexcept {}
    std::uint64_t bytes() const { return means_.size() * sizeof(float); }

    // One row a chunk: what a query is scored against, and the tokens that each stands for.
    std::uint32_t chunks() const { return static_cast<std::uint32_t>(means_.size() / row_dim); }
    index_run members(std::uint32_t c) const {
      return {c * chunk, std::min((c + 1) * chunk, tokens_)};
    }
    std::uint32_t weight(std::uint32_t c) const { return members(c).size(); }
    std::span<const float> row(std::uint32_t c, std::span<float> /*scratch*/) const {
      return std::span(means_).subspan(c * row_dim, row_dim);
    }
    static void prepare(std::span<const float> q, std::span<float> out) {
      std::ranges::copy(q, out.begin());
    }

   private:
    std::vector<float> means_;  // [chunks, k_dim]
    std::uint32_t tokens_ = 0;
  };
};

struct landmarks {
  budget keep_chunks = 1.0 / 8;
  budget window = budget::at_most(64);
  using summaries = attention::summary_list<chunk_means>;

  template <attention::AttentionMachine M>
  void operator()(M& m, const typename M::query& q) const {
    const auto visible = m.all_tokens(q);
    const auto recent = m.steady(q, 0, window);
    const auto chunks = m.template chunks_of<chunk_means>(m.subtract(visible, recent));
    const auto scores = m.softmax(m.template score_chunks<chunk_means>(q, chunks));
    const auto best = m.template members<chunk_means>(m.top_chunks(scores, keep_chunks));
    m.fold(q, m.intersect(m.unite(best, recent), visible));
  }
};
static_assert(attention::AttentionPolicy<landmarks>);

int main() {
  return program::run("own_method", [] {
    using mine = design<landmarks, layout::token_indexed<>, flash::instcsd, transfer::in_storage>;
    return examples::on_every_path<mine, kv_format<fp16, 64>>({.q_heads = 4, .kv_heads = 2}, 3000)
               ? 0
               : 1;
  });
}
