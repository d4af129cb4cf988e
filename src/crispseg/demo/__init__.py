"""A page in the browser: drop an image, see what trained models make of it.

Only `app` needs Gradio (`pip install 'crispseg[demo]'`); the rest are plain functions.
"""
