"""Ours against naive conversions: what the rewrites are worth, measured by taking turns."""
