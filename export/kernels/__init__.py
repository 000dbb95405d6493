"""The kernels of a PyTorch module, of a model by name, and of what an export would make."""
