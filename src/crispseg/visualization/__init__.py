"""Images, charts and self-contained HTML pages."""
