"""The one LatencyReport: its schema, its figures, and the pages made of it."""
