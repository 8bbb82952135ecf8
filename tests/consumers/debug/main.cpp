// One engine of the timing path from beginning to end, for builds that look for errors.
#include <instinfer/instinfer.hpp>

int main() {
  using namespace instinfer;
  using format = kv_format<fp16, 64>;
  flash::engine<insta_sparf, format> engine({.q_heads = 2, .kv_heads = 2},
                                            {.bytes = 4 << 20, .context_tokens = 256});
  const std::vector<fp16> rows(300 * 2 * 64);
  const std::vector<float> q(2 * 64, 1.0f);
  std::vector<float> out(q.size());
  const sequence seq = engine.open();
  engine.append(seq, 0, rows, rows);
  const bool timed = engine.attend(seq, 0, q, out).total_ns() > 0;
  engine.reclaim(seq);
  return timed ? 0 : 1;
}
