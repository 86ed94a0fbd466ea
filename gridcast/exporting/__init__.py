"""A trained run as one program that needs jax alone: written, and loaded again."""
