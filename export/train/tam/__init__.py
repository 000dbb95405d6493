"""The training of `efficienttam-nano`."""
