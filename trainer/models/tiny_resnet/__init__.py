"""A small ResNet for Tiny ImageNet, trained at changing sizes."""
