"""`bloodedge pipeline`: from the data alone to verified files, by presets."""
