"""Models that ship with the package, for `bloodedge predict` right after installation."""
