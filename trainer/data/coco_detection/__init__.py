"""COCO 2017: the boxes, and the annotation files that all three views of COCO share."""
