"""Training of what Phoneward trains by itself: small, seeded, resumable."""
