"""`bloodedge benchmark --browser`: any phone measures the models on a page served from here."""
