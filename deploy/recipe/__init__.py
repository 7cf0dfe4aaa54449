"""A whole recipe: the steps that train, the files at their end, and what each of them gained."""
