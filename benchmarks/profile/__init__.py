"""`bloodedge benchmark --profile`: where a model's time goes, by operator."""
