"""Reading of images and masks, and atomic writing of files."""
