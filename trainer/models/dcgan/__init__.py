"""Deep convolutional GAN of Radford, Metz and Chintala (2015)."""
