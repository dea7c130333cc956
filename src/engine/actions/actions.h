// The actions of an engine step, in the order in which the core runs them. Each changes the state a little and is a
// file of its own; a new idea is a new file and a line in the core's list. Engine's thread.
#pragma once

#include "engine/state.h"

namespace spillway::engine {

// Takes the tokens of the step that the device was left with, if any, and starts the next one before it hands them out.
void land(State& state);

// Ends what was cancelled or is past its deadline, waiting or running. Looks at all sequences.
void expire(State& state);

// Moves waiting sequences to the running ones, in order of urgency, while there are slots and pages; preempts lower
// priorities for higher ones. A sequence whose prefix is just being computed by another waits for that one's pages.
void admit(State& state);

// Plans the step, preempts where pages run out, runs the model over the planned slices and hands out the tokens.
void compute(State& state);

}  // namespace spillway::engine
