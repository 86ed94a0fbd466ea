"""From a labelled series to the arrays that a model sees."""
