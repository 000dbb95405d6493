"""Reports for reading: one self-contained HTML page, or Markdown, or one JSON document."""
