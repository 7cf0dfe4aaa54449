"""`bloodedge report`: runs and results from anywhere, joined into one comparison."""
