"""The science of paper2hub: papers as recipes, datasets as adapters, and the engine of both."""
