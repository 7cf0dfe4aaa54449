"""Steps of compression one after the other, each a run folder made from the one before."""
