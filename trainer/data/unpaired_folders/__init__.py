"""Two folders of pictures that do not belong together one by one, as for CycleGAN and MUNIT."""
