// The C interface (instinfer_llm.h): names to engines, sequences to numbers, exceptions to codes.

#include <algorithm>
#include <exception>
#include <map>
#include <new>
#include <tuple>
#include <vector>

#include "any_engine.hpp"
#include "instinfer/codec/scaled_pages.hpp"
#include "instinfer/cpu/simd-inl.hpp"
#include "instinfer/drive/errors.hpp"
#include "methods.hpp"

// The formats of this build: table(FORMAT) for each, FORMAT(name, storage type, head size).
#include "formats.inc"

namespace {

using namespace instinfer;
using llm::any_engine;

thread_local std::string last_error;

int failed(int code, const char* what) noexcept {
  try {
    last_error = what;
  } catch (...) {
    last_error.clear();
  }
  return code;
}

// f(), with its exceptions as codes.
template <class F>
int guarded(F&& f) noexcept {
  try {
    f();
    return INSTINFER_LLM_OK;
  } catch (const bad_argument& e) {
    return failed(INSTINFER_LLM_BAD_ARGUMENT, e.what());
  } catch (const address_overflow& e) {
    return failed(INSTINFER_LLM_BAD_ARGUMENT, e.what());
  } catch (const unknown_sequence& e) {
    return failed(INSTINFER_LLM_UNKNOWN_SEQUENCE, e.what());
  } catch (const drive_full& e) {
    return failed(INSTINFER_LLM_DRIVE_FULL, e.what());
  } catch (const io_error& e) {
    return failed(INSTINFER_LLM_IO_ERROR, e.what());
  } catch (const page_damaged& e) {
    return failed(INSTINFER_LLM_IO_ERROR, e.what());
  } catch (const std::bad_alloc&) {
    return failed(INSTINFER_LLM_OUT_OF_MEMORY, "instinfer_llm: out of memory");
  } catch (const std::exception& e) {
    return failed(INSTINFER_LLM_FAILED, e.what());
  } catch (...) {
    return failed(INSTINFER_LLM_FAILED, "instinfer_llm: unknown exception");
  }
}

void require_given(const void* pointer, const char* what) {
  require(pointer != nullptr, [&] { return std::string(what) + " must not be NULL"; });
}

std::string text(const char* s) { return s == nullptr ? std::string() : std::string(s); }

const std::string& formats() {
  static const std::string all = [] {
    std::string names;
#define FORMAT(name, storage, head_dim) \
  names += names.empty() ? "" : " ";    \
  names += name ":" #head_dim;
    INSTINFER_LLM_TABLE(FORMAT)
#undef FORMAT
    return names;
  }();
  return all;
}
const std::string& method_names() {
  static const std::string all = llm::methods_of<64>::names();
  return all;
}

std::unique_ptr<any_engine> make(const std::string& storage, int head_dim, const std::string& name,
                                 const llm::engine_settings& with) {
  bool known = false;
  std::unique_ptr<any_engine> made;
#define FORMAT(its_name, its_storage, its_head_dim)                 \
  if (storage == its_name && head_dim == its_head_dim) {            \
    known = true;                                                   \
    made = llm::make_engine<its_storage, its_head_dim>(name, with); \
  }
  INSTINFER_LLM_TABLE(FORMAT)
#undef FORMAT
  require(known, [&] {
    return "instinfer_llm: storage '" + storage + "' with head size " + std::to_string(head_dim) +
           " is not in this build, which has: " + formats() + "; set INSTINFER_LLM_FORMATS=\"" +
           storage + ":" + std::to_string(head_dim) + ";...\" and build again";
  });
  require(made != nullptr,
          [&] { return "instinfer_llm: no method '" + name + "'; there are: " + method_names(); });
  return made;
}

auto kind_of(const instinfer_llm_layer& l) {
  return std::tuple(l.q_heads, l.kv_heads, l.head_dim, l.window, l.scale, l.soft_cap,
                    text(l.method), l.budget, text(l.settings));
}

}  // namespace

