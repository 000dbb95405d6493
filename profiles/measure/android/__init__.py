"""Android phones: adb, what a phone says of itself, and the programs that time models there."""
