"""One module per family of reference models."""
