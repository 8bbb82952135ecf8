#pragma once
// Every selection method: the menu of attention/concepts.hpp as one include.

#include "instinfer/attention/dense.hpp"
#include "instinfer/attention/dsa.hpp"
#include "instinfer/attention/h2o.hpp"
#include "instinfer/attention/hgca.hpp"
#include "instinfer/attention/misa.hpp"
#include "instinfer/attention/per_query_head.hpp"
#include "instinfer/attention/quest.hpp"
#include "instinfer/attention/retro_infer.hpp"
#include "instinfer/attention/sparf.hpp"
#include "instinfer/attention/sparq.hpp"
#include "instinfer/attention/squeezed.hpp"
#include "instinfer/attention/streaming_llm.hpp"
#include "instinfer/attention/top_values.hpp"
