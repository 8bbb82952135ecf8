#pragma once
// Umbrella header of all systems of InstInfer §VI-A.

#include "instinfer/system/deepspeed.hpp"
#include "instinfer/system/flexgen.hpp"
#include "instinfer/system/insta.hpp"
#include "instinfer/system/recomp.hpp"
#include "instinfer/system/run.hpp"
#include "instinfer/system/spec/models.hpp"
