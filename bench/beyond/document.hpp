#pragma once
// docs/beyond.md as text.

#include <string>

#include "beyond/tables.hpp"

namespace instinfer::beyond {

// Where holding costs more than computing.
inline std::string formatted_idle(const ladder& l) {
  const std::vector<answer>& longest = l.rungs.back();
  const answer& gpu = longest[text::index_of(l, "HBM")];
  const answer& ours = longest[text::index_of(l, "InstA-SparF, wide")];
  return text::formatted(
      "\nAt 1,024 K the cache takes %d H100s. Whoever is content with one token of each sequence every %.0f s pays %.1f times less with drives than with the GPUs' own memory; "
      "whoever keeps the GPUs busy pays %.0f times less a token with the GPUs.\n",
      gpu.gpus, static_cast<double>(sequences) / ours.tokens_per_s,
      text::usd_an_hour(gpu) / text::usd_an_hour(ours),
      text::per_dollar(gpu) / text::per_dollar(ours));
}

inline std::string document(const results& r) {
  std::string t =
      "# Beyond the paper\n\n"
      "This file is written by `./dev bench beyond --doc docs/beyond.md --figures docs/figures`; do not edit it. `--json FILE` writes every number. "
      "A test (`./dev test system`) holds the file to what the models give today.\n\n"
      "**Every result here is predicted.** The drive's times come from the flash path, as in [the reproduction](reproduction.md); prices and most powers are "
      "assumed, and listed at the end, so where a conclusion hangs on a price, the price at which it turns stands beside it.\n\n"
      "## Long contexts, grouped-query models\n\n"
      "16 sequences decode 1,024 tokens each. Weights rest on the GPU: one H100 for Llama-3-8B, three for Llama-3-70B, PCIe 5 x16 each. "
      "The cache is kept, by column:\n\n"
      "- **HBM**: in as many more H100s as hold it, which share weights and cache without any loss.\n"
      "- **DRAM, CXL, SSD**: beside the GPU, read at the slower of the tier and the GPU's link, without software, everything overlapped "
      "(`system/memory_tier.hpp`). DRAM has 307.2 GB/s, each 256 GB of CXL memory 32 GB/s, and there are four SSDs of 14 GB/s. **1/8**: sparse attention that reads an eighth of the bytes and wastes nothing. "
      "These are bounds that no program reaches; the drives' columns are simulated.\n"
      "- **InstA, InstA-SparF**: in four computational drives of 16 channels on PCIe 5. **wide**: with an engine that is faster by the number of query heads that "
      "share a KV head, 4 and 8.\n\n"
      "Tokens/s, Llama-3-8B:\n\n" +
      text::table(r.small, text::per_second) + "\n![tokens/s](figures/beyond_tokens.svg)\n\n" +
      "Tokens/s, Llama-3-70B:\n\n" + text::table(r.large, text::per_second) +
      "\nThree things to see. The GPU's own memory is by far the fastest wherever one pays for enough of it. "
      "Grouped queries take from in-storage attention what made it strong: a page of K is used by 4 or 8 query heads, so the link carries less for each, and "
      "the engine must score 4 or 8 times as much for each page it reads; an engine sized for one query head a KV head is what binds. "
      "And a memory beside the GPU that reads sparsely without waste is faster than four drives: it takes more drives than that to add up to a link of 64 GB/s for each GPU, as the table of drives below shows.\n\n"
      "## Drives and widths\n\n"
      "Llama-3-8B, 16 sequences of 128 K, four drives: tokens/s, and what is busiest in the drive (flash is not, while its pages wait for the engine). int8 is the codec of `codec/scaled_pages.hpp`: 31 tokens and a scale a page, where fp16 has 16 tokens.\n\n" +
      text::widths(r) +
      "\nFor dense fp16 an engine eight times as wide is slower than one four times as wide. The drive sends data before commands; where the engine holds pages up, "
      "commands go out meanwhile, and where it does not, dies wait for theirs and march in step ([flash.md](flash.md#what-each-rule-costs), arbitration). With commands first, wider is faster.\n"
      "\nMore drives, the same work: what a GPU's link lets through stays, the drives add up, until heads and sequences are used up (one host, assumed to have the slots).\n\n" +
      text::by_drives(r) +
      "\n## Where the GPU's own memory wins\n\n"
      "It wins where it holds the cache. H100s of 80 GB, as many as hold the weights; 0.9 of the memory is used. Sequences that fit, by context:\n\n" +
      text::gpu_room() +
      "\n## Break-even lines\n\n"
      "Tokens a dollar, Llama-3-8B: the machine paid off, and its energy.\n\n" +
      text::table(r.small, text::per_dollar) +
      "\n![tokens a dollar](figures/beyond_dollars.svg)\n\nJoules a token, at full power all the time:\n\n" +
      text::table(r.small, text::joules) +
      "\n![joules a token](figures/beyond_joules.svg)\n\n"
      "InstA-SparF on the four wide drives against each of the others (the first four read all of the cache, so part of that lead is sparsity's; the next three do not): the context from which it stays ahead, and what one of its drives may cost to give as many tokens a dollar "
      "(\"nothing\": not even free). Llama-3-8B, then Llama-3-70B:\n\n" +
      text::break_even(r.small) + "\n" + text::break_even(r.large) +
      "\nThat is for machines that are always asked for all they can do. Who decodes less pays by the hour; dollars an hour for the same 16 sequences, Llama-3-8B, "
      "parts and energy:\n\n" +
      text::table(r.small, text::usd_an_hour) + formatted_idle(r.small) +
      "\n## One drive to a thousand\n\n"
      "Llama-3-70B, 1,024 sequences of 128 K, InstA-SparF on wide drives, 16 drives a host, all serving one machine of eight H100s. KV heads are split over drives first, then "
      "sequences; q, k, v and outputs cross the network, 400 Gb/s a host and 5 us a message (assumed). Shares of a step's time:\n\n" +
      text::saturation(r.on_fabric) + "\nThe same over 100 Gb/s and 30 us (assumed):\n\n" +
      text::saturation(r.on_ethernet) + "\n![drives](figures/beyond_drives.svg)\n\n" +
      "## A drive in every home\n\n"
      "On paper only: each host one drive behind 1 Gb/s and 15 ms (assumed), the eight H100s behind 400 Gb/s, as many sequences of 128 K as drives. Nothing is lost to failures, "
      "and nobody's drive is asleep.\n\n" +
      text::saturation(r.at_home) +
      "\nA token takes 80 layers of two messages each, 2.4 s of waiting for light and routers, whatever the number of drives; more sequences hide it, until the one machine "
      "with GPUs, or its link, is full. Beyond that the pool must be cut into pools, each with GPUs of its own.\n\n"
      "## Parts\n\n" +
      text::parts() +
      "\nRates: GPUs and links as in `system/spec/gpu_spec.hpp` and `system/spec/links.hpp`; DDR5-4800 on eight channels (arithmetic); CXL by PCIe 5 x8 (Micron reports 36 GB/s of mixed traffic "
      "for its CZ120); drives as in `ssd/spec/presets.hpp`, where the 16-channel drive is assumed as a whole. An engine that is wider costs nothing more here: the break-even price says what it may cost.\n";
  return t;
}

}  // namespace instinfer::beyond
