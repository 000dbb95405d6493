"""Core ML's ML programs, run anywhere: op by op, on the CPU, with PyTorch."""
