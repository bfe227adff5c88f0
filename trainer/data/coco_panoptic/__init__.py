"""COCO 2017: panoptic segmentation, in which every pixel belongs to one segment or to none."""
