"""Finding the weights: losses, the compiled step, the loop, and checkpoints."""
