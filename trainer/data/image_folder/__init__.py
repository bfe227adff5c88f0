"""Any folder of images in ImageNet's layout: one folder per split, in it one folder per class."""
