"""A page in the browser: drop an image, see what trained models make of it. Needs `pip install 'crispseg[demo]'`."""
