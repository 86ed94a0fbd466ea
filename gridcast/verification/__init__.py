"""How good forecasts are: scores, beside those of reference forecasts on the same dates."""
