#pragma once
// The file of one sequence of a cluster: a head, then the file of each drive that has a part.

#include <array>
#include <string>
#include <vector>

#include "instinfer/cluster/splits.hpp"
#include "instinfer/store/sequences/checked_stream.hpp"

namespace instinfer::cluster {

// The tokens of a layer of a sequence on all drives together: those at positions [first,
// positions) are live.
struct layer_tokens {
  std::uint64_t positions = 0;
  std::uint64_t first = 0;
};

// The head of a file. Parts of whole sequences do not depend on the number of drives: a file of
// by_sequences loads on any number.
struct file_head {
  std::array<char, 8> magic{'i', 'n', 's', 't', 'c', 'l', '\r', '\n'};
  std::uint32_t version = 1;
  std::string model{};
  std::string split{};
  std::vector<layer_tokens> layers{};
  std::vector<std::uint64_t> part_bytes{};

  void each_part(auto&& file) { file(magic, version, model, split, layers, part_bytes); }

  // Throws bad_file, with what differs.
  static file_head read(auto& in, const std::string& model, const std::string& split,
                        std::size_t layers, std::size_t parts) {
    store::file_reader from{in};
    file_head head;
    from(head.magic, head.version);
    require<bad_file>(head.magic == file_head{}.magic,
                      [] { return std::string("load: this is not a file of a cluster"); });
    require<bad_file>(head.version == file_head{}.version, [&] {
      return "load: the file is of version " + std::to_string(head.version) +
             ", this library reads version " + std::to_string(file_head{}.version);
    });
    from(head.model, head.split, head.layers, head.part_bytes);
    from.end_block();
    const auto same = [](const char* what, const std::string& has, const std::string& wanted) {
      require<bad_file>(has == wanted, [&] {
        return std::string("load: the file has ") + what + " \"" + has + "\", the cluster \"" +
               wanted + "\"";
      });
    };
    same("model", head.model, model);
    same("split", head.split, split);
    same("layers", std::to_string(head.layers.size()), std::to_string(layers));
    for (const layer_tokens& l : head.layers) {
      require<bad_file>(l.first <= l.positions, [&] {
        return "load: a layer of the file has live tokens from " + std::to_string(l.first) +
               " on, of " + std::to_string(l.positions);
      });
    }
    require<bad_file>(head.part_bytes.size() == parts, [&] {
      return "load: the file has parts of " + std::to_string(head.part_bytes.size()) +
             " drives, the sequence is on " + std::to_string(parts) +
             "; only files of by_sequences load on another number of drives";
    });
    return head;
  }
};

}  // namespace instinfer::cluster
