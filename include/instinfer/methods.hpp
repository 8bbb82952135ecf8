#pragma once
// Umbrella header of all selection methods; attention/concepts.hpp has the menu.

#include "instinfer/methods/at_budget.hpp"
#include "instinfer/methods/dense.hpp"
#include "instinfer/methods/dsa.hpp"
#include "instinfer/methods/h2o.hpp"
#include "instinfer/methods/hgca.hpp"
#include "instinfer/methods/misa.hpp"
#include "instinfer/methods/per_query_head.hpp"
#include "instinfer/methods/quest.hpp"
#include "instinfer/methods/retro_infer.hpp"
#include "instinfer/methods/sparf.hpp"
#include "instinfer/methods/sparq.hpp"
#include "instinfer/methods/squeezed.hpp"
#include "instinfer/methods/streaming_llm.hpp"
#include "instinfer/methods/top_values.hpp"
