"""What of a model meets a latency target on a device, chosen before anything is converted."""
