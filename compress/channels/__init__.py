"""Structured pruning: what is coupled, what matters, the plan, and the cut, each by itself."""
