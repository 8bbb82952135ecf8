#pragma once
// A drive as a JSON file: what the calibration of a real drive writes, and what the planner and the
// sweep take in place of a preset.

#include <cstdint>
#include <fstream>
#include <string>
#include <string_view>

#include <nlohmann/json.hpp>

#include "instinfer/core/errors.hpp"
#include "instinfer/ssd/spec/drive_rules.hpp"
#include "instinfer/ssd/spec/presets.hpp"

namespace instinfer::examples {

// A drive without an accelerator, and which of its pages are read by one command.
struct drive_file {
  flash::drive_spec spec;
  flash::pairing pair = flash::pairing::same_block_and_page;
};

namespace detail {

// Calls each(name, number) for every number of a drive file. Units are part of the names.
template <class Spec, class Each>
void each_number(Spec& spec, Each&& each) {
  auto& g = spec.geometry;
  each("channels", g.channels);
  each("chips", g.chips);
  each("dies", g.dies);
  each("planes", g.planes);
  each("blocks", g.blocks);
  each("pages", g.pages);
  each("page_bytes", g.page_bytes);
  each("codeword_bytes", g.codeword_bytes);
  auto& t = spec.timing;
  each("read_ps", t.read_ps);
  each("program_ps", t.program_ps);
  each("erase_ps", t.erase_ps);
  each("bus_bytes_per_s", t.bus_bytes_per_s);
  each("read_command_ps", t.read_command_ps);
  each("read_address_ps", t.read_address_ps);
  each("read_next_plane_ps", t.read_next_plane_ps);
  each("read_turnaround_ps", t.read_turnaround_ps);
  each("program_command_ps", t.program_command_ps);
  each("program_next_plane_ps", t.program_next_plane_ps);
  each("link_bytes_per_s", spec.link_bytes_per_s);
  each("dram_bytes", spec.dram_bytes);
  each("dram_bytes_per_s", spec.dram_bytes_per_s);
}

inline constexpr std::string_view drive_file_kind = "drive";
inline constexpr std::string_view one_row = "same_block_and_page";
inline constexpr std::string_view any_row = "any";

}  // namespace detail

inline nlohmann::ordered_json json_of(const drive_file& drive) {
  nlohmann::ordered_json file{{"kind", detail::drive_file_kind}};
  detail::each_number(drive.spec,
                      [&](const char* name, const auto& number) { file[name] = number; });
  file["pairing"] = drive.pair == flash::pairing::any ? detail::any_row : detail::one_row;
  return file;
}

// Entries that are not a drive's are left to the reader, for example the samples of a calibration.
// Throws bad_file with `name` and the entry that is missing or of the wrong type, and bad_argument
// for a drive that cannot be.
inline drive_file drive_of_json(const nlohmann::json& file, const std::string& name) {
  const auto check = [&](bool good, const std::string& what) {
    require<bad_file>(good, [&] { return name + ": " + what; });
  };
  check(file.is_object() && file.value("kind", nlohmann::json()) == detail::drive_file_kind,
        "not a drive file, a JSON object with \"kind\": \"drive\" is expected");
  drive_file drive;
  detail::each_number(drive.spec, [&](const char* entry, auto& number) {
    using integer = std::remove_reference_t<decltype(number)>;
    const auto at = file.find(entry);
    check(at != file.end() && at->is_number_integer(),
          std::string(entry) + " must be an integer" +
              (at == file.end() ? ", it is missing" : ", got " + at->dump()));
    const auto value = at->template get<std::int64_t>();
    number = static_cast<integer>(value);
    check(std::int64_t{number} == value && (!at->is_number_unsigned() || value >= 0),
          std::string(entry) + " is out of range, got " + at->dump());
  });
  const nlohmann::json pair = file.value("pairing", nlohmann::json());
  check(pair == detail::one_row || pair == detail::any_row,
        "pairing must be \"same_block_and_page\" or \"any\", got " + pair.dump());
  drive.pair = pair == detail::any_row ? flash::pairing::any : flash::pairing::same_block_and_page;
  try {
    flash::validate(drive.spec);
  } catch (const bad_argument& e) {
    throw bad_argument(name + ": " + e.what());
  }
  return drive;
}

// Whether the name of a drive is that of a file, and not of a preset.
inline bool names_drive_file(std::string_view name) { return name.ends_with(".json"); }

// Throws bad_file also for a file that cannot be read or is no JSON.
inline drive_file read_drive_file(const std::string& name) {
  std::ifstream in(name, std::ios::binary);
  require<bad_file>(in.is_open(), [&] { return name + ": cannot be read"; });
  const nlohmann::json file = nlohmann::json::parse(in, nullptr, false);
  require<bad_file>(!file.is_discarded(), [&] { return name + ": not JSON"; });
  return drive_of_json(file, name);
}

}  // namespace instinfer::examples
