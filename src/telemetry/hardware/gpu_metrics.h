// The metrics of GPUs: under Spillway's names, and on request also under those of NVIDIA's DCGM exporter with its
// units, so that dashboards made for it work unchanged. On the sampler's thread.
#pragma once

#include "telemetry/hardware/gpu_faults.h"
#include "telemetry/hardware/nvml.h"

namespace spillway::telemetry {

// What is due by the budget of readings; what is not keeps its last value. faults: who hears of XIDs.
void record_gpus(Nvml& nvml, bool dcgm_names, TimePoint now, GpuFaults* faults = nullptr);

}  // namespace spillway::telemetry
