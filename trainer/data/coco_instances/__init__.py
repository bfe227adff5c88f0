"""COCO 2017: the boxes with a mask for each instance."""