struct instinfer_llm {
  explicit instinfer_llm(const instinfer_llm_config& c)
      : workers{static_cast<std::size_t>(threads_of(c))} {
    require(c.layers > 0 && c.of_layer != nullptr, [&] {
      return "config: layers must be positive and of_layer given, got " + std::to_string(c.layers) +
             " layers";
    });
    std::map<decltype(kind_of(*c.of_layer)), std::size_t> known;
    for (int l = 0; l < c.layers; ++l) {
      const instinfer_llm_layer& layer = c.of_layer[l];
      const auto [at, is_new] = known.try_emplace(kind_of(layer), engines.size());
      if (is_new) {
        engines.push_back(engine_of(layer, c));
      }
      kind_of_layer.push_back(at->second);
    }
  }

  static int threads_of(const instinfer_llm_config& c) {
    require(c.threads >= 1 && c.threads <= 1024,
            [&] { return "config: threads must be 1 to 1024, got " + std::to_string(c.threads); });
    return c.threads;
  }
  static std::unique_ptr<any_engine> engine_of(const instinfer_llm_layer& layer,
                                               const instinfer_llm_config& c) {
    require(layer.budget > 0 && layer.budget <= 1, [&] {
      return "config: a budget must lie in (0, 1], got " + std::to_string(layer.budget);
    });
    llm::engine_settings with;
    with.shape = {c.layers, layer.q_heads, layer.kv_heads};
    with.logits = {.scale = layer.scale, .soft_cap = layer.soft_cap, .window = layer.window};
    with.capacity.bytes = c.bytes;
    with.capacity.context_tokens = c.context_tokens;
    with.budget = layer.budget;
    with.settings = text(layer.settings);
    with.rope_base = c.rope_base;
    with.drive = text(c.drive);
    return make(text(c.storage), layer.head_dim, text(layer.method), with);
  }

  any_engine& at(int layer) { return *engines[kind_at(layer)]; }
  std::size_t kind_at(int layer) const {
    require(layer >= 0 && static_cast<std::size_t>(layer) < kind_of_layer.size(), [&] {
      return "layer must be in [0, " + std::to_string(kind_of_layer.size()) + "), got " +
             std::to_string(layer);
    });
    return kind_of_layer[static_cast<std::size_t>(layer)];
  }
  const std::vector<sequence>& parts_of(instinfer_llm_sequence seq) const {
    const auto at = sequences.find(seq);
    require<unknown_sequence>(at != sequences.end(), [&] {
      return "sequence " + std::to_string(seq) + " is not open: it was never opened, or was closed";
    });
    return at->second;
  }

  // A sequence with what f(engine, kind) opens in every engine; none if one throws.
  template <class F>
  instinfer_llm_sequence open_in_all(F&& f) {
    std::vector<sequence> parts;
    parts.reserve(engines.size());
    try {
      for (std::size_t kind = 0; kind < engines.size(); ++kind) {
        parts.push_back(f(*engines[kind], kind));
      }
      sequences.emplace(next, parts);
    } catch (...) {
      close(parts);
      throw;
    }
    return next++;
  }
  void close(const std::vector<sequence>& parts) {
    for (std::size_t kind = 0; kind < parts.size(); ++kind) {
      engines[kind]->reclaim(parts[kind]);
    }
  }

  std::span<const llm::token_rows> rows_of(int layer, int type, std::size_t batch,
                                           const instinfer_llm_tokens* tokens) {
    require(batch == 0 || tokens != nullptr, [] { return std::string("rows must not be NULL"); });
    const std::size_t kind = kind_at(layer);
    rows.clear();
    for (std::size_t i = 0; i < batch; ++i) {
      rows.push_back({parts_of(tokens[i].sequence)[kind], &tokens[i], type});
    }
    return rows;
  }

