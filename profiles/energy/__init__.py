"""Energy per inference: predicted as power times time, or measured by a counter; never mixed."""
