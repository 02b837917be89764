"""A model and images opened against each other: traced, their layout, and whether the model knows them at all."""
