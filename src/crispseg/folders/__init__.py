"""The meaning of a folder of images and masks: files, layout, pairs, splits and facts."""
