"""Classes of faults, one module each; `scripts/faults.py` runs them."""