  bench::worker_pool workers;
  std::vector<std::unique_ptr<any_engine>> engines;  // one for each kind of layers
  std::vector<std::size_t> kind_of_layer;
  std::map<instinfer_llm_sequence, std::vector<sequence>> sequences;  // handles in each engine
  instinfer_llm_sequence next = 1;
  std::vector<llm::token_rows> rows;  // scratch
  instinfer_llm_usage usage{};
};

extern "C" {

const char* instinfer_llm_error(void) { return last_error.c_str(); }
const char* instinfer_llm_methods(void) { return method_names().c_str(); }
const char* instinfer_llm_formats(void) { return formats().c_str(); }
const char* instinfer_llm_target(void) { return instinfer::cpu::target_name(); }

int instinfer_llm_create(const instinfer_llm_config* config, instinfer_llm** model) {
  return guarded([&] {
    require_given(config, "create: config");
    require_given(model, "create: model");
    *model = new instinfer_llm(*config);
  });
}
void instinfer_llm_destroy(instinfer_llm* model) { delete model; }

int instinfer_llm_open(instinfer_llm* model, instinfer_llm_sequence* sequence) {
  return guarded([&] {
    require_given(model, "open: model");
    require_given(sequence, "open: sequence");
    *sequence = model->open_in_all([](any_engine& e, std::size_t) { return e.open(); });
  });
}
int instinfer_llm_fork(instinfer_llm* model, instinfer_llm_sequence from,
                       instinfer_llm_sequence* sequence) {
  return guarded([&] {
    require_given(model, "fork: model");
    require_given(sequence, "fork: sequence");
    const auto& parts = model->parts_of(from);
    *sequence =
        model->open_in_all([&](any_engine& e, std::size_t kind) { return e.fork(parts[kind]); });
  });
}
int instinfer_llm_truncate(instinfer_llm* model, instinfer_llm_sequence sequence, uint64_t tokens) {
  return guarded([&] {
    require_given(model, "truncate: model");
    const auto& parts = model->parts_of(sequence);
    for (std::size_t l = 0; l < model->kind_of_layer.size(); ++l) {
      const auto layer = static_cast<int>(l);
      const std::size_t kind = model->kind_of_layer[l];
      model->engines[kind]->truncate(parts[kind], layer, layer + 1, tokens);
    }
  });
}
int instinfer_llm_close(instinfer_llm* model, instinfer_llm_sequence sequence) {
  return guarded([&] {
    require_given(model, "close: model");
    model->close(model->parts_of(sequence));
    model->sequences.erase(sequence);
  });
}
int instinfer_llm_length(instinfer_llm* model, instinfer_llm_sequence sequence, int32_t layer,
                         uint64_t* tokens) {
  return guarded([&] {
    require_given(model, "length: model");
    require_given(tokens, "length: tokens");
    const std::size_t kind = model->kind_at(layer);
    *tokens = model->engines[kind]->length(model->parts_of(sequence)[kind], layer);
  });
}

int instinfer_llm_prefill(instinfer_llm* model, int32_t layer, int32_t type, size_t batch,
                          const instinfer_llm_tokens* rows) {
  return guarded([&] {
    require_given(model, "prefill: model");
    model->at(layer).prefill(model->rows_of(layer, type, batch, rows), layer, model->usage);
  });
}
int instinfer_llm_decode(instinfer_llm* model, int32_t layer, int32_t type, size_t batch,
                         const instinfer_llm_tokens* rows, int32_t timed) {
  return guarded([&] {
    require_given(model, "decode: model");
    model->at(layer).decode(model->rows_of(layer, type, batch, rows), layer, timed != 0,
                            model->workers, model->usage);
  });
}

int instinfer_llm_get_usage(const instinfer_llm* model, instinfer_llm_usage* usage) {
  return guarded([&] {
    require_given(model, "get_usage: model");
    require_given(usage, "get_usage: usage");
    *usage = model->usage;
  });
}
void instinfer_llm_reset_usage(instinfer_llm* model) {
  if (model != nullptr) {
    model->usage = {};
  }
}

}  // extern "C"
