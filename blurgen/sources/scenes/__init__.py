"""Dead-leaves scenes: what the source `leaves` renders."""
