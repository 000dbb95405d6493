"""An emulated Arm processor: real engines in a sandbox of our own making, counted by a plugin."""
