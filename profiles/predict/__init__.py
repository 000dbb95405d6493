"""What a model will take on a device that nobody here holds: the latency model and its fit."""
