"""Faults on purpose, a module for each class: what is lost, and what is wrong in silence."""
