#pragma once
// docs/reproduction.md, written from the claims; and their JSON.

#include <cstdio>
#include <string>
#include <vector>

#include "paper/claims.hpp"

namespace instinfer::paper {

namespace detail {

template <class... Args>
std::string formatted(const char* format, Args... args) {
  char text[256];
  std::snprintf(text, sizeof text, format, args...);
  return text;
}

// Three digits that matter; whole numbers in full.
inline std::string number(double x) {
  if (std::abs(x) >= 1000) {
    const std::string digits = formatted("%.0f", x);
    std::string grouped;
    for (std::size_t i = 0; i < digits.size(); ++i) {
      grouped += digits[i];
      const std::size_t left = digits.size() - 1 - i;
      grouped += left > 0 && left % 3 == 0 ? "," : "";
    }
    return grouped;
  }
  return formatted(std::abs(x) >= 100 ? "%.0f" : std::abs(x) >= 10 ? "%.1f" : "%.2f", x);
}

inline std::string error_of(const claim& c) {
  if (c.is_ordering()) {
    return c.ours == c.paper ? "yes" : "no";
  }
  const std::string text = formatted("%+.1f %%", 100 * c.error());
  return text == "-0.0 %" ? "+0.0 %" : text;
}

inline const char* name_of(kind k) { return k == kind::calibrated ? "calibrated" : "predicted"; }

}  // namespace detail

inline std::string table(const std::vector<claim>& claims) {
  std::string text = "| where | claim | paper | ours | error | kind |\n|---|---|---|---|---|---|\n";
  for (const claim& c : claims) {
    if (!c.is_ordering()) {
      text += "| " + c.figure + " | " + c.what + " | " + detail::number(c.paper) + " " + c.unit +
              " | " + detail::number(c.ours) + " | " + detail::error_of(c) + " | " +
              detail::name_of(c.how) + " |\n";
    }
  }
  text += "\n| where | who leads, and what fits | paper | ours | same |\n|---|---|---|---|---|\n";
  for (const claim& c : claims) {
    if (c.is_ordering()) {
      const bool holds = c.unit == "holds";
      text += "| " + c.figure + " | " + c.what + " | " +
              (holds ? "yes" : detail::formatted("%.0f", c.paper)) + " | " +
              (holds ? (c.ours == 1 ? "yes" : "no") : detail::formatted("%.0f", c.ours).c_str()) +
              " | " + detail::error_of(c) + " |\n";
    }
  }
  return text;
}

// Why rows are off by more than 5 %, and what else has to be said.
inline std::string notes(const std::vector<claim>& claims) {
  std::vector<std::pair<std::string, std::string>> by_note;
  for (const claim& c : claims) {
    if (c.note.empty()) {
      continue;
    }
    const std::string row = c.figure + ", " + c.what + " (" + detail::error_of(c) + ")";
    const auto same = std::ranges::find(by_note, c.note, [](const auto& n) { return n.second; });
    if (same == by_note.end()) {
      by_note.emplace_back(row, c.note);
    } else {
      same->first += "; " + row;
    }
  }
  std::string text;
  for (const auto& [rows, note] : by_note) {
    text += "- **" + rows + ".** " + note + "\n";
  }
  return text;
}

inline std::string accuracies(const all_runs& runs) {
  std::string text =
      "| compression | SparF | SparQ | H2O | StreamingLLM | window |\n|---|---|---|---|---|---|\n";
  for (const double of : {2.0, 4.0, 8.0, 16.0}) {
    text += detail::formatted("| 1/%.0f |", of);
    for (const char* method : {"SparF", "SparQ", "H2O", "StreamingLLM", "window"}) {
      const accuracy& a = runs.accuracy_of("trace", method, of);
      text += detail::formatted(" %.3f (%.3f) |", a.mass, a.rel_error);
    }
    text += "\n";
  }
  return text;
}

inline std::string document(const all_runs& runs, const std::vector<claim>& claims,
                            const std::vector<std::string>& figures) {
  const system::host_software constants;
  const auto numbers = [&](kind how) {
    return std::ranges::count_if(claims,
                                 [&](const claim& c) { return c.how == how && !c.is_ordering(); });
  };
  const auto orderings = std::ranges::count_if(claims, &claim::is_ordering);
  const auto same = std::ranges::count_if(
      claims, [](const claim& c) { return c.is_ordering() && c.ours == c.paper; });
  std::string text = "# The paper's evaluation, reproduced\n\n";
  text +=
      "This file is written by `./dev bench paper --doc docs/reproduction.md`; do not edit it. `./dev bench paper` prints the table, `--json FILE` "
      "writes it, `--figures DIR` draws the figures, `--calibrate` solves for the constants. A test (`./dev test system`) holds the file to what the "
      "models give today.\n\n";
  text += detail::formatted("Of %d numbers %d are predicted and %d calibrated. ",
                            static_cast<int>(numbers(kind::predicted) + numbers(kind::calibrated)),
                            static_cast<int>(numbers(kind::predicted)),
                            static_cast<int>(numbers(kind::calibrated)));
  text += detail::formatted("The predicted ones are off by %.1f %% in the median. ",
                            100 * median_error(claims));
  text += detail::formatted(
      "Of %d claims about who leads and what fits, %d come out as in the paper.\n\n",
      static_cast<int>(orderings), static_cast<int>(same));
  text +=
      "## How the machine is modelled\n\n"
      "A step is the sum of parts that were found to explain the bars, and no claim has a factor of its own:\n\n"
      "- **The drive.** The access plans of each attention policy go through the flash path (`system/kv_access.hpp`), at five context lengths, with straight "
      "lines between. Heads and sequences overlap inside the drive, as its replay has it: filters and kernels with limited buffers hold up the channels.\n"
      "- **Weights** rest in host memory and are streamed to the GPU in each step, layer by layer. This is what is left of a step of FlexGen beside KV access, "
      "and it is why the KV cache that host memory can keep is smaller by the weights.\n"
      "- **The page cache.** FlexGen's files are cached in the host memory that weights and copy buffers leave. A step walks the cache from end to end, so it is "
      "read from memory when all of it fits and from the drive when not. This alone gives FlexGen's best batches: 32, 8 and 16 for the three models.\n"
      "- **Requests.** Each 128 KiB costs page faults and copies (calibrated), and one that goes to the drive also a command and its share of the wait for the "
      "flash array, 10 us and 45 us over four copy threads (assumed).\n"
      "- **Swapping.** DeepSpeed's cache in host memory is there twice; when it overflows, all of it is swapped in each step.\n"
      "- **Recomputing.** Sequences whose cache does not fit GPU memory pay tokens of forward pass for each token.\n"
      "- **Commands.** InstA's host sends one attend command for each sequence, layer and drive, 10 us each (assumed), before the drives start.\n"
      "- **GPU memory.** FlexGen's prefill holds three matrices of logits for the whole batch and uses 0.8 of the memory, as its own cost model plans.\n\n";
  text +=
      "## Constants that were calibrated\n\n"
      "Four, in `system/spec/host_spec.hpp`, on four numbers of Fig. 14, of which one is a quotient of two printed claims: InstA's best over FlexGen's best is 11.1 / 2.08, which "
      "keeps the drive's own SparF time out of the host's constants. Two more were set when the drive was modelled: dies a channel (Table III) and softmax units "
      "(`ssd/spec/accelerator.hpp`).\n\n"
      "| constant | value | on |\n|---|---|---|\n";
  text += detail::formatted(
      "| request from the page cache | %.1f us a 128 KiB | InstA's best over FlexGen's best |\n",
      constants.cached_request_ns / 1e3);
  text += detail::formatted(
      "| KV from host memory to the GPU | %.2f GB/s | InstA's best over DeepSpeed's best |\n",
      constants.pageable_bytes_per_s / 1e9);
  text += detail::formatted(
      "| page swapped in and out | %.1f us a 4 KiB | DeepSpeed, batch 16 over 32 |\n",
      constants.swapped_page_ns / 1e3);
  text += detail::formatted(
      "| tokens computed again for a token | %.0f | InstA-SparF over Recomp, batch 256 |\n",
      constants.recomputed_tokens);
  text += "\n## Claims\n\n" + table(claims);
  text += "\n## What to know about these rows\n\n" + notes(claims);
  text +=
      "\nOne more thing does not multiply out. The open pages of SparF's dim-indexed K, up to 512 tokens of every head at a context of 2K, and the page tables take ";
  text += detail::formatted("%.0f GB for OPT-13B at batch 64, ",
                            runs.opt_13b.sparf.at(64).memory.drive_dram.needed_bytes / 1e9);
  text +=
      "and the drive has 2 GB of DRAM: the model reports it and goes on (`memory_use::drive_dram`).\n\n"
      "## Fig. 13, accuracy\n\n"
      "The paper's figure is of two models on tasks. What can be measured here is what methods keep of exact attention: the share of its weight on the tokens "
      "that they attend to, and in brackets the error of the output, |out - exact| / |exact|. SmolLM2-135M's decode at 4,096 tokens of "
      "[a book](../examples/traces/README.md), 32 queries in three layers:\n\n" +
      accuracies(runs);
  text += "\n## Figures\n\n";
  for (const std::string& name : figures) {
    text += "![" + name + "](figures/" + name + ".svg)\n\n";
  }
  text.pop_back();
  return text;
}

// A list of objects with keys figure, claim, unit, paper, ours, kind.
inline std::string json(const std::vector<claim>& claims) {
  const auto quoted = [](const std::string& s) {
    std::string safe = "\"";
    for (const char c : s) {
      safe += c == '"' || c == '\\' ? std::string("\\") + c : std::string(1, c);
    }
    return safe + "\"";
  };
  std::string text = "[";
  for (const claim& c : claims) {
    text += text.size() > 1 ? ",\n " : "\n ";
    text += "{\"figure\": " + quoted(c.figure) + ", \"claim\": " + quoted(c.what) +
            ", \"unit\": " + quoted(c.unit) + detail::formatted(", \"paper\": %.10g", c.paper) +
            detail::formatted(", \"ours\": %.10g", c.ours) + ", \"kind\": \"" +
            detail::name_of(c.how) + "\"}";
  }
  return text + "\n]\n";
}

}  // namespace instinfer::paper
