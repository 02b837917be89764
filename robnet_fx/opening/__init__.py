"""A model and images opened against each other: their layout, and whether the model knows them at all."""
