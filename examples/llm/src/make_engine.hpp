#pragma once
// Makes the engine of a method by its name, for one storage and head size.

#include "typed_engine.hpp"

namespace instinfer::llm {

template <class Storage, int HeadDim, class... M>
std::unique_ptr<any_engine> make_engine_of(method_list<M...>, const std::string& name,
                                           const engine_settings& with) {
  std::unique_ptr<any_engine> made;
  const auto one = [&]<class Policy>(std::type_identity<Policy>) {
    if (name == method<Policy>::name) {
      if constexpr (requires { typename Policy::indexed_by; } && !Element<Storage>) {
        throw bad_argument(std::string("instinfer_llm: ") + method<Policy>::name +
                           " clusters rows, so they are stored as fp32, fp16 or bf16");
      } else {
        // Dense attention reads everything, whatever the budget is.
        const double budget = std::is_same_v<Policy, attention::dense> ? 1.0 : with.budget;
        auto policy = methods::at_budget<Policy>(budget, with.capacity.context_tokens,
                                                 static_cast<std::uint32_t>(with.shape.group()),
                                                 static_cast<std::uint32_t>(with.shape.layers));
        if constexpr (std::is_same_v<Policy, attention::streaming_llm>) {
          policy.rotation.base = with.rope_base;
        }
        apply_settings(policy, with.settings);
        made = std::make_unique<typed_engine<Policy, kv_format<Storage, HeadDim>>>(policy, with);
      }
    }
  };
  (one(std::type_identity<M>{}), ...);
  return made;
}

template <class Storage, int HeadDim>
std::unique_ptr<any_engine> make_engine(const std::string& name, const engine_settings& with) {
  return make_engine_of<Storage, HeadDim>(methods_of<HeadDim>{}, name, with);
}

}  // namespace instinfer::llm
