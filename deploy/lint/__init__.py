"""What a recipe or a file will bring on a runtime, said before hours are spent on it."""
