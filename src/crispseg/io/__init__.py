"""Images, masks and tables in files: one way to read each, and atomic writes."""
