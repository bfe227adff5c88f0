"""CycleGAN: two networks translate pictures between domains, and back to what they were."""
