"""Where arrays come from: files, named data sets, simulations and static layers."""
