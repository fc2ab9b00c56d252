"""The thin layer that wires the primitives of `resilience` into Conductor's batch poll and update calls."""
