"""ImageNet-1k (ILSVRC 2012) in its official archives, unpacked, and as Kaggle has it."""
